"""One seed fixes everything: every stream of random numbers is a function of (seed, purpose, step).

Nothing carries a generator's state from step to step, so a run that is killed and resumed draws
what it would have drawn.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from lastlayer._random import seed_all


def derive_seed(seed: int, *purpose: int | str) -> int:
    """Return a 63-bit seed for one purpose, well mixed even for neighbouring seeds and steps."""
    words = [zlib.crc32(p.encode()) if isinstance(p, str) else p for p in purpose]
    low, high = np.random.SeedSequence([seed, *words]).generate_state(2, dtype=np.uint32)
    return int(low) | (int(high & 0x7FFFFFFF) << 32)


class SeedEveryStep(Callback):
    """Seed torch before every step from the run's seed, the step and the process's rank.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the step's dropout and masks."""
        seed = derive_seed(self.seed, "step", trainer.global_step, trainer.global_rank)
        seed_all(seed)
