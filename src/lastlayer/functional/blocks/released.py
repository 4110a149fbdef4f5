"""Disout exactly as its released code computes it, faults included, for comparisons of bits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.functional.numerics import drawn_by


def disout_released(
    features: Tensor,
    p: float,
    *,
    block_size: int = 6,
    alpha: float = 1.0,
    next_weight: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Distort random blocks as the released layer does, drawing the same numbers.

    Compared with :func:`~lastlayer.functional.disout`: the seed rate
    :math:`p H W / (b^2 (H - b + 1)(W - b + 1))` reaches less than p; blocks of even size lie one
    row and one column too far, so that the first row and column are never distorted; a map smaller
    than the block, or equal to it at an even size, is refused here, where the released layer does
    nothing or fails.

    Args:
        features: (N, C, H, W), float32 or float64.
        p: requested share of distorted cells, in [0, 1).
        block_size: b, at most min(H, W).
        alpha: strength of the distortion.
        next_weight: (out, C, kh, kw), the next convolution's weight; None for a scale of 0.01.
        generator: source of all numbers; None for torch's default, as in the released layer.

    Returns:
        As ``features``.

    Raises:
        ValueError: if the shape or the block size is one that the released layer cannot take.

    Example:
        >>> disout_released(torch.ones(1, 1, 4, 4), 0.5, block_size=1).shape
        torch.Size([1, 1, 4, 4])

    References:
        Tang et al., AAAI 2020, released code.
    """
    if features.dim() != 4:
        raise ValueError(f"features must have shape (N, C, H, W); got {tuple(features.shape)}")
    height, width = features.shape[2:]
    whole = block_size == height == width
    if not 1 <= block_size <= min(height, width) or (whole and block_size % 2 == 0):
        raise ValueError(
            f"the released layer cannot take block_size {block_size} on a {height} x {width} map"
        )
    kept_cells = _kept_cells(features, p, block_size, generator)
    kept = kept_cells.sum() / kept_cells.numel()
    scale: Tensor | float = 0.01
    if next_weight is not None:
        largest = next_weight.detach().amax(dim=0, keepdim=True)
        draws = torch.rand(largest.shape, device=largest.device, **drawn_by(generator))
        signed = torch.where(draws < 0.5, -largest, largest)
        scale = signed.mean(dim=(2, 3), keepdim=True)
        scale = scale * 0.1 if next_weight.shape[3] == 1 else scale
    noise = torch.randn(features.shape, device=features.device, **drawn_by(generator))
    distortion = noise * (alpha * scale * features.detach().std())
    return (features * kept_cells + distortion * (1 - kept_cells)) / kept


def _kept_cells(
    features: Tensor, p: float, block_size: int, generator: torch.Generator | None
) -> Tensor:
    height, width = features.shape[2:]
    places = (height - block_size + 1) * (width - block_size + 1)
    rate = p * height * width / block_size**2 / places
    before, after = block_size // 2, (block_size - 1) // 2
    valid = torch.zeros(height, width, device=features.device)
    valid[before : height - after, before : width - after] = 1.0
    draws = torch.rand(features.shape, device=features.device, **drawn_by(generator))
    # Summed in this order, as the released layer rounds it.
    seeds = ((1 - valid + (1 - rate) + draws) < 1).float()
    if block_size == height == width:
        return 1 - seeds.amax(dim=(2, 3), keepdim=True)
    grown = F.max_pool2d(seeds, block_size, stride=1, padding=before)
    return 1 - grown[..., :height, :width]
