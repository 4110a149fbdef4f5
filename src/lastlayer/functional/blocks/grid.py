"""Where blocks can lie on a feature map, and how often each of its cells is covered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lastlayer._checks import check_probability, is_whole

_Array = np.ndarray[Any, Any]

#: Newton steps where none may depend on a value: the error is below 1e-8 for p up to 0.9.
_FIXED_STEPS = 6


@dataclass(frozen=True)  # torch 2.10 cannot compile a named tuple's properties
class BlockGrid:
    """Blocks inside one example: sizes of the map (channels, then space) and of a block.

    A block lies wholly on the map. Its corner, the cell of least indices, is its name.
    """

    size: tuple[int, ...]
    block: tuple[int, ...]

    @property
    def corners(self) -> tuple[int, ...]:
        """How many places a block has along each axis."""
        return tuple(s - b + 1 for s, b in zip(self.size, self.block, strict=True))

    @property
    def num_places(self) -> int:
        """How many places a block has in one example."""
        return math.prod(self.corners)


def block_grid(
    shape: Sequence[int], block_size: int | Sequence[int], *, share_channels: bool = False
) -> BlockGrid:
    """Return the grid of blocks on features of ``shape``, the block clipped to the map.

    Args:
        shape: (N, C, *spatial), with no to three spatial axes.
        block_size: edge of a block in cells, at least 1; one for every spatial axis, or each.
        share_channels: whether a block goes through all channels.

    Returns:
        The grid over (C, *spatial).

    Raises:
        ValueError: if the shape has no channels or a block size does not fit.

    Example:
        >>> block_grid((8, 16, 4, 20), 7).block
        (1, 4, 7)
    """
    if len(shape) < 2:
        raise ValueError(f"features must have shape (N, C, ...); got {tuple(shape)}")
    spatial = tuple(shape[2:])
    edges = _edges(block_size, len(spatial))
    if len(edges) != len(spatial):
        raise ValueError(
            f"block_size must be one number or {len(spatial)}, one per spatial axis; got {edges}"
        )
    channels = shape[1] if share_channels else min(1, shape[1])
    clipped = tuple(min(edge, size) for edge, size in zip(edges, spatial, strict=True))
    return BlockGrid((shape[1], *spatial), (channels, *clipped))


def check_block_size(block_size: int | Sequence[int]) -> None:
    """Raise ``ValueError`` unless every edge is a whole number of at least 1."""
    _edges(block_size, 1)


def _edges(block_size: int | Sequence[int], num_axes: int) -> tuple[int, ...]:
    """Return the edges as Python's numbers: one for each axis, or those that are given."""
    if is_whole(block_size):
        edges = (block_size,) * num_axes
    else:
        edges = tuple(block_size) if isinstance(block_size, Iterable) else (block_size,)
    if not all(is_whole(edge) and edge >= 1 for edge in edges):
        raise ValueError(
            f"block_size must be a whole number of at least 1 in every axis; got {block_size!r}"
        )
    return tuple(int(edge) for edge in edges)


def cover_counts(grid: BlockGrid, device: torch.device | None = None) -> Tensor:
    """Return for every cell the number of places whose block covers it, (C, *spatial) int64."""
    counts = torch.ones((), dtype=torch.int64, device=device)
    for size, block in zip(grid.size, grid.block, strict=True):
        cell = torch.arange(size, device=device)
        along = cell.clamp(max=size - block) - (cell - block + 1).clamp(min=0) + 1
        counts = counts.unsqueeze(-1) * along
    return counts


def cover_probability(grid: BlockGrid, seed_rate: float) -> Tensor:
    r"""Return the probability of every cell to be covered by at least one block.

    .. math:: P_{ij} = 1 - (1 - g)^{n_{ij}}

    Args:
        grid: the places.
        seed_rate: g, the probability of a block at each place.

    Returns:
        (C, *spatial) float64.

    Example:
        >>> cover_probability(block_grid((1, 1, 3), 2), 0.1)
        tensor([[0.1000, 0.1900, 0.1000]], dtype=torch.float64)
    """
    check_probability("seed_rate", seed_rate)
    return 1 - (1 - seed_rate) ** cover_counts(grid).double()


def seed_rate(p: float | Tensor, grid: BlockGrid) -> Any:
    r"""Return the probability of a block at each place that covers a share p of the cells.

    .. math:: \frac{1}{|\text{cells}|} \sum_{ij} 1 - (1 - g)^{n_{ij}} = p

    The left side is concave in g, so Newton's method rises to the root from below. The published
    rate, p over the mean of n, forgets that blocks overlap and covers less than p.

    Args:
        p: expected share of covered cells, in [0, 1]; a number, or a tensor in compiled code.
        grid: the places.

    Returns:
        g, a number or a tensor like ``p``.

    Example:
        >>> round(seed_rate(0.09, block_grid((1, 1, 8, 8), 6)), 6)
        0.018713
    """
    if isinstance(p, Tensor):
        counts = cover_counts(grid, p.device)[:1].to(p.dtype)
        share = torch.full_like(counts, 1 / max(counts.numel(), 1))
        rate = _start(p, counts, share)
        for _ in range(_FIXED_STEPS):
            rate = _newton(rate, p, counts, share)
        return rate.clamp(0.0, 1.0)
    check_probability("p", p)
    return _seed_rate(p, grid)


@lru_cache(maxsize=4096)
def _seed_rate(p: float, grid: BlockGrid) -> float:
    counts, share = _distinct_counts(grid)
    if p in (0.0, 1.0) or counts.max() == 1:
        return p
    rate = float(_start(p, counts, share))
    for _ in range(100):
        rate, before = float(_newton(rate, p, counts, share)), rate
        if rate <= before:
            break
    return min(max(rate, 0.0), 1.0)


def _start(p: Any, counts: Any, share: Any) -> Any:
    """Return the root for counts that all equal their mean; by Jensen it lies below the root."""
    return 1 - (1 - p) ** (1 / (share * counts).sum())


def _newton(rate: Any, p: Any, counts: Any, share: Any) -> Any:
    """Take one step upwards; on arrays of NumPy and tensors of torch alike."""
    spared = (1 - rate) ** (counts - 1)
    missing = p - (share * (1 - spared * (1 - rate))).sum()
    return rate + missing / (share * counts * spared).sum()


@lru_cache(maxsize=256)
def _distinct_counts(grid: BlockGrid) -> tuple[_Array, _Array]:
    """Return the distinct numbers of covering places, and the share of the cells of each."""
    counts, cells = np.unique(cover_counts(grid)[:1].numpy(), return_counts=True)
    return counts.astype(np.float64), cells / max(cells.sum(), 1)
