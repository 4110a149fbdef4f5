"""Lower bounds on I(X; Y) from the cross entropy of a classifier."""

from __future__ import annotations

import math
import warnings
from statistics import NormalDist
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import can_look, check_at_least, check_choice, check_floating, check_prior
from lastlayer.functional.information.entropy import (
    divergence_from_uniform,
    entropy,
    label_counts,
    label_entropy,
)
from lastlayer.functional.numerics import at_least_float32

UNBALANCED = ("raise", "warn")


class InformationWarning(UserWarning):
    """An estimate of information that does not mean what it seems to mean."""


def cross_entropy_information(
    logits: Tensor,
    target: Tensor,
    *,
    prior: Tensor | None = None,
    correction: str = "none",
) -> BoundEstimate:
    r"""Information of a classifier's probabilities about the label, for any prior.

    .. math:: H(Y) - \mathrm{CE} = I(X; Y) - \mathrm{E}_x
        \mathrm{KL}\big(p(\cdot \mid x) \,\|\, q(\cdot \mid x)\big) \le I(X; Y)

    The bound holds for every model, on examples that it was not trained on. It is at most H(Y),
    and negative for a model that is worse than the prior.

    With a given prior, H(Y) is known and the error is that of the cross entropy alone; without, it
    comes from the labels and the error is that of the mean of :math:`\log q_y - \log \hat\pi_y`.

    Args:
        logits: (N, K) logits or log-probabilities; probabilities of 0 may be -inf.
        target: (N,) int64 class indices in [0, K).
        prior: (K,) known class probabilities of these examples; their frequencies if None.
        correction: bias correction of H(Y), see :func:`label_entropy`; without ``prior`` only.

    Returns:
        :class:`BoundEstimate`.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape, a label or an option does not fit.

    Example:
        >>> import torch
        >>> log_prob = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()
        >>> cross_entropy_information(log_prob, torch.tensor([0, 1])).value
        tensor(0.5289)

    Source: derived here.
    """
    log_q = _target_log_prob(logits, target)
    num_classes = logits.shape[1]
    if prior is None:
        label_information = label_entropy(target, num_classes, correction=correction).to(log_q)
        frequency = label_counts(target, num_classes).to(log_q) / len(target)
        influence = log_q - frequency[target].log()
    else:
        check_choice("correction", correction, ("none",))  # nothing is estimated
        check_prior("prior", prior, num_classes)
        check_target_prior(target, prior)
        label_information = entropy(prior.to(log_q))
        influence = log_q
    return BoundEstimate(label_information + log_q.mean(), standard_error(influence))


def log_num_classes_information(
    logits: Tensor,
    target: Tensor,
    *,
    prior: Tensor | None = None,
    unbalanced: str = "raise",
    tolerance: float = 0.01,
) -> BoundEstimate:
    r"""The cross entropy read against log K, a bound for balanced labels only.

    .. math:: \log K - \mathrm{CE} = I(X; Y) + \mathrm{KL}(\pi \,\|\, \mathrm{uniform})
        - \mathrm{E}_x \mathrm{KL}(p \,\|\, q)

    With unbalanced labels the value may exceed the truth by :math:`\mathrm{KL}(\pi \,\|\,
    \mathrm{uniform})`; then use :func:`cross_entropy_information`.

    Args:
        logits: (N, K) logits or log-probabilities.
        target: (N,) int64 class indices in [0, K).
        prior: (K,) known class probabilities; if None, the labels themselves are judged, and
            deviations that a balanced draw of that size shows by chance are let pass.
        unbalanced: ``"raise"`` or ``"warn"``, what to do if the labels are not balanced.
        tolerance: divergence from uniform, in nats, that counts as balanced; at least 0.

    Returns:
        :class:`BoundEstimate`.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape, a label or an option does not fit, or the labels are unbalanced and
            ``unbalanced="raise"``.

    Warns:
        InformationWarning: if the labels are unbalanced and ``unbalanced="warn"``.

    Example:
        >>> import torch
        >>> log_prob = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()
        >>> log_num_classes_information(log_prob, torch.tensor([0, 1])).value
        tensor(0.5289)

    Source: Qin, Kim and Gedeon, "Rethinking softmax with cross-entropy", arXiv 1911.10688.
    """
    check_choice("unbalanced", unbalanced, UNBALANCED)
    check_at_least("tolerance", tolerance, 0.0)
    log_q = _target_log_prob(logits, target)
    num_classes = logits.shape[1]
    if prior is not None:
        check_prior("prior", prior, num_classes)
        excess, by_chance = float(divergence_from_uniform(prior.double())), 0.0
    else:
        counts = label_counts(target, num_classes).double()
        excess = float(divergence_from_uniform(counts / counts.sum()))
        by_chance = _divergence_by_chance(num_classes, len(target))
    if excess > max(tolerance, by_chance):
        message = (
            f"labels must be balanced for log K - CE; their divergence from uniform, {excess:.4g} "
            "nats, is what the value may exceed the mutual information by: use H(Y) - CE"
        )
        if unbalanced == "raise":
            raise ValueError(message)
        warnings.warn(message, InformationWarning, stacklevel=2)
    return BoundEstimate(math.log(num_classes) + log_q.mean(), standard_error(log_q))


