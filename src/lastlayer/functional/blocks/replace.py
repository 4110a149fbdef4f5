"""Random blocks of a feature map replaced: the step that DropBlock and Disout share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lastlayer._checks import (
    can_look,
    check_channel_dim,
    check_choice,
    check_floating,
    check_generator,
)
from lastlayer.functional.blocks.dense import dense_blocks
from lastlayer.functional.blocks.grid import block_grid, seed_rate
from lastlayer.functional.blocks.sparse import sparse_blocks

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
    if _use_sparse(features, p, sampler):
        rate = seed_rate(float(p), grid)
        replaced = sparse_blocks(features, grid, rate, spread, generator)
    else:
        replaced = dense_blocks(features, grid, seed_rate(p, grid), spread, generator)
    return replaced.movedim(1, -1) if channel_dim == -1 else replaced


def _use_sparse(features: Tensor, p: float | Tensor, sampler: str) -> bool:
    if sampler != "auto":
        return sampler == "sparse"
    if not can_look(features):
        return False
    return float(p) <= _SPARSE_UP_TO
