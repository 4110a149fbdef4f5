"""From the scores of held-out examples to an estimate of the mutual information."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import torch
from torch import Tensor

from lastlayer._checks import check_choice, check_class_indices, check_floating, check_inside
from lastlayer.functional import information as fi

#: What the scores are, and how they are read.
KINDS = ("cross-entropy", "pc-softmax", "log-k", "donsker-varadhan", "nwj", "info-nce")

# The kinds that read logits as a critic, of which a known prior is part.
_CRITICS: dict[str, Callable[..., fi.BoundEstimate]] = {
    "pc-softmax": fi.barber_agakov_bound,
    "donsker-varadhan": fi.donsker_varadhan_bound,
    "nwj": fi.nwj_bound,
}


@dataclass(frozen=True)
class InformationEstimate:
    """An estimate of the mutual information of input and label.

    Attributes:
        value: nats; not clipped, so that it may be negative.
        standard_error: nats; NaN from a single example or where the value is infinite.
        n: number of examples.
        kind: how it was estimated.
        notes: what the reader should know, one sentence each.

    Example:
        >>> estimate = InformationEstimate(1.0, 0.01, n=5000, kind="pc-softmax")
        >>> print(estimate)
        1.0000 ± 0.0100 nats (1.4427 bits), pc-softmax, n = 5000
        >>> [round(end, 4) for end in estimate.interval()]
        [0.9804, 1.0196]
    """

    value: float
    standard_error: float
    n: int
    kind: str
    notes: tuple[str, ...] = ()

    @property
    def bits(self) -> float:
        """The value in bits."""
        return self.value / math.log(2)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the normal interval of the value, in nats.

        It speaks of the draw of the examples: the bound that is estimated may itself lie below the
        mutual information by any amount.

        Args:
            confidence: coverage in (0, 1).

        Returns:
            Its lower and upper end; infinite where there is no standard error.

        Raises:
            ValueError: if ``confidence`` is outside (0, 1).
        """
        check_inside("confidence", confidence, 0.0, 1.0)
        if math.isnan(self.standard_error):
            return -math.inf, math.inf
        half = NormalDist().inv_cdf((1 + confidence) / 2) * self.standard_error
        return self.value - half, self.value + half

    def __str__(self) -> str:
        return (
            f"{self.value:.4f} ± {self.standard_error:.4f} nats ({self.bits:.4f} bits), "
            f"{self.kind}, n = {self.n}"
        )


def estimate_information(
    scores: Tensor,
    target: Tensor,
    *,
    kind: str = "cross-entropy",
    prior: Tensor | None = None,
    train_prior: Tensor | None = None,
    correction: str = "none",
    unbalanced: str = "raise",
    held_out: bool = True,
) -> InformationEstimate:
    r"""Estimate how many nats a model knows about the label, from held-out examples.

    Every kind is a lower bound on I(X; Y), tight for a perfect model; they differ in how the scores
    are read:

    - ``"cross-entropy"``: logits or log-probabilities of a classifier, any head's
      ``log_prob(features)`` among them. :math:`H(Y) - \mathrm{CE}`.
    - ``"pc-softmax"``: logits trained by :class:`lastlayer.losses.PCSoftmaxLoss`.
      :math:`\mathrm{E} \log \mathrm{PC}_y`.
    - ``"log-k"``: as ``"cross-entropy"``, with log K in place of H(Y). Balanced labels only:
      otherwise the value may exceed the truth, and is refused.
    - ``"donsker-varadhan"``, ``"nwj"``: a critic's score of every label.
    - ``"info-nce"``: the same, told apart within the whole batch; at most log N.

    Logits of one training read in the way of another give too low a value. The value is computed
    in float64 and never clipped: a model worse than the prior has negative information.

    Args:
        scores: (N, K) of examples that the model was not trained, stopped or selected on.
        target: (N,) int64 class indices in [0, K).
        kind: one of ``KINDS``.
        prior: (K,) class probabilities of these examples; if None, the frequencies of ``target``.
        train_prior: (K,) class probabilities that a cross-entropy model was trained under, where
            these examples follow another ``prior``: the logits are moved from one to the other.
        correction: bias correction of H(Y) for ``"cross-entropy"`` without ``prior``: ``"none"``,
            ``"miller-madow"`` or ``"jackknife"``.
        unbalanced: for ``"log-k"``, ``"raise"`` or ``"warn"``.
        held_out: False warns: on training data the value tends to H(Y), whatever the truth.

    Returns:
        :class:`InformationEstimate`.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape, a label, a score or an option does not fit, or labels are unbalanced
            for ``"log-k"``.

    Warns:
        InformationWarning: for training data, and for ``"log-k"`` of unbalanced labels.

    Example:
        >>> import torch
        >>> log_prob = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]).log()
        >>> print(estimate_information(log_prob, torch.tensor([0, 1, 0])))
        0.4081 ± 0.2447 nats (0.5888 bits), cross-entropy, n = 3

    Source: Qin, Kim and Gedeon, "Rethinking softmax with cross-entropy", arXiv 1911.10688; derived
    here.
    """
    check_choice("kind", kind, KINDS)
    scores, target = checked_scores(scores, target)
    _check_combination(kind, prior, train_prior, correction)
    notes = list(warn_of_training(held_out))
    if prior is not None:
        prior = prior.detach().cpu().double()
    if train_prior is not None and prior is not None:
        source = train_prior.detach().cpu().double()
        scores = fi.post_compensated_log_prob(scores, source, prior)
        notes.append("Logits were moved from the training prior to that of the examples.")
    if kind == "log-k":
        bound, log_k_notes = _log_k(scores, target, prior, unbalanced)
        notes += log_k_notes
    elif kind == "info-nce":
        bound = fi.info_nce_bound(scores, target)
    elif kind == "cross-entropy":
        bound = fi.cross_entropy_information(scores, target, prior=prior, correction=correction)
    else:
        bound = _CRITICS[kind](scores, target, prior=prior)
    return InformationEstimate(
        value=float(bound.value),
        standard_error=float(bound.standard_error),
        n=len(target),
        kind=kind,
        notes=tuple(notes),
    )


