"""Pictures of class maps: over their images, with boxes; and of objects filtered out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from lastlayer._checks import is_whole
from lastlayer.report.style import (
    MUTED,
    TRUTH,
    Array,
    as_array,
    new_figure,
    style,
    thumbnails,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

FOUND = "#F0E442"  # of the same palette, and of no end of the map's colors
COLOR_MAP = "RdBu_r"  # red speaks for the class, blue against it
PANEL = 1.25  # inches


def map_overlays(
    images: ArrayLike | Tensor,
    maps: Mapping[str, ArrayLike | Tensor],
    *,
    truth: ArrayLike | Tensor | None = None,
    boxes: Mapping[str, ArrayLike | Tensor] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Draw signed maps over their images, one row per image and one column per method.

    Red cells speak for the class, blue ones against it, and the stronger the less of the image
    shows through; every map has its own scale, symmetric about 0. The first column is the image
    alone. True boxes are green, those found yellow and dashed.

    Args:
        images: (N, height, width), or with 1 or 3 channels before or after.
        maps: method -> (N, h, w) raw maps.
        truth: (N, 4) or (N, M, 4) true half-open boxes in pixels.
        boxes: method -> (N, 4) boxes found, for any of the methods.
        titles: N labels of the rows, such as the classes.

    Returns:
        A matplotlib figure, see :func:`lastlayer.report.save_figure`.

    Raises:
        ValueError: if a shape or a number of rows does not fit, or ``boxes`` has a method that
            ``maps`` has not.

    >>> import torch
    >>> figure = map_overlays(torch.rand(2, 1, 8, 8), {"infoCAM": torch.randn(2, 4, 4)})
    >>> [axes.get_title() for axes in figure.axes]
    ['image', 'infoCAM', '', '']
    """
    if not maps:
        raise ValueError("maps must not be empty")
    arrays = {name: as_array(name, values, 3) for name, values in maps.items()}
    rows = len(next(iter(arrays.values())))
    pictures = thumbnails("images", images, rows)
    found = {name: _boxes(name, values, rows) for name, values in (boxes or {}).items()}
    true = None if truth is None else _boxes("truth", truth, rows)
    for name in arrays:
        if len(arrays[name]) != rows:
            raise ValueError(f"maps must have one row per image, {rows}; {name!r} has another")
    if unknown := set(found) - set(arrays):
        raise ValueError(f"boxes must be of methods in maps; got {sorted(unknown)}")
    if titles is not None and len(titles) != rows:
        raise ValueError(f"titles must hold {rows} labels, one per image; got {len(titles)}")
    with style():
        figure, grid = _grid(rows, 1 + len(arrays), pictures.shape[2] / pictures.shape[1])
        for row, (picture, line) in enumerate(zip(pictures, grid, strict=True)):
            for axes in line:
                _show(axes, picture)
                if true is not None:
                    _draw_boxes(axes, true[row], TRUTH, "-")
            for axes, (method, values) in zip(line[1:], arrays.items(), strict=True):
                _overlay(axes, values[row], picture.shape[:2])
                if method in found:
                    _draw_boxes(axes, found[method][row], FOUND, "--")
            if titles is not None:
                line[0].set_ylabel(titles[row])
        for axes, heading in zip(grid[0], ("image", *arrays), strict=True):
            axes.set_title(heading)
    return figure


