"""The sampling rates that a run learned, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from lastlayer.report.style import as_array, check_class_names, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rates_figure(
    steps: ArrayLike,
    rates: ArrayLike,
    class_counts: ArrayLike,
    class_names: Sequence[str] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Sampling rates over training, one line a class, its colour the number of its examples.

    Args:
        steps: (T,) training steps, increasing.
        rates: (T, K) rates, in [0, 1].
        class_counts: (K,) training examples of every class, at least 1.
        class_names: K names, the lines' labels; the indices if None.
        title: heading.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: if a shape does not fit, or a rate or count is out of range.

    >>> figure = rates_figure([0, 10], [[0.5, 0.5], [0.4, 0.6]], [90, 10])
    >>> len(figure.axes[0].lines)
    2
    """
    at, values = as_array("steps", steps, 1), as_array("rates", rates, 2)
    counts = as_array("class_counts", class_counts, 1)
    if values.shape != (len(at), len(counts)):
        raise ValueError(
            f"rates must have shape ({len(at)}, {len(counts)}), one row per step and one column "
            f"per class; got {values.shape}"
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("rates must lie in [0, 1]")
    if not (counts >= 1).all():
        raise ValueError(f"class_counts must be at least 1; got {counts.min():g}")
    names = check_class_names(class_names, len(counts))
    with style():
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import ListedColormap, LogNorm

        figure = new_figure(6.2, 3.6)
        axes = figure.subplots()
        # Equal counts would leave a scale without length.
        norm = LogNorm(counts.min(), max(counts.max(), counts.min() * 1.01))
        # The map's lightest tenth is hard to see on white.
        colors = ListedColormap(colormaps["viridis_r"](np.linspace(0.1, 1.0, 256)))
        for k in np.argsort(-counts, kind="stable"):
            color = colors(norm(counts[k]))
            marker = "o" if len(at) == 1 else None
            axes.plot(at, values[:, k], color=color, lw=1.2, marker=marker, label=names[k])
        axes.set(xlabel="training step", ylabel="sampling rate", title=title)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.margins(x=0.03)
        bar = figure.colorbar(ScalarMappable(norm, colors), ax=axes)
        bar.set_label("training examples of the class")
    return figure
