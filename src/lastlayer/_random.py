"""Seeds, and torch's default generators: seeded for a while, and given back as they were.

In training one seed fixes everything: every stream of random numbers is a function of (seed,
purpose, step). Nothing carries a generator's state from step to step, so a run that is killed and
resumed draws what it would have drawn.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


@contextmanager
def kept_generators() -> Iterator[None]:
    """Give torch's default generators back as they were, whatever is seeded and drawn inside."""
    kept = _states()
    try:
        yield
    finally:
        for give_back, state in kept:
            give_back(state)
        if len(kept) == 1:  # no accelerator was in use: none has drawn since torch was last seeded
            _seed_accelerators(torch.initial_seed())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's default generators as after ``torch.manual_seed``; give them back after."""
    with kept_generators():
        seed_all(seed)
        yield


def seed_all(seed: int) -> None:
    """Seed torch's default generators, as ``torch.manual_seed`` does.

    Where there is no accelerator, the processor's alone: for the others torch would keep a request
    of every step, with a stack trace each, for the day that one appears.
    """
    torch.default_generator.manual_seed(seed)
    _seed_accelerators(seed)


def _states() -> list[tuple[Callable[[Tensor], Any], Tensor]]:
    """Return the states of the generators in use; CUDA's are there from its first use on."""
    generators = [torch.default_generator]
    if torch.backends.mps.is_available():
        return [
            (torch.set_rng_state, torch.get_rng_state()),
            (torch.mps.set_rng_state, torch.mps.get_rng_state()),
        ]
    if torch.accelerator.is_available():
        generators += getattr(torch.get_device_module(), "default_generators", ())
    return [(generator.set_state, generator.get_state()) for generator in generators]


def _seed_accelerators(seed: int) -> None:
    if torch.accelerator.is_available():
        module = torch.get_device_module()
        getattr(module, "manual_seed_all", module.manual_seed)(seed)


def derive_seed(seed: int, *purpose: int | str) -> int:
    """Return a 63-bit seed for one purpose, well mixed even for neighboring seeds and steps."""
    words = [zlib.crc32(p.encode()) if isinstance(p, str) else p for p in purpose]
    low, high = np.random.SeedSequence([seed, *words]).generate_state(2, dtype=np.uint32)
    return int(low) | (int(high & 0x7FFFFFFF) << 32)
