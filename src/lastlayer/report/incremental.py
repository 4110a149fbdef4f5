"""Methods that learn classes task by task, side by side over seeds: results and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from lastlayer.report.format_cells import difference_cell, spread_cell
from lastlayer.report.text_table import TextTable, find_baseline

#: Fields with one entry per seed.
PER_SEED = (
    "matrices",
    "accuracies",
    "average_incremental_accuracy",
    "final_accuracy",
    "forgetting",
    "backward_transfer",
    "old_as_new",
    "new_as_old",
    "task_confusions",
    "seconds",
)


@dataclass(frozen=True)
class IncrementalRow:
    """One method's results on classes that arrive in T tasks, one entry per seed in each list.

    What each measure averages is said at :class:`lastlayer.evaluation.TaskMatrix`.

    Attributes:
        method: its name.
        seeds: the seeds run.
        class_sizes: classes of each task, the base first.
        matrices: (T, T) accuracies on each task (columns) after each task (rows), in [0, 1]; NaN
            above the diagonal.
        accuracies: T accuracies over all classes seen, after each task.
        average_incremental_accuracy: their mean, the base step included.
        final_accuracy: the last of them.
        forgetting: fall from the best accuracy on a task to the final one, at least 0; NaN for a
            single task.
        backward_transfer: change of the accuracy on a task since it was learned; NaN for one task.
        old_as_new: after the last task, the share of the earlier tasks' examples that are taken
            for a class of the last; NaN for a single task.
        new_as_old: the share of the last task's examples that are taken for an earlier class.
        task_confusions: (T, T) counts of each task's examples (rows) taken for each task's classes
            (columns), after the last task.
        seconds: training times.

    Raises:
        ValueError: if a seed comes twice or a list has another length.
    """

    method: str
    seeds: list[int]
    class_sizes: list[int]
    matrices: list[list[list[float]]]
    accuracies: list[list[float]]
    average_incremental_accuracy: list[float]
    final_accuracy: list[float]
    forgetting: list[float]
    backward_transfer: list[float]
    old_as_new: list[float]
    new_as_old: list[float]
    task_confusions: list[list[list[int]]]
    seconds: list[float]

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(
                f"seeds of {self.method!r} must be distinct, one or more; got {self.seeds}"
            )
        for name in PER_SEED:
            if len(getattr(self, name)) != len(self.seeds):
                raise ValueError(
                    f"{name} of {self.method!r} must hold {len(self.seeds)} entries, one per seed; "
                    f"got {len(getattr(self, name))}"
                )
        tasks = len(self.class_sizes)
        for name, shape in (
            ("matrices", (tasks, tasks)),
            ("accuracies", (tasks,)),
            ("task_confusions", (tasks, tasks)),
        ):
            for seed, values in zip(self.seeds, getattr(self, name), strict=True):
                if np.shape(values) != shape:
                    raise ValueError(
                        f"{name} of {self.method!r} must be {shape} for {tasks} tasks; seed {seed} "
                        f"has {np.shape(values)}"
                    )

    def mean_matrix(self) -> list[list[float]]:
        """Return the (T, T) mean of the matrices over the seeds; NaN where one has NaN."""
        mean: list[list[float]] = np.mean(self.matrices, axis=0).tolist()
        return mean

    def pooled_confusion(self) -> list[list[int]]:
        """Return the (T, T) sum of the tables of tasks over the seeds."""
        total: list[list[int]] = np.sum(self.task_confusions, axis=0).tolist()
        return total


def incremental_table(rows: Sequence[IncrementalRow], baseline: str | None = None) -> TextTable:
    """Average incremental and final accuracy, forgetting and bias, with paired differences.

    Args:
        rows: one ``IncrementalRow`` per method, all of the same tasks.
        baseline: method to compare with; the first row's if None.

    Returns:
        A ``TextTable``; its note says what is averaged.

    Raises:
        ValueError: if ``rows`` is empty, a method comes twice, the tasks differ, or ``baseline`` is
            not among the methods.
    """
    names = [row.method for row in rows]
    baseline = find_baseline(names, baseline, "method")
    check_same_tasks(rows)
    reference = rows[names.index(baseline)]
    cells = [
        (
            row.method,
            str(len(row.seeds)),
            spread_cell(row.average_incremental_accuracy),
            spread_cell(row.final_accuracy),
            spread_cell(row.forgetting),
            spread_cell(row.backward_transfer),
            spread_cell(row.old_as_new),
            spread_cell(row.seconds, 1.0, 1),
            difference_cell(row, reference, attrgetter("average_incremental_accuracy")),
            difference_cell(row, reference, attrgetter("final_accuracy")),
        )
        for row in rows
    ]
    columns = (
        "Method",
        "Seeds",
        "AIA %",
        "Final %",
        "Forgetting",
        "Backward transfer",
        "Old taken for new %",
        "Seconds",
        f"Δ AIA to {baseline}",
        f"Δ final to {baseline}",
    )
    return TextTable(columns, tuple(cells), _note(rows[0].class_sizes))


def check_same_tasks(rows: Sequence[IncrementalRow]) -> None:
    """Raise ``ValueError`` unless there is a row and all have tasks of the same sizes."""
    if not rows:
        raise ValueError("rows must not be empty")
    for row in rows:
        if list(row.class_sizes) != list(rows[0].class_sizes):
            raise ValueError(
                f"rows must be of the same tasks; {rows[0].method!r} has {rows[0].class_sizes} "
                f"classes, {row.method!r} {row.class_sizes}"
            )


def _note(sizes: Sequence[int]) -> str:
    return (
        f"{_describe(sizes)}. An accuracy is over all test examples of the classes seen so far, "
        "without being told the task: examples count alike, not tasks. AIA (average incremental "
        "accuracy): its mean over all steps, the base included. Final: after the last step. "
        "Forgetting: the best accuracy on a task at any step minus the final one, in points, mean "
        "over all tasks but the last, lower is better; backward transfer: the final minus that "
        "when the task was learned, higher is better. Old taken for new: examples of earlier "
        "tasks' classes taken for a class of the last task, at the end. ± standard deviation over "
        "seeds. Δ: paired difference in points, seed by seed, with its 95 % Student-t interval; "
        "above 0 is better."
    )


def _describe(sizes: Sequence[int]) -> str:
    base, *steps = sizes
    if len(set(sizes)) == 1:
        return f"Tasks: {len(sizes)} of {base} classes"
    if len(set(steps)) == 1:
        return f"Tasks: a base of {base} classes, then {len(steps)} of {steps[0]}"
    return f"Tasks: {len(sizes)}, of {', '.join(map(str, sizes))} classes"
