"""Blocks drawn one after another: the work grows with the covered cells, not with the map."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lastlayer.functional.autograd import Function
from lastlayer.functional.blocks.grid import BlockGrid

_EVERY_BYTE = 0x0101010101010101


def sparse_blocks(
    features: Tensor,
    grid: BlockGrid,
    rate: float,
    spread: Tensor | None,
    generator: torch.Generator | None,
) -> Tensor:
    """Replace random blocks by noise, or by zeros, and rescale; see ``replace_blocks``."""
    layout = torch.empty_like(features, memory_format=torch.preserve_format).stride()
    places = draw_places(
        len(features) * grid.num_places, rate, generator=generator, device=features.device
    )
    first, channel = _first_cells(places, grid, layout)
    cells = first.unsqueeze(1) + _offsets(grid, layout, features.device)
    covered = _count_distinct(cells.view(-1), features.numel())
    kept = (1 - covered / max(features.numel(), 1)) or 1.0
    if spread is None:
        noise = features.new_zeros(()).expand(cells.shape)
    else:
        noise = torch.randn(cells.shape, device=features.device, generator=generator)
        noise *= _width(spread / kept, channel, grid)
    return _replace(features, cells.view(-1), noise.view(-1).to(features.dtype), kept, layout)


def draw_places(
    num_places: int,
    rate: float,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    r"""Draw each of the places 0, 1, ... independently at a rate; return them rising.

    The gaps between chosen places are geometric, :math:`\lfloor E / \lambda \rfloor` with E from
    the unit exponential and :math:`\lambda = -\log(1 - g)`, so that the places not chosen cost
    nothing.
    """
    if rate >= 1.0:
        return torch.arange(num_places, device=device)
    intensity = -math.log1p(-rate)
    drawn: list[Tensor] = []
    last = -1
    while intensity > 0 and last < num_places - 1:
        expected = (num_places - 1 - last) * rate
        count = int(expected + 4 * math.sqrt(expected)) + 8
        gaps = torch.empty(count, dtype=torch.float64, device=device)
        gaps.exponential_(intensity, generator=generator).clamp_(max=num_places)
        places = gaps.long().add_(1).cumsum_(0).add_(last)
        drawn.append(places)
        last = int(places[-1])
    if not drawn:
        return torch.empty(0, dtype=torch.int64, device=device)
    places = drawn[0] if len(drawn) == 1 else torch.cat(drawn)
    return places[: int(torch.searchsorted(places, num_places))]


def _first_cells(places: Tensor, grid: BlockGrid, layout: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return where the first cell of every block lies in memory, and its channel."""
    rest = places
    first = torch.zeros_like(places)
    channel = first
    for corners, stride in zip(reversed(grid.corners), reversed(layout[1:]), strict=True):
        channel = torch.zeros_like(places)
        if corners > 1:
            outer = rest.div(corners, rounding_mode="floor")
            channel = torch.sub(rest, outer, alpha=corners)
            first.add_(channel, alpha=stride)
            rest = outer
    return first.add_(rest, alpha=layout[0]), channel


def _offsets(grid: BlockGrid, layout: tuple[int, ...], device: torch.device) -> Tensor:
    """Return how far in memory the cells of a block lie behind its first."""
    offsets = torch.zeros((), dtype=torch.int64, device=device)
    for block, stride in zip(grid.block, layout[1:], strict=True):
        along = torch.arange(block, device=device) * stride
        offsets = offsets.unsqueeze(-1) + along
    return offsets.view(-1)


def _count_distinct(cells: Tensor, num_cells: int) -> int:
    """Return how many different cells there are, without sorting them."""
    words = torch.zeros(num_cells // 8 + 1, dtype=torch.int64, device=cells.device)
    marks = words.view(torch.uint8)
    marks.scatter_(0, cells, marks.new_ones(()).expand(cells.shape))
    # Eight bytes of 0 or 1 at once: the product's highest byte is their sum.
    return int(words.mul_(_EVERY_BYTE).bitwise_right_shift_(56).sum())


def _width(spread: Tensor, channel: Tensor, grid: BlockGrid) -> Tensor:
    """Return the noise's standard deviation for every block, or every cell of a block."""
    if spread.numel() == 1:
        return spread
    if grid.block[0] == 1:
        return spread[channel].unsqueeze(1)
    return spread.repeat_interleave(math.prod(grid.block[1:]))


def _replace(
    features: Tensor, cells: Tensor, values: Tensor, kept: float, layout: tuple[int, ...]
) -> Tensor:
    replaced: Tensor = _Replace.apply(  # type: ignore[no-untyped-call]
        features, cells, values, kept, layout
    )
    return replaced


class _Replace(Function):
    """Divide by the share kept, then put values into cells; linear in the features."""

    @staticmethod
    def forward(
        features: Tensor, cells: Tensor, values: Tensor, kept: float, layout: tuple[int, ...]
    ) -> Tensor:
        out = torch.empty_strided(
            features.shape, layout, dtype=features.dtype, device=features.device
        )
        torch.div(features, kept, out=out)
        out.as_strided((out.numel(),), (1,)).scatter_(0, cells, values)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, cells, _, ctx.kept, ctx.layout = inputs
        ctx.save_for_backward(cells)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (cells,) = ctx.saved_tensors
        (gradient,) = gradients
        zeros = gradient.new_zeros(()).expand(cells.shape)
        return _replace(gradient, cells, zeros, ctx.kept, ctx.layout), None, None, None, None
