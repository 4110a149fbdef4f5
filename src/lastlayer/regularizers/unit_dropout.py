"""What the regularizers that drop whole units have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.functional.feature_noise import unit_dropout, unit_shape
from lastlayer.regularizers.base import Regularizer


class UnitDropout(Regularizer):
    """Base of dropout by element, channel or example: ``unit`` says which."""

    channel_dim: int = 1

    def check_dims(self, dims: int) -> None:
        """Raise ``ValueError`` unless features of so many dimensions are taken."""
        unit_shape(torch.empty((0,) * dims), self.unit)

    def _regularize(self, features: Tensor) -> Tensor:
        return unit_dropout(
            features,
            self.rate,
            unit=self.unit,
            channel_dim=self.channel_dim,
            generator=self.generator,
        )
