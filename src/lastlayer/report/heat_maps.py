"""A table of numbers as colours, the numbers written in where there is room."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from lastlayer.report.style import Array, class_ticks, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANNOTATED = 12  # rows up to which the numbers are written in


def heat_map(
    array: Array,
    names: list[str],
    *,
    top: float,
    text: Callable[[float], str],
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    bar_label: str = "",
) -> Figure:
    """Draw a square table; NaN is left blank.

    Args:
        array: (K, K) numbers of at least 0.
        names: K names of rows and columns.
        top: the number with the darkest colour, above 0.
        text: writes a number.
        title: heading.
        x_label: what the columns are.
        y_label: what the rows are.
        bar_label: unit of the numbers, beside the colour bar of a table too large for its numbers.

    Returns:
        A matplotlib figure.
    """
    size = len(array)
    with style():
        side = 1.3 + min(5.2, max(2.2, 0.38 * size)) + 0.06 * max(map(len, names))
        figure = new_figure(side + 0.4, side)
        axes = figure.subplots()
        image = axes.imshow(array, cmap="Blues", vmin=0, vmax=top, interpolation="nearest")
        class_ticks(axes, names, rows=True, columns=True)
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        if size <= ANNOTATED:
            for (row, column), value in np.ndenumerate(array):
                if not np.isnan(value):
                    ink = "white" if value > 0.6 * top else "#222222"
                    axes.text(
                        column, row, text(value), ha="center", va="center", color=ink, fontsize=7
                    )
        else:
            bar = figure.colorbar(image, ax=axes, shrink=0.8)
            bar.set_label(bar_label)
    return figure
