"""What a head takes for its draws and what it returns while training."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Draw(NamedTuple):
    """Where a stochastic head's randomness comes from; both None is the default generator."""

    generator: torch.Generator | None = None
    noise: Tensor | None = None


class HeadOutput(NamedTuple):
    """What a head returns while training.

    Attributes:
        loss: the sum of ``terms``; a scalar, or (*) for ``reduction="none"``.
        terms: the loss's parts by name, weights included, reduced like the loss; ``"nll"`` always.
    """

    loss: Tensor
    terms: dict[str, Tensor]


def summed(terms: dict[str, Tensor]) -> HeadOutput:
    """Return the output whose loss is the sum of the terms."""
    first, *others = terms.values()
    for term in others:
        first = first + term
    return HeadOutput(first, terms)
