"""Which exemplars a memory keeps, of those it holds and a task's new examples.

Random choices do not depend on batches: every number is fixed by its position in a stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lastlayer.functional.incremental import herding_order

#: How exemplars are chosen.
SELECTIONS = ("herding", "random", "reservoir")

#: Streams of random numbers, so that no two uses of the seed share any.
WHOLE_RESERVOIR, CLASS_RESERVOIR, CLASS_ORDER = range(3)


class Candidates(NamedTuple):
    """What a memory chooses from; indices are of the exemplars followed by the new examples.

    Attributes:
        held: (m,) int64 labels of the exemplars, of each class in the order of its selection.
        arrival: (m,) int64, as which example of its class each exemplar came.
        new: (N,) int64 labels of the new examples.
        seen: how many examples of each class came before.
        features: (N, D) features of the new examples, or None.
        held_features: (m, D) features of the exemplars, or None.
    """

    held: Tensor
    arrival: Tensor
    new: Tensor
    seen: Mapping[int, int]
    features: Tensor | None = None
    held_features: Tensor | None = None

    def num_seen(self) -> dict[int, int]:
        """Return how many examples of each class came, with the new ones."""
        added = {label: len(index) for label, index in positions_by_class(self.new).items()}
        labels = self.seen.keys() | added.keys()
        return {label: self.seen.get(label, 0) + added.get(label, 0) for label in sorted(labels)}

    def new_arrival(self) -> Tensor:
        """Return (N,) int64, as which example of its class each new one comes."""
        arrival = torch.empty_like(self.new)
        for label, index in positions_by_class(self.new).items():
            arrival[index] = self.seen.get(label, 0) + torch.arange(len(index))
        return arrival

    def choose_of_all(self, capacity: int, seed: int) -> Tensor:
        """Return the indices that one reservoir over all examples holds, in its places' order."""
        before = sum(self.seen.values())
        uniform = stream_uniforms(seed, (WHOLE_RESERVOIR,), before, len(self.new))
        return reservoir_positions(capacity, before, uniform)

    def choose_by_class(self, quota: int | None, selection: str, seed: int) -> Tensor:
        """Return the indices of at most ``quota`` examples of each class; all if it is None."""
        held = positions_by_class(self.held)
        new = positions_by_class(self.new, offset=len(self.held))
        none = self.held.new_empty(0)
        parts = []
        for label in sorted(held.keys() | new.keys()):
            old, came = held.get(label, none), new.get(label, none)
            if quota is None:
                parts.append(torch.cat((old, came)))
            elif not quota or not len(came):
                parts.append(old[:quota])
            else:
                choose = {
                    "herding": self._herding,
                    "random": self._random,
                    "reservoir": self._reservoir,
                }[selection]
                parts.append(torch.cat((old, came))[choose(label, old, came, quota, seed)])
        return torch.cat(parts)

    def _herding(self, label: int, old: Tensor, came: Tensor, quota: int, seed: int) -> Tensor:
        needed = "which herding needs"
        rows = _checked("features", self.features, len(self.new), needed)[came - len(self.held)]
        if len(old):
            needed = f"which herding needs as class {label} is seen again"
            kept = _checked("memory_features", self.held_features, len(self.held), needed)[old]
            if kept.shape[1] != rows.shape[1]:
                raise ValueError(
                    f"memory_features must have shape (m, {rows.shape[1]}) as features have; "
                    f"got (m, {kept.shape[1]})"
                )
            rows = torch.cat((kept.to(rows), rows))
        return herding_order(rows, quota).cpu()

    def _random(self, label: int, old: Tensor, came: Tensor, quota: int, seed: int) -> Tensor:
        before = self.seen.get(label, 0)
        numbers = stream_uniforms(seed, (CLASS_ORDER, label), 0, before + len(came))
        # The smallest of all numbers so far are among the smallest before and the new ones.
        numbers = torch.cat((numbers[self.arrival[old]], numbers[before:]))
        return numbers.argsort(stable=True)[:quota]

    def _reservoir(self, label: int, old: Tensor, came: Tensor, quota: int, seed: int) -> Tensor:
        before = self.seen.get(label, 0)
        uniform = stream_uniforms(seed, (CLASS_RESERVOIR, label), before, len(came))
        return reservoir_positions(quota, before, uniform)


def positions_by_class(target: Tensor, offset: int = 0) -> dict[int, Tensor]:
    """Return the positions of every label that occurs, in order, counted from ``offset``.

    Example:
        >>> positions_by_class(torch.tensor([4, 1, 4]), offset=10)
        {1: tensor([11]), 4: tensor([10, 12])}
    """
    order = target.argsort(stable=True)
    labels, sizes = torch.unique_consecutive(target[order], return_counts=True)
    groups = torch.split(order + offset, sizes.tolist())
    return dict(zip(labels.tolist(), groups, strict=True))


def _checked(name: str, features: Tensor | None, size: int, needed: str) -> Tensor:
    if features is None or features.dim() != 2 or len(features) != size:
        got = None if features is None else tuple(features.shape)
        raise ValueError(f"{name} must have shape ({size}, D), {needed}; got {got}")
    return features


def stream_uniforms(seed: int, stream: tuple[int, ...], start: int, count: int) -> Tensor:
    """Return ``count`` uniform numbers of a stream from position ``start`` on, (count,) float64.

    Each is fixed by its position alone, so that it does not matter in how many batches examples
    arrive; streams of other names are independent.

    Example:
        >>> whole = stream_uniforms(0, (1,), start=0, count=5)
        >>> bool((whole[2:] == stream_uniforms(0, (1,), start=2, count=3)).all())
        True
    """
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=stream))
    bits.advance(start)  # one step for each number
    return torch.from_numpy(np.random.Generator(bits).random(count))


def reservoir_positions(capacity: int, num_seen: int, uniform: Tensor) -> Tensor:
    r"""Continue a reservoir: which of the kept and the new examples hold its places.

    The example at position t (from 0) of the stream takes place t while there are free ones; later
    it draws a place :math:`\lfloor (t + 1) u \rfloor`, of (n,) uniform numbers u, and replaces what
    is there if that is a place of the reservoir. After n examples each is kept with probability
    capacity / n. Indices are of the kept examples followed by the new ones, in the places' order.

    Example:
        >>> reservoir_positions(2, num_seen=2, uniform=torch.tensor([0.4, 0.9]))
        tensor([0, 2])

    Source: Vitter, "Random Sampling with a Reservoir", ACM Transactions on Mathematical Software
    1985, algorithm R.
    """
    kept = min(num_seen, capacity)
    position = np.arange(num_seen, num_seen + len(uniform))
    drawn = np.floor(uniform.numpy() * (position + 1)).astype(np.int64)
    place = np.where(position < capacity, position, drawn)
    holder = np.arange(min(capacity, num_seen + len(uniform)))
    enters = np.nonzero(place < capacity)[0]
    # Of several that enter one place the last stays, as NumPy assigns in order.
    holder[place[enters]] = kept + enters
    return torch.from_numpy(holder)
