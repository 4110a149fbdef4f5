"""Long-tailed comparisons drawn: accuracy by class, and where the rare classes go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lastlayer.report.rows import Row, check_rows
from lastlayer.report.style import COLORS, MARKERS, MUTED, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def class_accuracy_figure(rows: Sequence[Row]) -> Figure:
    """Accuracy of each class against its number of training examples, mean over seeds.

    Classes are matched over seeds by their rank, for which class is rare may change with the seed.
    ``rows`` are of the table of groups, one per head.
    """
    check_rows(rows)
    with style():
        figure = new_figure(6.2, 3.8)
        axes = figure.subplots()
        for index, row in enumerate(rows):
            counts, accuracy = _by_rank(row)
            axes.plot(
                counts,
                100 * accuracy,
                marker=MARKERS[index % len(MARKERS)],
                ms=4,
                lw=1.0,
                color=COLORS[index % len(COLORS)],
                label=row.name,
            )
        axes.set(
            xlabel="training examples of the class",
            ylabel="accuracy in the class %",
            xscale="log",
            ylim=(-3, 103),
        )
        axes.grid()
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def tail_confusion_figure(rows: Sequence[Row]) -> Figure:
    """What the rarest group's examples are taken for, mean over seeds: a bar of shares per head."""
    check_rows(rows)
    groups = rows[0].shared["groups"]
    last = groups[-1]
    with style():
        longest = max(len(row.name) for row in rows)
        figure = new_figure(4.4 + 0.07 * longest, 1.2 + 0.34 * len(rows))
        axes = figure.subplots()
        confusions = [np.asarray(row.details["group_confusion"]) for row in rows]
        right = np.array([np.nanmean(row.values["rare_accuracy"]) for row in rows])
        parts = {f"{last}, right": right}
        for column, name in reversed(list(enumerate(groups))):
            share = np.array([np.nanmean(table[:, -1, column]) for table in confusions])
            parts[f"another {name}" if name == last else name] = (
                share - right if name == last else share
            )
        start = np.zeros(len(rows))
        for index, (name, share) in enumerate(parts.items()):
            color = COLORS[2] if index == 0 else (COLORS[5], COLORS[4], COLORS[1], MUTED)[index - 1]
            axes.barh(range(len(rows)), 100 * share, left=start, color=color, label=name)
            start += 100 * share
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set(xlabel=f"test examples of the group {last} %, by predicted class", xlim=(0, 100))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        figure.legend(loc="outside lower center", ncols=len(parts))
    return figure


def _by_rank(row: Row) -> tuple[np.ndarray, np.ndarray]:
    counts = np.asarray(row.details["class_counts"], dtype=np.float64)
    order = np.argsort(-counts, axis=1, kind="stable")
    table = np.take_along_axis(np.asarray(row.details["class_accuracy"], np.float64), order, axis=1)
    known = ~np.isnan(table).all(axis=0)
    mean_counts = np.take_along_axis(counts, order, axis=1).mean(axis=0)
    return mean_counts[known], np.nanmean(table[:, known], axis=0)
