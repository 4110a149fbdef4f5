"""The H-score of features beside what chance would give."""

from __future__ import annotations

import warnings as python_warnings
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from lastlayer.functional import dependence as dp
from lastlayer.functional.dependence.class_spread import class_spread


@dataclass(frozen=True)
class HScore:
    r"""The H-score of features, and what is needed to read it.

    Attributes:
        value: :math:`H_1 = \operatorname{tr}(\operatorname{Cov}(f)^{-1}
            \operatorname{Cov}(\operatorname{E}[f \mid Y]))`, without the half of some texts.
        null: its expectation for features that know nothing of the label.
        shrunk: the same with Ledoit and Wolf's covariance.
        rank: number of directions in which the features vary.
        num_features: D.
        num_classes: number of classes with examples.
        num_examples: N.
        warnings: reasons for doubt, in words.
    """

    value: float
    null: float
    shrunk: float
    rank: int
    num_features: int
    num_classes: int
    num_examples: int
    warnings: tuple[str, ...]

    @property
    def above_null(self) -> float:
        """What the features score above features that know nothing; near 0 or below: nothing."""
        return self.value - self.null

    @property
    def maximum(self) -> int:
        """The largest value possible, min(rank, K - 1)."""
        return min(self.rank, self.num_classes - 1)

    def as_dict(self) -> dict[str, Any]:
        """Every number by name, for JSON."""
        found = asdict(self) | {"above_null": self.above_null, "maximum": self.maximum}
        return found | {"warnings": list(self.warnings)}


def h_score(features: Tensor, target: Tensor, *, rtol: float | None = None) -> HScore:
    """Score features for a label, with what a random score would be.

    Args:
        features: (N, D), finite, N >= 2; computed in float64.
        target: (N,) integer labels; they need not be contiguous.
        rtol: relative singular value at which a direction counts as constant; None for max(N, D)
            times the float64 epsilon.

    Returns:
        The :class:`HScore`.

    Raises:
        TypeError: if ``features`` are not floating-point or ``target`` not integers.
        ValueError: if a shape does not fit, N < 2, or a feature is not finite.

    Warns:
        UserWarning: if the features are many for the examples, or there is one class only.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> target = torch.arange(600) % 3
        >>> features = torch.eye(3)[target] + torch.randn(600, 3, generator=generator)
        >>> score = h_score(features, target)
        >>> round(score.value, 2), round(score.null, 2), score.maximum
        (0.49, 0.01, 2)

    Source: Bao et al., ICIP 2019; Xu, Huang, Zheng, Wornell, Entropy 24(1), 2022.
    """
    score = score_of_features(features, target, rtol=rtol)
    for warning in score.warnings:
        python_warnings.warn(warning, UserWarning, stacklevel=2)
    return score


def score_of_features(features: Tensor, target: Tensor, *, rtol: float | None = None) -> HScore:
    """Score features as :func:`h_score` does, without a warning."""
    spread = class_spread(features, target, rtol=rtol)
    sizes = (spread.num_features, spread.num_classes, spread.num_examples)
    return described(spread.between.sum(), dp.shrunk_h_score(features, target), spread.rank, *sizes)


def described(
    value: Tensor, shrunk: Tensor, rank: int, num_features: int, num_classes: int, num_examples: int
) -> HScore:
    """Put an H-score and its shrunk value into words."""
    sizes = (rank, num_classes, num_examples)
    return HScore(
        value=float(value),
        null=dp.h_score_null(*sizes),
        shrunk=float(shrunk),
        rank=rank,
        num_features=num_features,
        num_classes=num_classes,
        num_examples=num_examples,
        warnings=dp.h_score_warnings(*sizes),
    )
