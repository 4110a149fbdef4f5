"""What a stochastic head knows: one random mask at a time, and all of them together."""

from __future__ import annotations

import inspect
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from lastlayer._checks import check_count
from lastlayer.functional import information as fi
from lastlayer.heads import Head
from lastlayer.information.estimate import InformationEstimate, checked_scores, warn_of_training

# Log-probabilities held at once: bounds the memory, not the result.
_BLOCK_ELEMENTS = 2**22


class StochasticInformation(NamedTuple):
    """The bracket of a stochastic head.

    Attributes:
        lower: H(Y) less the mean cross entropy of single masks: at most I(Z; Y), the information
            that the logits Z under one random mask carry.
        upper: H(Y) less the cross entropy of the average over masks: never below ``lower``, at
            most I(X; Y).
        num_samples: number of masks.
    """

    lower: InformationEstimate
    upper: InformationEstimate
    num_samples: int


class _MonteCarlo(Protocol):
    def __call__(
        self,
        features: Tensor,
        *,
        prediction: str,
        num_samples: int,
        generator: torch.Generator | None,
    ) -> Tensor: ...


@torch.no_grad()
def stochastic_information(
    head: Head,
    features: Tensor,
    target: Tensor,
    num_samples: int = 100,
    generator: torch.Generator | None = None,
    *,
    prior: Tensor | None = None,
    held_out: bool = True,
) -> StochasticInformation:
    r"""Bracket the information of a head that draws random masks when it predicts.

    .. math:: H(Y) + \mathrm{E}\,\mathrm{E}_z \log q(y \mid z) \;\le\;
        H(Y) + \mathrm{E} \log \mathrm{E}_z\, q(y \mid z) \;\le\; I(X; Y)

    Masks are those of the head's Monte Carlo prediction, in which the true class may drop as any
    other. A mask that drops it leaves it a probability near DropMax's eps, so that a head that
    predicts well on average may have a very negative lower end: single draws are then poor
    classifiers. The upper end rises with ``num_samples`` toward the head's own prediction.

    Args:
        head: a DropMax or class-dropout head, or any whose ``log_prob`` takes
            ``prediction="monte-carlo"``, ``num_samples`` and ``generator``.
        features: (N, D) of held-out examples.
        target: (N,) int64 class indices.
        num_samples: number of masks S >= 1 per example.
        generator: source of the masks, on the device of ``features``.
        prior: (K,) class probabilities; the frequencies of ``target`` if None.
        held_out: False warns, see :func:`estimate_information`.

    Returns:
        :class:`StochasticInformation`.

    Raises:
        TypeError: if the head has no Monte Carlo prediction, or a dtype does not fit.
        ValueError: if a shape, a label or a number does not fit.

    Warns:
        InformationWarning: for training data.

    Example:
        >>> from lastlayer.heads import DropMax
        >>> head = DropMax(in_features=4, num_classes=3)
        >>> features, target = torch.randn(8, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
        >>> bracket = stochastic_information(head, features, target, num_samples=5)
        >>> bracket.lower.value <= bracket.upper.value
        True

    Source: Qin and Kim, "Softmax is not an artificial trick", arXiv 1910.02629 (the setting);
    derived here.
    """
    check_count("num_samples", num_samples)
    if not predicts_with_masks(head):
        raise TypeError(
            "head must draw masks when it predicts: its log_prob must take prediction, num_samples "
            f"and generator, as DropMax's does; got {type(head).__name__}"
        )
    if features.dim() != 2:
        raise ValueError(f"features must have shape (N, D); got {tuple(features.shape)}")
    notes = warn_of_training(held_out, stacklevel=4)  # the decorator stands in between
    log_q = _target_log_prob(
        cast(_MonteCarlo, head.log_prob), features, target, num_samples, generator
    )
    target = target.detach().cpu()
    counts = fi.label_counts(target, head.num_classes).double()
    shares = counts / counts.sum() if prior is None else prior.detach().cpu().double()
    bracket = fi.bracket_of_target(log_q, target, shares)
    label_entropy = fi.entropy(shares)
    log_prior = shares.log()[target]

    def summed_up(pointwise: Tensor, kind: str) -> InformationEstimate:
        # As for a single network: a known H(Y) adds no error.
        log_prob = pointwise + log_prior
        influence = pointwise if prior is None else log_prob
        return InformationEstimate(
            value=float(label_entropy + log_prob.mean()),
            standard_error=float(fi.standard_error(influence)),
            n=len(target),
            kind=kind,
            notes=notes,
        )

    return StochasticInformation(
        summed_up(bracket.lower, "single masks"),
        summed_up(bracket.upper, "average over masks"),
        num_samples,
    )


def predicts_with_masks(head: Head) -> bool:
    """Return whether a head draws masks when it predicts, so that it has a bracket."""
    wanted = {"prediction", "num_samples", "generator"}
    return wanted <= set(inspect.signature(head.log_prob).parameters)


def _target_log_prob(
    draw: _MonteCarlo,
    features: Tensor,
    target: Tensor,
    num_samples: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Return the (S, N) log-probabilities of the labels, in float64, one mask each."""
    drawn: list[Tensor] = []
    block, done = 1, 0
    while done < num_samples:
        count = min(block, num_samples - done)
        repeated = features.expand(count, *features.shape)
        log_prob = draw(repeated, prediction="monte-carlo", num_samples=1, generator=generator)
        rows, labels = checked_scores(log_prob.flatten(0, 1), target.repeat(count))
        drawn.append(rows.gather(-1, labels.unsqueeze(-1)).reshape(count, -1))
        done += count
        block = max(1, _BLOCK_ELEMENTS // log_prob[0].numel())
    return torch.cat(drawn)
