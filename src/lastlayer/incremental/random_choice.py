"""Random choices that do not depend on batches: numbers by position, and a reservoir's places."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def stream_uniforms(seed: int, stream: tuple[int, ...], start: int, count: int) -> Tensor:
    """Return uniform numbers of one stream, each fixed by its position alone.

    Numbers drawn in parts are those drawn at once, so that it does not matter in how many batches
    examples arrive.

    Args:
        seed: at least 0.
        stream: names the stream; other streams are independent.
        start: position of the first number, at least 0.
        count: how many.

    Returns:
        (count,) float64 in [0, 1).

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
    it draws a place :math:`\lfloor (t + 1) u \rfloor` and replaces what is there if that is a place
    of the reservoir. After n examples each of them is kept with probability capacity / n.

    Args:
        capacity: places, at least 0.
        num_seen: how many came before; the first ``min(num_seen, capacity)`` indices of the result
            are those kept.
        uniform: (n,) uniform numbers u in [0, 1), one for each new example.

    Returns:
        (min(capacity, num_seen + n),) int64 indices into the kept examples followed by the new
        ones, in the order of the places.

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
