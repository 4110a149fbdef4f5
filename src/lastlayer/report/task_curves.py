"""Class-incremental methods drawn side by side: accuracy as classes arrive, and the bias left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lastlayer.evaluation.intervals import mean_interval
from lastlayer.report.heat_maps import task_confusion_figure, task_matrix_figure
from lastlayer.report.rows import Row, check_rows
from lastlayer.report.style import COLORS, DASHES, MARKERS, WRONG, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def accuracy_curve_figure(rows: Sequence[Row], classes_seen: Sequence[int] | None = None) -> Figure:
    """Accuracy over all classes seen against their number: mean and 95 % band over seeds.

    One row per method, all of the same tasks; ``classes_seen`` follows from the tasks' sizes if
    None. A single seed has no band.
    """
    check_rows(rows)
    sizes = rows[0].shared["class_sizes"]
    seen = np.cumsum(sizes).tolist() if classes_seen is None else list(classes_seen)
    if len(seen) != len(sizes) or sorted(set(seen)) != seen:
        raise ValueError(
            f"classes_seen must hold {len(sizes)} rising numbers, one per task; got {seen}"
        )
    with style():
        width = 6.2
        entry = 0.6 + 0.07 * max(len(row.name) for row in rows)  # of the legend, in inches
        columns = max(1, min(3, int(width / entry)))
        figure = new_figure(width, 3.7 + 0.18 * math.ceil(len(rows) / columns))
        axes = figure.subplots()
        for index, row in enumerate(rows):
            color = COLORS[index % len(COLORS)]
            steps = 100 * np.transpose(row.details["accuracies"])
            by_step = [mean_interval(step.tolist()) for step in steps]
            axes.plot(
                seen,
                [interval.mean for interval in by_step],
                color=color,
                linestyle=DASHES[index // len(COLORS) % len(DASHES)],
                marker=MARKERS[index % len(MARKERS)],
                ms=4,
                lw=1.3,
                label=row.name,
            )
            if math.isfinite(by_step[0].low):
                low, high = ([getattr(each, end) for each in by_step] for end in ("low", "high"))
                axes.fill_between(seen, low, high, color=color, alpha=0.13, lw=0)
        shown = 100 * np.concatenate([np.ravel(row.details["accuracies"]) for row in rows])
        room = 0.06 * (float(np.ptp(shown)) or 1.0)
        axes.set(
            xlabel="classes seen",
            ylabel="accuracy on the classes seen %",
            # A band of two seeds would leave nothing of the curves.
            ylim=(max(-1.0, shown.min() - room), min(101.0, shown.max() + room)),
        )
        if len(seen) <= 13:
            axes.set_xticks(seen)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=columns)
    return figure


def old_new_figure(rows: Sequence[Row]) -> Figure:
    """How much each method prefers new classes to old ones, or old to new, after the last task.

    Means over seeds large, single seeds faint; ``rows`` are of two or more tasks.
    """
    check_rows(rows)
    if len(rows[0].shared["class_sizes"]) < 2:
        raise ValueError("rows must be of two or more tasks; got one, where no class is old")
    with style():
        longest = max(len(row.name) for row in rows)
        figure = new_figure(4.4 + 0.07 * longest, 1.0 + 0.4 * len(rows))
        axes = figure.subplots()
        for measure, name, color, marker, shift in (
            ("old_as_new", "old taken for new", WRONG, "o", -0.14),
            ("new_as_old", "new taken for old", COLORS[0], "s", 0.14),
        ):
            shares = [[100 * value for value in row.values[measure]] for row in rows]
            places = np.arange(len(rows)) + shift
            for y, values in zip(places, shares, strict=True):
                axes.plot(values, [y] * len(values), marker, color=color, alpha=0.3, ms=4, mew=0)
            means = [float(np.mean(values)) for values in shares]
            axes.plot(means, places, marker, color=color, ms=5.5, mec="white", mew=0.6, label=name)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set(xlabel="test examples of the old, or of the new, classes %")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def tasks_figure(row: Row) -> Figure:
    """One method's accuracy on each task after each task, mean over seeds."""
    return task_matrix_figure(np.mean(row.details["matrices"], axis=0))


def taken_for_figure(row: Row) -> Figure:
    """Which task's classes examples are taken for after one method's last task, all seeds."""
    confusion = np.sum(row.details["task_confusions"], axis=0)
    return task_confusion_figure(confusion, [1] * len(confusion))
