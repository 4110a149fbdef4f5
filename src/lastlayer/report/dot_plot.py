"""Variants side by side over seeds, as a dot plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lastlayer._checks import check_choice
from lastlayer.evaluation import Measure, measures_of
from lastlayer.evaluation.intervals import Interval, mean_interval
from lastlayer.report.rows import Row, check_rows
from lastlayer.report.style import COLORS, MUTED, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def comparison_figure(rows: Sequence[Row], measures: Sequence[str] | None = None) -> Figure:
    """Horizontal dot plot: the mean with its 95 % interval, each seed a faint dot below.

    An interval wider than three times the spread of all dots is cut with an arrowhead (two seeds
    give a t factor of 12.7); infinite values are named at the right edge.

    Args:
        rows: one ``Row`` per variant, drawn from the top, all of one table.
        measures: names of measures, one panel each; if None, those that are declared to have one.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: if ``rows`` or ``measures`` is empty, or a measure is unknown.

    >>> row = Row("softmax", [0, 1], {"error": [0.1, 0.2], "nll": [1.0, 2.0]})
    >>> [axes.get_xlabel() for axes in comparison_figure([row], ["error", "nll"]).axes]
    ['Error %', 'NLL']
    """
    check_rows(rows)
    known = measures_of(rows[0].table)
    if measures is None:
        measures = [name for name, measure in known.items() if measure.in_figure]
    if not measures:
        raise ValueError("measures must not be empty")
    for name in measures:
        check_choice("measures", name, known)
    with style():
        longest = max(len(row.name) for row in rows)
        width = 0.6 + 0.07 * longest + 2.4 * len(measures)
        figure = new_figure(width, 0.75 + 0.32 * len(rows))
        panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, measures, strict=True):
            _draw_measure(axes, rows, known[name])
        panels[0].set_yticks(range(len(rows)), [row.name for row in rows])
        panels[0].set_ylim(len(rows) - 0.4, -0.6)
    return figure


def _draw_measure(axes: Axes, rows: Sequence[Row], measure: Measure) -> None:
    factor = measure.unit.factor
    values = [[factor * value for value in row.values.get(measure.name, [])] for row in rows]
    finite = [value for row in values for value in row if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    spread = (high - low) or abs(high) or 1.0
    bounds = (max(0.0, low - spread), high + spread)
    for y, row_values in enumerate(values):
        dots = [value for value in row_values if math.isfinite(value)]
        axes.plot(
            dots, [y + 0.22] * len(dots), "o", color=COLORS[0], alpha=0.35, ms=4.5, mew=0, zorder=2
        )
        if len(dots) < len(row_values):
            lost = len(row_values) - len(dots)
            text = "inf" if lost == len(row_values) else f"inf ({lost} of {len(row_values)})"
            place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right"}
            axes.annotate(text, (1, y), va="center", fontsize=8, color=MUTED, **place)
        elif dots:
            _draw_interval(axes, y, mean_interval(dots), bounds)
    axes.set_xlabel(measure.heading(rows[0].shared))
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)
    if len(finite) < sum(map(len, values)):  # room for the word
        left, right = axes.get_xlim()
        axes.set_xlim(left, right + 0.4 * (right - left))


def _draw_interval(axes: Axes, y: int, interval: Interval, bounds: tuple[float, float]) -> None:
    if math.isfinite(interval.low):
        low, high = max(interval.low, bounds[0]), min(interval.high, bounds[1])
        axes.plot([low, high], [y, y], color=COLORS[0], lw=1.6, solid_capstyle="butt", zorder=3)
        for end, shown, marker in ((interval.low, low, "<"), (interval.high, high, ">")):
            cut = end != shown
            axes.plot(shown, y, marker=marker if cut else "|", color=COLORS[0], ms=5, zorder=3)
    axes.plot(interval.mean, y, "D", color=COLORS[0], ms=5, mec="white", mew=0.8, zorder=4)
