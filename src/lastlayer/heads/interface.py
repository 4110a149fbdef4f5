"""What a head takes and returns: precision, draws, targets, outputs, new classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
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


def flat_target(
    target: Tensor, features: Tensor, num_classes: int, *, head: str, soft_refusal: str | None
) -> Tensor:
    """Check a target against (*, D) features; return (N,) indices or (N, K) probabilities.

    ``head`` is its name, for the message; ``soft_refusal`` says why it takes no probabilities, if
    so.
    """
    leading = tuple(features.shape[:-1])
    soft = target.is_floating_point()
    if soft and soft_refusal is not None:
        raise ValueError(
            f"{head} takes int64 class indices of shape {leading}; got a "
            f"target of dtype {target.dtype}: {soft_refusal}"
        )
    expected = (*leading, num_classes) if soft else leading
    if tuple(target.shape) != expected:
        raise ValueError(
            f"target must have shape {expected} to match features {tuple(features.shape)}; "
            f"got {tuple(target.shape)}"
        )
    return target.reshape(math.prod(leading), *expected[len(leading) :])


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


def full_precision(features: Tensor) -> AbstractContextManager[object]:
    """Return a context in which autocast, if it is on, is off for the device of ``features``."""
    device_type = features.device.type
    # Not torch.amp.is_autocast_available(), which torch 2.10 cannot compile.
    if device_type != "meta" and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type=device_type, enabled=False)
    return nullcontext()
