"""Digit collages: a grid of digits, of which some are of one class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lastlayer._checks import check_count, check_whole
from lastlayer.data.canvases import as_unit_images


class Collages(NamedTuple):
    """Collages with the labels and boxes of their cells, row by row.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1]; 0 between the digits.
        labels: (N, rows * columns) int64.
        boxes: (N, rows * columns, 4) int64 half-open boxes of the cells.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor


def digit_collages(
    digits: Tensor,
    target: Tensor,
    count: int,
    *,
    chosen: int = 0,
    chosen_count: int = 3,
    rows: int = 3,
    columns: int = 4,
    gap: int = 4,
    seed: int = 0,
) -> Collages:
    """Arrange digits in grids, a given number of them in each of a chosen class.

    Digits are drawn without replacement within a collage, the others from all other classes alike
    as they occur; their cells are a random permutation.

    Args:
        digits: (M, C, h, w) float in [0, 1], or uint8.
        target: (M,) int64 labels.
        count: number of collages N.
        chosen: the class of which each collage has ``chosen_count`` digits.
        chosen_count: from 0 to the number of cells.
        rows: rows of cells.
        columns: columns of cells.
        gap: pixels between cells and around them, at least 0.
        seed: fixes which digits stand where; at least 0.

    Returns:
        The :class:`Collages`, of height ``rows * (h + gap) + gap`` and width alike.

    Raises:
        ValueError: if a shape or number does not fit, or there are too few digits.

    Example:
        >>> digits, target = torch.rand(40, 1, 8, 8), torch.arange(40) % 10
        >>> collages = digit_collages(digits, target, count=2, chosen=7)
        >>> collages.images.shape, collages.labels.eq(7).sum(1).tolist()
        (torch.Size([2, 1, 40, 52]), [3, 3])
    """
    digits = as_unit_images(digits, target)
    for name, value in (("count", count), ("rows", rows), ("columns", columns)):
        check_count(name, value)
    check_whole("gap", gap, 0)
    check_whole("seed", seed, 0)
    cells = rows * columns
    if not 0 <= chosen_count <= cells:
        raise ValueError(
            f"chosen_count must lie in [0, {cells}], the number of cells; got {chosen_count}"
        )
    generator = torch.Generator().manual_seed(seed)
    mine, others = (target == chosen).nonzero()[:, 0], (target != chosen).nonzero()[:, 0]
    numbers = (
        (f"of class {chosen}", mine, chosen_count),
        ("of other classes", others, cells - chosen_count),
    )
    for kind, pool, needed in numbers:
        if len(pool) < needed:
            raise ValueError(f"a collage needs {needed} digits {kind}; there are {len(pool)}")
    drawn = []
    for _ in range(count):
        picked = [p[torch.randperm(len(p), generator=generator)[:n]] for _, p, n in numbers]
        drawn.append(torch.cat(picked)[torch.randperm(cells, generator=generator)])
    index = torch.stack(drawn)
    images, boxes = _lay_out(digits, index, rows, columns, gap)
    return Collages(images, target[index], boxes)


def _lay_out(
    digits: Tensor, index: Tensor, rows: int, columns: int, gap: int
) -> tuple[Tensor, Tensor]:
    """Return the images and the boxes of the cells."""
    channels, height, width = digits.shape[1:]
    full = rows * (height + gap) + gap, columns * (width + gap) + gap
    images = torch.zeros(len(index), channels, *full)
    corners = []
    for cell in range(rows * columns):
        row, column = divmod(cell, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        images[:, :, top : top + height, left : left + width] = digits[index[:, cell]]
        corners.append((left, top, left + width, top + height))
    return images, torch.tensor(corners).expand(len(index), -1, -1)
