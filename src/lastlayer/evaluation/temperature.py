"""Temperature scaling: one number, fitted on held-out data, that repairs over-confidence."""

from __future__ import annotations

import math

from torch import Tensor

from lastlayer._checks import check_floating, check_positive
from lastlayer.evaluation._predictions import check_scores
from lastlayer.functional.numerics import at_least_float32

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def apply_temperature(scores: Tensor, temperature: float) -> Tensor:
    r"""Log-probabilities :math:`\log\operatorname{softmax}(s / T)`.

    T > 1 flattens, T < 1 sharpens; the order of the classes, hence the error, stays. A score of
    ``-inf`` stays at probability zero whatever T is.

    Args:
        scores: (*, K) logits or log-probabilities.
        temperature: T > 0.

    Returns:
        (*, K) log-probabilities, in the dtype of ``scores``; float32 for half precision, which
        cannot hold them.

    Raises:
        TypeError: if ``scores`` is not floating point.
        ValueError: if ``temperature`` is not a finite number above 0.

    >>> import torch
    >>> round(float(apply_temperature(torch.tensor([0.8, 0.2]).log(), 2.0).exp()[0]), 4)
    0.6667
    """
    check_floating("scores", scores)
    check_positive("temperature", temperature)
    scores = at_least_float32(scores)
    # No quotient overflows where the largest score is 0.
    relative = scores - scores.detach().amax(dim=-1, keepdim=True)
    return (relative / temperature).log_softmax(dim=-1)


def fit_temperature(scores: Tensor, target: Tensor) -> float:
    r"""The temperature that minimizes the held-out NLL of :math:`\operatorname{softmax}(s / T)`.

    In :math:`\beta = 1/T` the NLL is convex and its slope is
    :math:`\tfrac1N\sum_i \left(\sum_k p_{ik} s_{ik} - s_{i t_i}\right)`; its root is bracketed
    and found by Brent's method within T in [0.05, 20], else the nearer bound is returned (the
    lower one if every row is classified right). If T makes no difference the answer is 1.

    Log-probabilities serve as scores, so every head can be scaled: softmax ignores the constant
    per row. A sparse head (sparsemax, entmax) has ``-inf`` log-probabilities that no temperature
    can revive: where a label has one, fit on the head's raw logits instead, which scales a
    softmax of those logits. ``evaluate(...).zero_prob_rows`` counts such rows beforehand.

    Args:
        scores: (N, K) logits or log-probabilities of held-out rows, finite or ``-inf``.
        target: (N,) int64 labels in [0, K).

    Returns:
        T in [0.05, 20].

    Raises:
        TypeError: if a dtype is wrong.
        ValueError: if a shape is wrong, the input is empty, a label is out of range, a score is
            NaN or ``+inf``, or a label's score is ``-inf``.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017), section 4.2.

    >>> import torch
    >>> scores = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
    >>> round(fit_temperature(scores, torch.tensor([0, 0, 0, 1])), 4)  # 3 of 4: 4 / log 3
    3.641
    """
    from scipy.optimize import brentq

    scores, target = check_scores("scores", scores, target)
    scores = scores.double()
    impossible = scores.gather(1, target[:, None]).squeeze(1) == -float("inf")
    if bool(impossible.any()):
        raise ValueError(
            f"scores must be above -inf for every label, as no temperature changes a probability "
            f"of zero; {int(impossible.sum())} labels have -inf, the first in row "
            f"{int(impossible.nonzero()[0])}: fit on the head's logits instead"
        )
    # Relative to the label's score: finite slopes, no cancellation, and zero for the label itself.
    relative = scores - scores.gather(1, target[:, None])
    finite = relative.masked_fill(relative == -float("inf"), 0.0)
    if not bool(finite.any()):
        return 1.0

    def slope(beta: float) -> float:
        return float(((relative * beta).softmax(dim=1) * finite).sum(dim=1).mean())

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if slope(low) >= 0:
        return MAX_TEMPERATURE
    if slope(high) <= 0:
        return MIN_TEMPERATURE
    beta = brentq(slope, low, high, xtol=1e-12, rtol=4 * math.ulp(1.0))
    return 1.0 / float(beta)
