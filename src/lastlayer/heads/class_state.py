"""What a head is told of classes that are added to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class NewClasses(NamedTuple):
    """Classes added at the end of a head's, or new counts of those it has.

    Attributes:
        number: how many were added, m, at least 0.
        class_counts: (K + m,) counts of all classes, for heads that keep some.
        weight: (m,) class weights of the new classes; None for 1.
    """

    number: int
    class_counts: Tensor | Sequence[float] | None = None
    weight: Tensor | None = None

    def appended(self, weight: Tensor) -> Tensor:
        """Return the (K,) class weights of a head with those of the new classes behind."""
        new = weight.new_ones(self.number) if self.weight is None else self.weight.to(weight)
        return torch.cat([weight, new])
