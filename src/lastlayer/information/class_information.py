"""How much a model knows about every class."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from lastlayer._checks import check_choice, check_prior
from lastlayer.functional import information as fi
from lastlayer.functional.information.label_bounds import check_target_prior
from lastlayer.information.estimate import checked_scores, warn_of_training


class ClassInformation(NamedTuple):
    """Pointwise information of the examples of one class, in nats.

    Attributes:
        label: the class.
        n: number of its examples.
        prior: its probability.
        mean: mean pointwise information of its examples; NaN without any.
        standard_error: of that mean; NaN for fewer than two.
        ceiling: largest value it can have, minus the log prior.
        misleading: share of its examples with negative information, for which the model's belief
            in the true class is below the prior; NaN without any.
    """

    label: int
    n: int
    prior: float
    mean: float
    standard_error: float
    ceiling: float
    misleading: float


def class_information(
    scores: Tensor,
    target: Tensor,
    *,
    prior: Tensor | None = None,
    trained_with: str = "cross-entropy",
    held_out: bool = True,
) -> list[ClassInformation]:
    r"""Return the pointwise information of every class.

    .. math:: \bar\imath_y = \mathrm{E}\big[ \mathrm{pmi}(x, y) \mid Y = y \big] \le -\log \pi_y,
        \qquad \sum_y \pi_y\, \bar\imath_y \le I(X; Y)

    Args:
        scores: (N, K) logits, or log-probabilities of a cross-entropy model, of held-out examples.
        target: (N,) int64 class indices in [0, K).
        prior: (K,) class probabilities; the frequencies of ``target`` if None.
        trained_with: the loss behind the logits, ``"cross-entropy"`` or ``"pc-softmax"``.
        held_out: False warns, see :func:`estimate_information`.

    Returns:
        One row for every class, those without examples as well.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape, a label, a score or an option does not fit.

    Warns:
        InformationWarning: for training data.

    Example:
        >>> import torch
        >>> log_prob = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]).log()
        >>> [round(row.mean, 4) for row in class_information(log_prob, torch.tensor([0, 1, 0]))]
        [0.1744, 0.8755]

    Source: derived here from Qin and Kim, "Softmax is not an artificial trick", arXiv 1910.02629.
    """
    check_choice("trained_with", trained_with, fi.TRAINED_WITH)
    scores, target = checked_scores(scores, target)
    warn_of_training(held_out)
    counts = fi.label_counts(target, scores.shape[1])
    shares = counts.double() / len(target) if prior is None else prior.detach().cpu().double()
    check_prior("prior", shares, scores.shape[1])
    check_target_prior(target, shares)
    pointwise = fi.pointwise_information(scores, shares, trained_with=trained_with)
    of_target = pointwise.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return [
        _row(label, of_target[target == label], share)
        for label, share in enumerate(shares.tolist())
    ]


def _row(label: int, values: Tensor, share: float) -> ClassInformation:
    seen = len(values) > 0
    return ClassInformation(
        label=label,
        n=len(values),
        prior=share,
        mean=float(values.mean()) if seen else math.nan,
        standard_error=float(fi.standard_error(values)),
        ceiling=-math.log(share) if share > 0 else math.inf,
        misleading=float((values < 0).double().mean()) if seen else math.nan,
    )
