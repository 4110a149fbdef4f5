"""What the regularisers that drop whole units have in common."""

from __future__ import annotations

from torch import Tensor

from lastlayer.functional.feature_noise import unit_dropout
from lastlayer.regularizers.base import Regularizer


class UnitDropout(Regularizer):
    """Base of dropout by element, channel or example: ``unit`` says which."""

    unit: str

    def _regularize(self, features: Tensor) -> Tensor:
        return unit_dropout(features, self.rate, unit=self.unit, generator=self.generator)
