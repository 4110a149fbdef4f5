"""Curves: metrics and sampling rates over training steps, accuracy over confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from lastlayer.evaluation import Reliability
from lastlayer.report.style import (
    COLORS,
    DASHES,
    MARKERS,
    MUTED,
    as_array,
    check_class_names,
    new_figure,
    style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Curve:
    """One metric of one run.

    Attributes:
        head: gives the color; curves of one head share it.
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
    """Curves over steps; the color tells the head, the line style the split.

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


def rates_figure(
    steps: ArrayLike,
    rates: ArrayLike,
    class_counts: ArrayLike,
    class_names: Sequence[str] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Sampling rates over training, one line a class, its color the number of its examples.

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