def filtering_figure(
    before: ArrayLike | Tensor,
    after: ArrayLike | Tensor,
    pmi: ArrayLike | Tensor,
    window: int | tuple[int, int],
    *,
    stride: int = 1,
    title: str = "pointwise information",
) -> Figure:
    """Draw images, what filtering an object out left of them, and why: one row per image.

    Args:
        before: (N, height, width), or with 1 or 3 channels before these.
        after: of the same shape.
        pmi: (N, rows, columns) pointwise information in nats of the windows, placed at their
            centers. The colors end at the greatest value and its negative.
        window: side of a window in pixels, or (height, width).
        stride: pixels from window to window.
        title: heading of the third column.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: if a shape does not fit.

    >>> import torch
    >>> images = torch.rand(2, 1, 8, 12)
    >>> figure = filtering_figure(images, images, torch.randn(2, 5, 9), window=4)
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['image', 'filtered', 'pointwise information']
    """
    originals, rest = as_array("before", before), as_array("after", after)
    heat = as_array("pmi", pmi, 3)
    if originals.shape != rest.shape or len(originals) != len(heat):
        raise ValueError(
            "before and after must have one shape and pmi as many rows; "
            f"got {originals.shape}, {rest.shape} and {heat.shape}"
        )
    # Side by side they are stretched by the same numbers.
    pairs = thumbnails("before", np.concatenate((originals, rest), axis=-1), len(heat))
    bound = float(np.nanmax(heat, initial=0.0)) or 1.0
    side = (window, window) if is_whole(window) else window
    with style():
        width = pairs.shape[2] // 2
        aspect = width / pairs.shape[1]
        figure, grid = _grid(len(heat), 3, aspect, panel=1.6 * PANEL, beside=0.9)
        for pair, values, line in zip(pairs, heat, grid, strict=True):
            _show(line[0], pair[:, :width])
            _show(line[1], pair[:, width:])
            image = _heat(line[2], values, pair[:, :width].shape[:2], side, stride, bound)
        for axes, text in zip(grid[0], ("image", "filtered", title), strict=True):
            axes.set_title(text)
        bar = figure.colorbar(image, ax=[line[2] for line in grid], shrink=0.7, extend="min")
        bar.set_label("nats")
    return figure


def _grid(
    rows: int, columns: int, aspect: float, panel: float = PANEL, beside: float = 0.0
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of axes without ticks, of one height, with ``beside`` inches for a color bar."""
    figure = new_figure(0.4 + columns * (panel * aspect + 0.06) + beside, 0.3 + rows * panel)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure, [list(line) for line in grid]


def _show(axes: Axes, picture: Array) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _overlay(axes: Axes, values: Array, size: tuple[int, ...]) -> None:
    height, width = size
    strength = np.abs(values)
    top = float(np.nanmax(strength, initial=0.0)) or 1.0
    axes.imshow(
        values / top,
        cmap=COLOR_MAP,
        vmin=-1,
        vmax=1,
        alpha=np.nan_to_num(0.85 * strength / top),
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="nearest",
    )


def _heat(
    axes: Axes,
    values: Array,
    size: tuple[int, ...],
    window: tuple[int, int],
    stride: int,
    bound: float,
) -> AxesImage:
    from matplotlib.patches import Rectangle

    height, width = size
    top, left = (side / 2 - stride / 2 - 0.5 for side in window)
    extent = (left, left + stride * values.shape[1], top + stride * values.shape[0], top)
    image = axes.imshow(
        np.clip(values, -bound, bound),
        cmap=COLOR_MAP,
        vmin=-bound,
        vmax=bound,
        extent=extent,
        interpolation="nearest",
    )
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    frame: dict[str, Any] = {"fill": False, "ec": MUTED, "lw": 0.8}
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, **frame))
    return image


def _draw_boxes(axes: Axes, boxes: Array, color: str, line: str) -> None:
    from matplotlib.patches import Rectangle

    for left, top, right, bottom in boxes:
        if right > left and bottom > top:
            corner = (left - 0.5, top - 0.5)  # half-open boxes begin at the edge of a pixel
            look: dict[str, Any] = {"fill": False, "ec": color, "lw": 1.4, "ls": line}
            axes.add_patch(Rectangle(corner, right - left, bottom - top, **look))


def _boxes(name: str, values: ArrayLike | Tensor, rows: int) -> Array:
    """Boxes as (rows, M, 4)."""
    array = as_array(name, values)
    array = array[:, None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[0] != rows or array.shape[2] != 4:
        raise ValueError(
            f"boxes {name!r} must have shape ({rows}, 4) or ({rows}, M, 4); "
            f"got {tuple(np.shape(values))}"
        )
    return array