def _check_combination(
    kind: str, prior: Tensor | None, train_prior: Tensor | None, correction: str
) -> None:
    if correction != "none" and (kind != "cross-entropy" or prior is not None):
        raise ValueError(
            "correction must be 'none' unless kind='cross-entropy' estimates H(Y) without a prior; "
            f"got {correction!r}"
        )
    if kind == "info-nce" and prior is not None:
        raise ValueError("prior must be None for kind='info-nce', which takes labels as they come")
    if train_prior is None:
        return
    if prior is None:
        raise ValueError("train_prior needs the prior of these examples as well; got prior=None")
    if kind not in ("cross-entropy", "log-k"):
        raise ValueError(
            "train_prior must be None but for logits trained by the cross entropy: other scores "
            f"hold no prior; got kind={kind!r}"
        )


def _log_k(
    scores: Tensor, target: Tensor, prior: Tensor | None, unbalanced: str
) -> tuple[fi.BoundEstimate, list[str]]:
    compute = partial(fi.log_num_classes_information, scores, target, prior=prior)
    if unbalanced != "warn":
        return compute(unbalanced=unbalanced), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bound = compute(unbalanced="warn")
    for warning in caught:
        warnings.warn(str(warning.message), warning.category, stacklevel=3)
    return bound, [f"{warning.message}." for warning in caught]


TRAINING_NOTE = (
    "Estimated on training examples: the value tends to H(Y) whatever the truth, and bounds nothing"
)


def checked_scores(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, K) scores in float64 and (N,) labels, both detached and on the CPU.

    ``-inf`` passes (a class with probability zero); NaN and ``+inf`` do not.
    """
    check_floating("scores", scores)
    if scores.dim() != 2 or scores.numel() == 0:
        raise ValueError(
            f"scores must have shape (N, K) with N >= 1 rows and K >= 1 classes; "
            f"got {tuple(scores.shape)}"
        )
    if target.shape != scores.shape[:1]:
        raise ValueError(
            f"target must have shape ({len(scores)},), one label per row of scores; "
            f"got {tuple(target.shape)}"
        )
    # The CPU, because float64 is missing on some accelerators.
    scores, target = scores.detach().cpu().double(), target.detach().cpu()
    check_class_indices(target, scores.shape[1])
    bad = (scores.isnan() | (scores == torch.inf)).any(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"scores must be finite or -inf; {int(bad.sum())} rows hold NaN or +inf, "
            f"the first is row {int(bad.nonzero()[0])}"
        )
    return scores, target


def warn_of_training(held_out: bool, *, stacklevel: int = 3) -> tuple[str, ...]:
    """Warn if the examples are not held out, and return the note to go with the estimate."""
    if held_out:
        return ()
    warnings.warn(f"{TRAINING_NOTE}.", fi.InformationWarning, stacklevel=stacklevel)
    return (f"{TRAINING_NOTE}.",)
