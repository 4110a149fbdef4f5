"""Metrics over training steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from lastlayer.report.style import COLORS, DASHES, as_array, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Curve:
    """One metric of one run.

    Attributes:
        head: gives the colour; curves of one head share it.
        split: such as ``"train"`` or ``"test"``; gives the line style.
        steps: (T,) training steps, increasing.
        values: (T,) the metric; NaN leaves a gap.
    """

    head: str
    split: str
    steps: ArrayLike
    values: ArrayLike


def learning_curves(
    curves: Sequence[Curve],
    *,
    y_label: str = "cross entropy (nats)",
    x_label: str = "training step",
    log_y: bool = False,
) -> Figure:
    """Curves over steps; the colour tells the head, the line style the split.

    Several curves of one head and split (its seeds) are drawn thin under one legend entry.

    Args:
        curves: the ``Curve`` objects.
        y_label: name and unit of the metric.
        x_label: name of the horizontal axis.
        log_y: logarithmic vertical axis; every value must then be above 0.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: if there is no curve, a curve's lengths differ, or ``log_y`` meets a value of
            0 or less (the DropMax objective is negative at convergence: draw its cross entropy).

    >>> figure = learning_curves([Curve("softmax", "test", [0, 100], [2.3, 0.4])], log_y=True)
    >>> figure.axes[0].get_yscale()
    'log'
    """
    if not curves:
        raise ValueError("curves must not be empty")
    points = [_points(curve, log_y) for curve in curves]
    colors = {head: i for i, head in enumerate(dict.fromkeys(curve.head for curve in curves))}
    dashes = {split: i for i, split in enumerate(dict.fromkeys(curve.split for curve in curves))}
    keys = [(curve.head, curve.split) for curve in curves]
    with style():
        figure = new_figure(6.2, 3.6)
        axes = figure.subplots()
        for index, (curve, (steps, values)) in enumerate(zip(curves, points, strict=True)):
            key = keys[index]
            several = keys.count(key) > 1
            label = " ".join(filter(None, key)) if keys.index(key) == index else "_nolegend_"
            axes.plot(
                steps,
                values,
                color=COLORS[colors[curve.head] % len(COLORS)],
                linestyle=DASHES[dashes[curve.split] % len(DASHES)],
                linewidth=0.9 if several else 1.6,
                alpha=0.75 if several else 1.0,
                marker="o" if len(values) == 1 else None,
                label=label,
            )
        axes.set(xlabel=x_label, ylabel=y_label, yscale="log" if log_y else "linear")
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.margins(x=0.02)
        figure.legend(loc="outside right upper")
    return figure


def _points(curve: Curve, log_y: bool) -> tuple[np.ndarray, np.ndarray]:
    name = " ".join(filter(None, (curve.head, curve.split)))
    steps = as_array(f"steps of {name!r}", curve.steps, 1)
    values = as_array(f"values of {name!r}", curve.values, 1)
    if len(steps) != len(values):
        raise ValueError(
            f"steps and values of {name!r} must have one length; got {len(steps)} and {len(values)}"
        )
    if log_y and (values <= 0).any():
        raise ValueError(f"log_y needs values above 0; {name!r} holds {values[values <= 0][0]:g}")
    return steps, values
