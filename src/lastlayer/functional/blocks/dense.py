"""Blocks drawn at all places at once: no step depends on how many there are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.functional.blocks.grid import BlockGrid
from lastlayer.functional.numerics import drawn_by


def dense_blocks(
    features: Tensor,
    grid: BlockGrid,
    rate: float | Tensor,
    spread: Tensor | None,
    generator: torch.Generator | None,
) -> Tensor:
    """Replace random blocks by noise, or by zeros, and rescale; see ``replace_blocks``."""
    mask = cover_mask(features, grid, rate, generator=generator)
    kept = 1 - mask.float().mean()
    kept = torch.where(kept > 0, kept, 1.0)
    # Sixteen bits hold neither the share of millions of cells nor a small noise's width.
    fill = torch.zeros((), dtype=features.dtype, device=features.device)
    if spread is not None:
        noise = torch.randn(
            features.shape, dtype=torch.float32, device=features.device, **drawn_by(generator)
        )
        width = spread.reshape(-1, *[1] * (features.dim() - 2))
        fill = (noise * (width / kept)).to(features.dtype)
    rescaled = (features / kept).to(features.dtype)
    if not features.is_contiguous():  # the output is laid out as the condition
        mask = torch.empty_like(features, dtype=torch.bool).copy_(mask)
    return torch.where(mask, fill, rescaled)


def cover_mask(
    features: Tensor,
    grid: BlockGrid,
    rate: float | Tensor,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return which cells are covered by blocks, drawn independently at every place.

    Args:
        features: (N, C, *spatial), for shape and device.
        grid: the places.
        rate: the probability of a block at each place, in [0, 1].
        generator: source of the places, on the features' device; None for torch's default.

    Returns:
        (N, C, *spatial) bool.
    """
    shape = (features.shape[0], *grid.corners)
    mask = torch.rand(shape, device=features.device, **drawn_by(generator)) < rate
    for axis, (size, block) in enumerate(zip(grid.size, grid.block, strict=True), start=1):
        mask = _grow(mask, axis, size, block)
    return mask


def _grow(mask: Tensor, axis: int, size: int, block: int) -> Tensor:
    """Spread every True along an axis over the ``block - 1`` cells behind it."""
    if block == size:  # one place alone covers the axis
        return mask.expand(*[size if i == axis else -1 for i in range(mask.dim())])
    behind = [0, 0] * (mask.dim() - 1 - axis)
    mask = F.pad(mask, [*behind, block - 1, block - 1])
    grown = 1
    while grown < block:
        step = min(grown, block - grown)
        length = mask.shape[axis] - step
        mask = mask.narrow(axis, 0, length) | mask.narrow(axis, step, length)
        grown += step
    return mask
