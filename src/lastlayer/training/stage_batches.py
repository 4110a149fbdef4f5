"""Which training examples make the batches of the second stage, by one of several samplers.

Every draw is a function of seed and step, so that a resumed run draws what it would have drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._random import derive_seed
from lastlayer.longtail import SAMPLERS, ClassDraw, MetaSampler, sampling_prior


class StageDraws:
    """Which training examples make the batch of a step.

    ``kind`` is a sampler of :mod:`lastlayer.longtail.samplers`, or ``"meta"`` or
    ``"meta-reweighter"``, which need ``meta``. Of (N,) labels; ``batch_size`` is at most N where
    examples come in epochs.
    """

    def __init__(
        self,
        target: Tensor,
        num_classes: int,
        *,
        kind: str,
        batch_size: int,
        steps: int,
        seed: int,
        meta: MetaSampler | None = None,
    ) -> None:
        self.target, self.steps, self.seed = target, steps, seed
        self.kind, self.meta = kind, meta
        self.draw = ClassDraw(target, num_classes)
        in_epochs = kind in ("instance", "meta-reweighter")
        self.batch_size = min(batch_size, len(target)) if in_epochs else batch_size
        self._order: tuple[int, Tensor] | None = None

    def batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Return (B,) positions, and the weights through which a meta step reaches the rates."""
        if self.kind in SAMPLERS:
            return self._by_class(self.kind, step, self.batch_size, "batch"), None
        if self.kind == "meta":
            if self.meta is None:
                raise ValueError('the sampler "meta" needs its MetaSampler; got None')
            generator = self._generator("batch", step)
            classes, weights = self.meta.draw(self.batch_size, generator=generator)
            return self.draw.of_classes(classes, generator), weights
        epoch, place = divmod(step, len(self.target) // self.batch_size)
        if self._order is None or self._order[0] != epoch:
            generator = self._generator("order", epoch)
            device = self.target.device
            order = torch.randperm(len(self.target), generator=generator, device=device)
            self._order = epoch, order
        rows = self._order[1][place * self.batch_size :][: self.batch_size]
        return rows, None if self.meta is None else self.meta.weights(self.target[rows])

    def meta_batch(self, step: int, size: int) -> Tensor:
        """Return (M,) positions of examples drawn with replacement, every class equally likely."""
        return self._by_class("class-balanced", step, size, "meta batch")

    def _by_class(self, sampler: str, step: int, size: int, purpose: str) -> Tensor:
        progress = min(1.0, step / max(1, self.steps - 1))
        prior = sampling_prior(self.draw.counts, sampler, progress)
        return self.draw(size, prior, self._generator(purpose, step))

    def _generator(self, purpose: str, step: int) -> torch.Generator:
        seed = derive_seed(self.seed, "classifier stage", purpose, step)
        return torch.Generator(device=self.target.device).manual_seed(seed)
