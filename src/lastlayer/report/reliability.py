"""Reliability diagrams and confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from lastlayer.evaluation.calibration import Reliability
from lastlayer.report.heat_maps import heat_map
from lastlayer.report.style import (
    COLORS,
    MARKERS,
    MUTED,
    as_array,
    check_class_names,
    new_figure,
    style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def reliability_figure(tables: Mapping[str, Reliability], title: str = "") -> Figure:
    """Accuracy against mean confidence per bin, with the identity; below, how full the bins are.

    Args:
        tables: name -> ``lastlayer.evaluation.reliability(...)``.
        title: heading, such as which pairs were binned.

    Returns:
        A matplotlib figure; the calibration errors stand in the legend.

    Raises:
        ValueError: if ``tables`` is empty.

    >>> import torch
    >>> from lastlayer.evaluation import reliability
    >>> table = reliability(torch.tensor([[0.9, 0.1]]).log(), torch.tensor([0]))
    >>> figure = reliability_figure({"softmax": table})
    >>> figure.axes[0].get_legend_handles_labels()[1]
    ['softmax (ECE 10.0 %)']
    """
    if not tables:
        raise ValueError("tables must not be empty")
    with style():
        figure = new_figure(4.4, 5.0 + 0.18 * ((len(tables) + 1) // 2))
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.6, 1))
        axes.plot([0, 1], [0, 1], ":", color=MUTED, lw=1.2, zorder=1)
        for index, (name, table) in enumerate(tables.items()):
            look = {
                "color": COLORS[index % len(COLORS)],
                "marker": MARKERS[index % len(MARKERS)],
                "ms": 5,
            }
            filled = table.count.numpy() > 0
            confidence = table.confidence.numpy()[filled]
            label = f"{name} (ECE {100 * table.ece:.1f} %)"
            axes.plot(confidence, table.accuracy.numpy()[filled], lw=1.2, label=label, **look)
            below.plot(confidence, table.count.numpy()[filled], lw=1.0, **look)
        axes.set(ylabel="accuracy", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=title)
        figure.legend(loc="outside lower center", ncols=2)
        below.set(xlabel="mean confidence of the bin", ylabel="predictions", yscale="log")
        for each in (axes, below):
            each.grid()
            each.set_axisbelow(True)
    return figure


def confusion_figure(
    matrix: ArrayLike | Tensor,
    class_names: Sequence[str] | None = None,
    *,
    title: str = "",
    x_label: str = "predicted class",
    y_label: str = "label",
) -> Figure:
    """Heat map of a K by K matrix, with its numbers written in up to 12 classes.

    Args:
        matrix: (K, K) counts or shares of at least 0; NaN is left blank.
        class_names: K names; the class indices if None.
        title: heading.
        x_label: what the columns are.
        y_label: what the rows are.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: if ``matrix`` is not square, empty or holds a negative number, or
            ``class_names`` has another length.

    >>> figure = confusion_figure([[9, 1], [2, 8]], ["cat", "dog"])
    >>> figure.axes[0].images[0].get_array().tolist()
    [[9.0, 1.0], [2.0, 8.0]]
    """
    array = as_array("matrix", matrix, 2)
    size = len(array)
    if array.shape != (size, size) or (array < 0).any():
        raise ValueError(
            f"matrix must be square with entries of at least 0; got shape {array.shape}"
        )
    names = check_class_names(class_names, size)
    top = float(np.nanmax(array, initial=0.0)) or 1.0
    return heat_map(
        array, names, top=top, text=_short, title=title, x_label=x_label, y_label=y_label
    )


def _short(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}".removeprefix("0")
