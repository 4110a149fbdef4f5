"""Multiplicative Gaussian noise in place of dropout's Bernoulli noise."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.functional.feature_noise import gaussian_dropout
from lastlayer.regularizers.base import Regularizer


class GaussianDropout(Regularizer):
    r"""Multiply every element by :math:`N(1, p / (1 - p))`.

    The mathematics is :func:`lastlayer.functional.feature_noise.gaussian_dropout`.

    Args:
        p: rate of the dropout with the same mean and variance, in [0, 1).
        generator: as :class:`lastlayer.regularizers.Regularizer` has it.

    Raises:
        ValueError: if ``p`` is out of range.

    Example:
        >>> layer = GaussianDropout(0.2, generator=torch.Generator().manual_seed(0))
        >>> layer(torch.ones(3))
        tensor([ 1.7705,  0.8533, -0.0894])

    Source: Srivastava et al., "Dropout", JMLR 15, 2014, section 10.
    """

    def __init__(self, p: float = 0.5, *, generator: torch.Generator | None = None) -> None:
        super().__init__(p, generator=generator)

    def _check_rate(self, value: float) -> None:
        if not 0.0 <= value < 1.0:
            raise ValueError(f"p must lie in [0, 1), for the variance p / (1 - p); got {value!r}")

    def _regularize(self, features: Tensor) -> Tensor:
        return gaussian_dropout(features, self.rate, generator=self.generator)
