"""Random blocks of a feature map replaced: the step that DropBlock and Disout share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import (
    can_look,
    check_channel_dim,
    check_choice,
    check_floating,
    check_generator,
)
from lastlayer.functional.blocks.grid import BlockGrid, block_grid, seed_rate
from lastlayer.functional.blocks.sparse import sparse_blocks
from lastlayer.functional.numerics import drawn_by

SAMPLERS = ("auto", "sparse", "dense")

#: Above this share of covered cells drawing everywhere at once is the faster way on the CPU.
_SPARSE_UP_TO = 0.3


def replace_blocks(
    features: Tensor,
    p: float | Tensor,
    *,
    block_size: int | Sequence[int],
    spread: Tensor | None = None,
    share_channels: bool = False,
    channel_dim: int = 1,
    generator: torch.Generator | None = None,
    sampler: str = "auto",
) -> Tensor:
    r"""Replace random blocks by Gaussian noise or zeros and rescale by the share kept.

    .. math::
        y = \frac{1}{\kappa} \bigl( M \odot x + (1 - M) \odot \delta \bigr), \qquad
        \delta_c \sim \mathcal{N}(0, \sigma_c^2)

    M is 0 on the blocks, which lie wholly on the map, each of its places being chosen
    independently with the one probability for which the expected share of covered cells is p;
    :math:`\kappa` is the share of the whole batch that is kept (1 if nothing is). Gradient reaches
    the kept cells alone, and it is :math:`g / \kappa` there.

    Args:
        features: (N, C, *spatial), no to three spatial axes, any float dtype and memory format.
        p: expected share of replaced cells, in [0, 1]; a 0-d tensor in compiled code.
        block_size: edge of the blocks, at least 1, clipped to the map; one number or one per
            spatial axis.
        spread: :math:`\sigma`, (C,) or (1,); None for zeros instead of noise.
        share_channels: whether a block goes through all channels; else each has its own.
        channel_dim: 1 for features (N, C, *spatial), -1 for (N, *spatial, C), channels last or
            tokens.
        generator: source of places and noise, on the features' device; None for torch's default.
        sampler: ``"sparse"`` draws block after block and is the fastest on the CPU; ``"dense"``
            draws all places at once, for accelerators, ``torch.compile`` and ``torch.func``;
            ``"auto"`` chooses by device, and ``"dense"`` under ``torch.func``.

    Returns:
        As ``features``.

    Raises:
        TypeError: if the features are not floating point.
        ValueError: if another argument does not fit.

    Example:
        >>> replaced = replace_blocks(torch.ones(1, 1, 4, 4), 1.0, block_size=2)
        >>> int(replaced.count_nonzero())
        0

    References:
        Ghiasi, Lin, Le, "DropBlock", NeurIPS 2018; Tang et al., "Beyond Dropout: Feature Map
        Distortion to Regularize Deep Neural Networks", AAAI 2020.
    """
    check_floating("features", features)
    check_choice("sampler", sampler, SAMPLERS)
    check_channel_dim(channel_dim)
    check_generator(generator)
    if channel_dim == -1 and features.dim() > 1:
        features = features.movedim(-1, 1)  # a view: both samplers keep the order of memory
    grid = block_grid(features.shape, block_size, share_channels=share_channels)
    # Size by size: compiled code cannot look a size that it does not know up in a tuple.
    if spread is not None and (
        spread.dim() != 1 or (spread.shape[0] != 1 and spread.shape[0] != grid.size[0])
    ):
        raise ValueError(
            f"spread must have shape (1,) or ({grid.size[0]},); got {tuple(spread.shape)}"
        )
    if features.numel() == 0:  # a batch of 0, or a map without cells
        return features.movedim(1, -1) if channel_dim == -1 else features
    few = sampler == "auto" and can_look(features) and float(p) <= _SPARSE_UP_TO
    if sampler == "sparse" or few:
        replaced = sparse_blocks(features, grid, seed_rate(float(p), grid), spread, generator)
    else:
        replaced = dense_blocks(features, grid, seed_rate(p, grid), spread, generator)
    return replaced.movedim(1, -1) if channel_dim == -1 else replaced


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
    """Return which cells random blocks cover, (N, C, *spatial) bool; ``rate`` is a place's."""
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
