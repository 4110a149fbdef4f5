"""Batches of tensors held in memory, in an order that seed and epoch alone decide."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lastlayer._inputs import Inputs, batches, take
from lastlayer._random import derive_seed
from lastlayer.longtail import ClassDraw, sampling_prior
from lastlayer.training.sections import TrainingConfig

#: From an epoch's number and its generator to the (N,) indices of its examples.
Order = Callable[[int, torch.Generator], Tensor]


class Batches:
    """Batches of inputs and (N,) labels in the order of the examples, the last one smaller."""

    def __init__(self, inputs: Inputs, target: Tensor, batch_size: int) -> None:
        self.inputs, self.target, self.batch_size = inputs, target, batch_size

    def __len__(self) -> int:
        return -(-len(self.target) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        size = self.batch_size
        return zip(batches(self.inputs, size), torch.split(self.target, size), strict=True)


class ShuffledBatches:
    """Batches of one epoch after another, each in its own order.

    The last, smaller batch of an epoch is left out, unless it is the only one. With several
    processes each takes its share of every batch.

    Args:
        inputs: examples, N rows.
        target: (N,) labels.
        batch_size: examples per step over all processes.
        seed: seed of the order.
        epoch: tells the epoch that is about to begin.
        rank: number of this process.
        world_size: number of processes.
        order: draws an epoch's examples; None for every example once, shuffled.
    """

    def __init__(
        self,
        inputs: Inputs,
        target: Tensor,
        *,
        batch_size: int,
        seed: int,
        epoch: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
        order: Order | None = None,
    ) -> None:
        self.inputs, self.target = inputs, target
        self.batch_size = min(batch_size, len(target))
        if self.batch_size < world_size:
            raise ValueError(
                f"batch_size must be at least the number of processes, {world_size}; "
                f"got {self.batch_size}"
            )
        self.seed, self.epoch, self.rank, self.world_size = seed, epoch, rank, world_size
        self.order = order

    def __len__(self) -> int:
        return len(self.target) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        epoch = self.epoch()
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        if self.order is None:
            order = torch.randperm(len(self.target), generator=generator)
        else:
            order = self.order(epoch, generator)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            index = order[start : start + self.batch_size][self.rank :: self.world_size]
            yield take(self.inputs, index), self.target[index]


def epoch_order(training: TrainingConfig, target: Tensor) -> Order | None:
    """Return what draws an epoch's examples of (N,) labels, or None for every example once.

    A draw is a function of the seed and the epoch, so that a resumed run draws what it would have.
    """
    if training.sampler == "instance":
        return None
    steps_per_epoch = len(target) // min(training.batch_size, len(target))
    last_epoch = max(1, math.ceil(training.steps / steps_per_epoch) - 1)
    draw = ClassDraw(target)

    def order(epoch: int, generator: torch.Generator) -> Tensor:
        progress = min(1.0, epoch / last_epoch)
        prior = sampling_prior(draw.counts, training.sampler, progress)
        return draw(len(target), prior, generator)

    return order
