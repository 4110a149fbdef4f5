"""What the regularizers that learn their rate have in common."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lastlayer._checks import check_count, check_inside
from lastlayer.functional.feature_noise import check_num_channels, unit_shape
from lastlayer.regularizers.base import Regularizer


class AdaptiveRegularizer(Regularizer):
    """Base of the regularizers whose rate is a parameter and costs a penalty.

    The penalty is a divergence of all training examples together, in nats. Divided by their number
    it belongs to a loss that is the mean of -log p(y | x) over examples. A loss in other units
    takes it in the same units: a mean squared error is 2 / tau times the negative log-likelihood of
    Gaussian noise of precision tau.

    ``p`` reads the rate that has been learned; it cannot be set, by a schedule for instance. A
    ``state_dict`` holds the parameters and the initial rate.

    Args:
        num_features: number of channels C.
        num_examples: number of training examples N.
        p: initial rate, in (0, 1).
        unit: what one number is drawn for: ``"element"``, ``"channel"`` or ``"example"``.
        channel_dim: 1 for features ``(N, C, ...)``, -1 for channels last, ``(N, ..., C)``.
        generator: as :class:`lastlayer.regularizers.Regularizer` has it.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        num_features: int,
        num_examples: int,
        *,
        p: float,
        unit: str,
        channel_dim: int,
        generator: torch.Generator | None,
    ) -> None:
        check_count("num_features", num_features)
        check_count("num_examples", num_examples)
        unit_shape(torch.empty(0, 0), unit, channel_dim=channel_dim)
        super().__init__(p, generator=generator)
        self.num_features = num_features
        self.num_examples = num_examples
        self.unit = unit
        self.channel_dim = channel_dim

    @property
    def p(self) -> float:
        """The rate that has been learned, the mean over channels; on a device, this waits."""
        with torch.no_grad():
            return float(self.learned_rate().mean())

    @p.setter
    def p(self, value: float) -> None:
        raise AttributeError(
            f"{type(self).__name__} learns its rate: p cannot be set to {value!r}; give the "
            "initial rate at construction, and leave this regularizer out of a schedule"
        )

    @property
    def initial_p(self) -> float:
        """The rate at construction."""
        return self._p

    @property
    def initial_logit(self) -> float:
        """The logit of the rate at construction."""
        return math.log(self._p) - math.log1p(-self._p)

    def learned_rate(self) -> Tensor:
        """Return the rate or rates as they are now, ``()`` or ``(C,)``, differentiable."""
        raise NotImplementedError

    def divergence(self) -> Tensor:
        """Return the divergence that the rates cost, ``()``, in nats for all examples together."""
        raise NotImplementedError

    def penalty(self) -> Tensor:
        """Return the divergence per training example, to be added to the mean loss.

        Returns:
            Nats per example, ``()``, differentiable; in evaluation too.
        """
        return self.divergence() / self.num_examples

    def forward(self, features: Tensor) -> Tensor:
        """Return the features with noise of the learned rate.

        Args:
            features: ``(N, C, ...)``, or ``(N, ..., C)`` with ``channel_dim=-1``; floating point.

        Returns:
            As ``features``; in evaluation ``features`` itself.

        Raises:
            TypeError: if the features are not floating point.
            ValueError: if they do not have C channels.
        """
        check_num_channels(features.shape, self.num_features, self.channel_dim)
        return super().forward(features)

    def check_dims(self, dims: int) -> None:
        """Raise ``ValueError`` unless features of so many dimensions are taken."""
        unit_shape(torch.empty((0,) * dims), "channel")

    def _check_rate(self, value: float) -> None:
        check_inside("p", value, 0.0, 1.0)

    def extra_repr(self) -> str:
        """Name the sizes and the initial rate."""
        return (
            f"num_features={self.num_features}, num_examples={self.num_examples}, "
            f"initial p={self.initial_p:g}, unit={self.unit!r}"
            f"{', channel_dim=-1' if self.channel_dim == -1 else ''}"
        )
