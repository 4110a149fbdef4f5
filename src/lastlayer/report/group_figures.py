"""Long-tailed comparisons: accuracy by groups of classes, and where the rare classes go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lastlayer.report.format_cells import difference_cell, spread_cell
from lastlayer.report.style import COLORS, MARKERS, MUTED, new_figure, style
from lastlayer.report.text_table import TextTable, find_baseline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LongTailRow:
    """One head's results on long-tailed data, one value per seed in each list.

    Attributes:
        head: its name.
        seeds: the seeds run.
        groups: names of the groups of classes, the most frequent first.
        note: what the groups are.
        balanced_accuracy: mean accuracy over classes, in [0, 1].
        group_accuracy: the same within each group; NaN for a group without a test example.
        group_confusion: (G, G) shares of each group's examples (rows) taken for each group's
            classes (columns), per seed.
        class_counts: (K,) training examples, per seed.
        class_accuracy: (K,) accuracies, NaN for a class without a test example, per seed.
    """

    head: str
    seeds: list[int]
    groups: tuple[str, ...]
    note: str
    balanced_accuracy: list[float]
    group_accuracy: dict[str, list[float]]
    group_confusion: list[list[list[float]]]
    class_counts: list[list[int]]
    class_accuracy: list[list[float]]

    def confusion_into_first(self) -> list[float]:
        """Return the share of the last group's examples taken for a class of the first."""
        return [table[-1][0] for table in self.group_confusion]


def long_tail_table(rows: Sequence[LongTailRow], baseline: str | None = None) -> TextTable:
    """Balanced accuracy, accuracy by group and tail-to-head confusion, with paired differences.

    Args:
        rows: one ``LongTailRow`` per head, all of the same groups.
        baseline: head to compare with; the first row's if None.

    Returns:
        A ``TextTable``; its note says what the groups are.

    Raises:
        ValueError: if ``rows`` is empty, a head comes twice, the groups differ, or ``baseline`` is
            not among the heads.

    >>> row = LongTailRow(
    ...     "softmax", [0], ("many", "few"), "Two groups.", [0.75], {"many": [1.0], "few": [0.5]},
    ...     [[[1.0, 0.0], [0.4, 0.6]]], [[200, 2]], [[1.0, 0.5]],
    ... )
    >>> print(long_tail_table([row]).to_markdown().splitlines()[2])
    | softmax | 1 | 75.00 | 100.00 | 50.00 | 40.00 | baseline | baseline |
    """
    names = [row.head for row in rows]
    baseline = find_baseline(names, baseline)
    groups = rows[0].groups
    if any(row.groups != groups for row in rows):
        raise ValueError("rows must have the same groups of classes")
    reference = rows[names.index(baseline)]
    first, last = groups[0], groups[-1]
    cells = [
        (
            row.head,
            str(len(row.seeds)),
            spread_cell(row.balanced_accuracy),
            *(spread_cell(row.group_accuracy[name]) for name in groups),
            spread_cell(row.confusion_into_first()),
            difference_cell(row, reference, lambda each: each.balanced_accuracy),
            difference_cell(row, reference, lambda each: each.group_accuracy[last]),
        )
        for row in rows
    ]
    columns = (
        "Head",
        "Seeds",
        "Balanced accuracy %",
        *(f"{name} %" for name in groups),
        f"{last} taken for {first} %",
        f"Δ balanced to {baseline}",
        f"Δ {last} to {baseline}",
    )
    note = (
        f"{rows[0].note} Accuracy is the mean over classes, ± standard deviation over seeds. "
        "Δ: paired difference in points, seed by seed, with its 95 % Student-t interval; above 0 "
        "is better."
    )
    return TextTable(columns, tuple(cells), note)


def class_accuracy_figure(rows: Sequence[LongTailRow]) -> Figure:
    """Accuracy of each class against its number of training examples, mean over seeds.

    Classes are matched over seeds by their rank, for which class is rare may change with the seed.

    Args:
        rows: one ``LongTailRow`` per head.

    Returns:
        A matplotlib figure with a logarithmic horizontal axis.

    Raises:
        ValueError: if ``rows`` is empty.
    """
    if not rows:
        raise ValueError("rows must not be empty")
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
                label=row.head,
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


def tail_confusion_figure(rows: Sequence[LongTailRow]) -> Figure:
    """What the rarest group's examples are taken for, by head: one bar of shares each.

    Args:
        rows: one ``LongTailRow`` per head, all of the same groups.

    Returns:
        A matplotlib figure; mean over seeds.

    Raises:
        ValueError: if ``rows`` is empty or the groups differ.
    """
    if not rows or any(row.groups != rows[0].groups for row in rows):
        raise ValueError("rows must not be empty and have the same groups of classes")
    groups = rows[0].groups
    last = groups[-1]
    with style():
        longest = max(len(row.head) for row in rows)
        figure = new_figure(4.4 + 0.07 * longest, 1.2 + 0.34 * len(rows))
        axes = figure.subplots()
        right = np.array([np.nanmean(row.group_accuracy[last]) for row in rows])
        parts = {f"{last}, right": right}
        for column, name in reversed(list(enumerate(groups))):
            share = np.array([np.nanmean([t[-1][column] for t in r.group_confusion]) for r in rows])
            parts[f"another {name}" if name == last else name] = (
                share - right if name == last else share
            )
        start = np.zeros(len(rows))
        for index, (name, share) in enumerate(parts.items()):
            color = COLORS[2] if index == 0 else (COLORS[5], COLORS[4], COLORS[1], MUTED)[index - 1]
            axes.barh(range(len(rows)), 100 * share, left=start, color=color, label=name)
            start += 100 * share
        axes.set_yticks(range(len(rows)), [row.head for row in rows])
        axes.set(xlabel=f"test examples of the group {last} %, by predicted class", xlim=(0, 100))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        figure.legend(loc="outside lower center", ncols=len(parts))
    return figure


def _by_rank(row: LongTailRow) -> tuple[np.ndarray, np.ndarray]:
    counts, accuracies = [], []
    for count, accuracy in zip(row.class_counts, row.class_accuracy, strict=True):
        order = np.argsort(-np.asarray(count), kind="stable")
        counts.append(np.asarray(count, dtype=np.float64)[order])
        accuracies.append(np.asarray(accuracy, dtype=np.float64)[order])
    table = np.stack(accuracies)
    known = ~np.isnan(table).all(axis=0)
    return np.mean(counts, axis=0)[known], np.nanmean(table[:, known], axis=0)
