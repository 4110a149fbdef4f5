"""Standout: units with a low pre-activation are dropped more often."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.functional.feature_noise import standout, standout_keep_probability
from lastlayer.regularizers.base import Regularizer


class Standout(Regularizer):
    r"""Keep each unit with a probability that rises with its own pre-activation.

    .. math:: y = h \cdot \mathrm{Bernoulli}(\pi), \qquad
        \pi = \sigma(\alpha h + \operatorname{logit}(1 - p))

    It stands between a layer and its nonlinearity: its features are the layer's output
    :math:`h = W x`, and so the layer's weights are shared by reading, not by reference. For ReLU,
    and any nonlinearity that maps 0 to 0, masking before and after it is the same. Nothing is
    rescaled; in evaluation :math:`h` is multiplied by :math:`\pi`, its expectation, so that this
    regularizer is not the identity there unless p = 0.

    Args:
        p: probability of a unit at :math:`h = 0` to be dropped, in [0, 1]: the paper's shift is
            :math:`\beta = \operatorname{logit}(1 - p)`.
        alpha: scale :math:`\alpha`; 0 gives dropout without its rescaling.
        generator: as :class:`lastlayer.regularizers.Regularizer` has it.

    Raises:
        ValueError: if ``p`` is no probability.

    Example:
        >>> layer = Standout(0.5).eval()
        >>> layer(torch.tensor([-2.0, 0.0, 2.0]))
        tensor([-0.2384,  0.0000,  1.7616])

    Source: Ba, Frey, "Adaptive dropout for training deep neural networks", NIPS 2013.
    """

    def __init__(
        self, p: float = 0.5, *, alpha: float = 1.0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(p, generator=generator)
        self.alpha = float(alpha)

    def keep_probability(self, features: Tensor) -> Tensor:
        """Return the probability of every unit to be kept.

        Args:
            features: ``(N, ...)`` pre-activations.

        Returns:
            ``(N, ...)`` probabilities, at least float32.
        """
        beta = -torch.logit(self._rate)
        return standout_keep_probability(features, alpha=self.alpha, beta=beta)

    def _regularize(self, features: Tensor) -> Tensor:
        keep = self.keep_probability(features.detach())
        return standout(features, keep, generator=self.generator)

    def _evaluate(self, features: Tensor) -> Tensor:
        return (features * self.keep_probability(features)).to(features.dtype)

    def extra_repr(self) -> str:
        """Name the rate and the scale."""
        return f"{super().extra_repr()}, alpha={self.alpha:g}"