def _divergence_by_chance(num_classes: int, n: int) -> float:
    """Return what the divergence of n balanced labels from uniform exceeds once in 30,000 draws.

    2 n KL follows a chi-square law with K - 1 degrees of freedom; its quantile is Wilson's and
    Hilferty's.
    """
    if num_classes == 1:
        return 0.0
    freedom = num_classes - 1
    spread = 2 / (9 * freedom)
    z = NormalDist().inv_cdf(1 - 1 / 30_000)
    return freedom * (1 - spread + z * math.sqrt(spread)) ** 3 / (2 * n)


def _target_log_prob(logits: Tensor, target: Tensor) -> Tensor:
    """Return the (N,) log-probabilities of the labels."""
    check_scores(logits, target)
    return -F.nll_loss(at_least_float32(logits).log_softmax(dim=-1), target, reduction="none")


def check_scores(scores: Tensor, target: Tensor) -> None:
    """Raise unless these are (N, K) floating-point scores and (N,) labels in [0, K), N >= 1."""
    check_floating("logits", scores)
    if scores.dim() != 2 or scores.numel() == 0:
        raise ValueError(
            f"logits must have shape (N, K) with N >= 1 and K >= 1; got {tuple(scores.shape)}"
        )
    if target.shape != scores.shape[:1]:
        raise ValueError(
            f"target must have shape ({len(scores)},), one label per row; got {tuple(target.shape)}"
        )
    label_counts(target, scores.shape[1])


def check_target_prior(target: Tensor, prior: Tensor) -> None:
    """Raise ``ValueError`` if a label occurs whose prior is 0."""
    impossible = prior.to(target.device)[target] == 0
    if can_look(impossible, wait=True) and bool(impossible.any()):
        row = int(impossible.nonzero()[0])
        raise ValueError(
            f"prior must be above 0 for every label that occurs; row {row} has label "
            f"{int(target[row])} of prior 0"
        )


class BoundEstimate(NamedTuple):
    """An estimate of a bound on the mutual information.

    Attributes:
        value: scalar in nats, differentiable with respect to the scores; not clipped.
        standard_error: scalar in nats, without gradient; NaN from a single example and wherever
            the value is infinite.
    """

    value: Tensor
    standard_error: Tensor


def standard_error(influence: Tensor) -> Tensor:
    r"""Standard error of the mean of independent values, :math:`s / \sqrt n`.

    Args:
        influence: (N,) what each example adds to N times the estimate.

    Returns:
        A scalar without gradient, NaN for N = 1.

    Example:
        >>> standard_error(torch.tensor([0.0, 2.0]))
        tensor(1.)
    """
    influence = influence.detach()
    if len(influence) < 2:
        return influence.new_full((), math.nan)
    return torch.std(influence) / math.sqrt(len(influence))
