"""What a task with a known answer is: samples, and the mutual information they hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor


class Sample(NamedTuple):
    """Independent pairs.

    Attributes:
        x: observations, (n, d) float32, or (n,) int64 symbols.
        y: what they tell something about: (n,) int64 labels, or (n, 1) float32 values.
    """

    x: Tensor
    y: Tensor


class InformationTask(ABC):
    """A joint distribution that can be sampled and whose mutual information is known."""

    @abstractmethod
    def sample(self, n: int, seed: int) -> Sample:
        """Draw ``n`` pairs; the same seed gives the same pairs."""

    @property
    @abstractmethod
    def mutual_information(self) -> float:
        """I(X; Y) in nats, exact or by quadrature to 1e-9."""


def seeded(seed: int) -> torch.Generator:
    """Return a generator of the CPU's numbers."""
    return torch.Generator().manual_seed(seed)


def draw_labels(prior: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw (n,) int64 labels with the (K,) probabilities ``prior``."""
    return torch.multinomial(prior, n, replacement=True, generator=generator)
