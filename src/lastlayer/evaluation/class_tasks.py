"""What a classifier still knows while classes arrive task by task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lastlayer._checks import check_count
from lastlayer._files import with_null

#: A table of counts: a tensor, or nested lists as a run's summary holds them.
Counts = Tensor | Sequence[Sequence[int]]


@dataclass(frozen=True, eq=False)
class TaskMatrix:
    r"""Accuracy on every task after every task, and the measures that follow from it.

    With T tasks, of which the first is the base, :math:`R_{tj}` is the accuracy on the test
    examples of task j's classes after task t was learned, predicting among all classes seen by
    then: nobody says which task an example is of. Classes that have not arrived are not tested.

    Tasks are counted from 0. What averages over examples weighs a class by its test examples, so
    that on a balanced test set all classes seen count alike, however many a task brought; what
    averages over tasks (forgetting, backward transfer) weighs tasks alike. A share of no example
    is NaN, not 0.

    Attributes:
        matrix: (T, T) float64 R in [0, 1], lower triangular: NaN above the diagonal, and in the
            column of a task without test examples.
        examples: test examples of each task's classes; the base has at least one.
        sizes: classes of each task.
        old_as_new: after each task, the share of the test examples of all earlier tasks' classes
            that are taken for a class of this task; NaN after the base.
        new_as_old: after each task, the share of its classes' test examples that are taken for a
            class of an earlier task; NaN after the base.

    Raises:
        ValueError: if a shape, a number of entries or a value does not fit.

    Example:
        >>> after_base, after_step = [[9, 1], [2, 8]], [[7, 0, 3], [0, 6, 4], [0, 1, 9]]
        >>> tasks = TaskMatrix.from_confusions([after_base, after_step], sizes=[2, 1])
        >>> [[round(value, 2) for value in row] for row in tasks.matrix.tolist()]
        [[0.85, nan], [0.65, 0.9]]
        >>> round(tasks.final_accuracy, 3), round(tasks.forgetting, 2), tasks.old_as_new[1]
        (0.733, 0.2, 0.35)
    """

    matrix: Tensor
    examples: tuple[int, ...]
    sizes: tuple[int, ...]
    old_as_new: tuple[float, ...]
    new_as_old: tuple[float, ...]

    def __post_init__(self) -> None:
        tasks = len(self.sizes)
        if self.matrix.shape != (tasks, tasks) or not tasks:
            raise ValueError(
                f"matrix must have shape ({tasks}, {tasks}), one row and column for each of sizes; "
                f"got {tuple(self.matrix.shape)}"
            )
        for name in ("examples", "old_as_new", "new_as_old"):
            if len(getattr(self, name)) != tasks:
                raise ValueError(
                    f"{name} must hold {tasks} values, one per task; got {len(getattr(self, name))}"
                )
        _check_sizes(self.sizes)
        if min(self.examples) < 0 or self.examples[0] < 1:
            raise ValueError(
                f"examples must be at least 0, and at least 1 of the base; got {self.examples}"
            )
        object.__setattr__(self, "matrix", self.matrix.detach().cpu().double())
        tested = torch.ones(tasks, tasks, dtype=torch.bool).tril() & (
            torch.tensor(self.examples) > 0
        )
        inside = (self.matrix >= 0) & (self.matrix <= 1)
        if not torch.equal(inside, tested) or not torch.equal(self.matrix.isnan(), ~tested):
            raise ValueError(
                "matrix must hold accuracies in [0, 1] up to the diagonal, and NaN above it and "
                "for tasks without test examples"
            )

    @classmethod
    def from_confusions(cls, confusions: Sequence[Counts], sizes: Sequence[int]) -> TaskMatrix:
        """Return the measures of tables of labels and predictions, one after each task.

        Args:
            confusions: for each task t the (K_t, K_t) counts of
                :func:`lastlayer.evaluation.confusion_counts` over the test examples of the K_t
                classes seen, classes in the order of arrival. A class has the same test examples
                in every table.
            sizes: classes of each task; K_t is the sum of the first t + 1.

        Raises:
            ValueError: if a table does not fit the sizes, holds other than counts, a class has
                another number of examples than in an earlier table, or the base has none.
        """
        _check_sizes(sizes)
        if len(confusions) != len(sizes):
            raise ValueError(
                f"confusions must hold {len(sizes)} tables, one after each task; "
                f"got {len(confusions)}"
            )
        matrix = torch.full((len(sizes), len(sizes)), math.nan, dtype=torch.float64)
        old_as_new, new_as_old = [math.nan], [math.nan]
        tables = [
            _counts(f"confusions[{task}]", table, sizes[: task + 1])
            for task, table in enumerate(confusions)
        ]
        for task, table in enumerate(tables):
            here, there = table.sum(dim=1), tables[-1].sum(dim=1)[: len(table)]
            if not torch.equal(here, there):
                row = int((here != there).nonzero()[0])
                raise ValueError(
                    "confusions must be of the same test examples: class "
                    f"{row} in the order of arrival has {int(here[row])} in confusions[{task}], "
                    f"{int(there[row])} in the last"
                )
            members = _members(sizes[: task + 1])
            taken, examples = members.T @ table @ members, table.sum(dim=1) @ members
            matrix[task, : task + 1] = (table.diagonal() @ members) / examples
            if task:
                old_as_new.append(float(taken[:-1, -1].sum() / examples[:-1].sum()))
                new_as_old.append(float(taken[-1, :-1].sum() / examples[-1]))
        return cls(
            matrix,
            tuple(int(count) for count in tables[-1].sum(dim=1) @ _members(sizes)),
            tuple(sizes),
            tuple(old_as_new),
            tuple(new_as_old),
        )

    def accuracy(self, task: int) -> float:
        r"""Return the share of right predictions after ``task``, over all classes seen.

        .. math:: A_t = \frac{\sum_{j \le t} n_j R_{tj}}{\sum_{j \le t} n_j}

        with the :math:`n_j` test examples of task j: every example counts alike. It is not the
        mean over tasks, which would count the classes of a large base less.

        Args:
            task: the last task learned, in [0, T).
        """
        if not 0 <= task < len(self.sizes):
            raise ValueError(f"task must lie in [0, {len(self.sizes) - 1}]; got {task!r}")
        return self._pooled(task, task + 1)

    @property
    def accuracies(self) -> tuple[float, ...]:
        """The accuracy over all classes seen, after each task."""
        return tuple(self.accuracy(task) for task in range(len(self.sizes)))

    @property
    def average_incremental_accuracy(self) -> float:
        r"""Mean of :attr:`accuracies` over all T steps, the base step included.

        .. math:: \mathrm{AIA} = \frac1T \sum_{t=0}^{T-1} A_t

        Steps count alike; within a step every test example of the classes seen does.
        """
        return sum(self.accuracies) / len(self.sizes)

    @property
    def final_accuracy(self) -> float:
        """The accuracy over all classes, after the last task."""
        return self.accuracy(len(self.sizes) - 1)

    @property
    def forgetting(self) -> float:
        r"""How far the accuracy on a task fell from its best, mean over all tasks but the last.

        .. math:: F = \frac{1}{T-1} \sum_{j < T-1} \bigl( \max_{t \ge j} R_{tj} - R_{T-1,j} \bigr)

        The best is over all rows, the final one included, so that F is never negative. Tasks count
        alike; those without test examples are left out. NaN for a single task, which nothing could
        make forget. Part of F is not loss of knowledge: with every task there are more classes to
        confuse an example with.
        """
        before = self.matrix[:, :-1]
        best = before.nan_to_num(-math.inf).amax(dim=0)
        return _mean(best - before[-1])

    @property
    def backward_transfer(self) -> float:
        r"""How the accuracy on a task changed since it was learned, mean over tasks but the last.

        .. math:: B = \frac{1}{T-1} \sum_{j < T-1} ( R_{T-1,j} - R_{jj} ) \ge -F

        Negative where later tasks harmed. Averaged as :attr:`forgetting`, and NaN as it.
        """
        return _mean(self.matrix[-1, :-1] - self.matrix.diagonal()[:-1])

    @property
    def new_accuracy(self) -> tuple[float, ...]:
        """After each task, the accuracy on its own classes: the diagonal of R."""
        return tuple(self.matrix.diagonal().tolist())

    @property
    def old_accuracy(self) -> tuple[float, ...]:
        """After each task, the accuracy on all earlier tasks' examples; NaN after the base."""
        return tuple(self._pooled(task, task) for task in range(len(self.sizes)))

    def as_dict(self) -> dict[str, Any]:
        """Return the matrix and all measures by name, as JSON has them: None for NaN."""
        names = (
            "sizes",
            "examples",
            "matrix",
            "accuracies",
            "average_incremental_accuracy",
            "final_accuracy",
            "forgetting",
            "backward_transfer",
            "new_accuracy",
            "old_accuracy",
            "old_as_new",
            "new_as_old",
        )
        measures = {name: getattr(self, name) for name in names} | {"matrix": self.matrix.tolist()}
        return dict(with_null(measures, math.isnan))

    def _pooled(self, task: int, stop: int) -> float:
        """Return the accuracy after ``task`` over all examples of the tasks before ``stop``."""
        count = torch.tensor(self.examples[:stop], dtype=torch.float64)
        if not bool(count.any()):
            return math.nan
        return float(self.matrix[task, :stop].nan_to_num() @ count / count.sum())


def task_confusion(confusion: Counts, sizes: Sequence[int]) -> Tensor:
    """Count how often examples of each task's classes are taken for a class of each task.

    Args:
        confusion: (K, K) counts, rows are labels, classes in the order of arrival.
        sizes: classes of each of T tasks, of sum K.

    Returns:
        (T, T) int64; rows are the labels' tasks. The diagonal holds right predictions and those
        that are wrong within a task.

    Raises:
        ValueError: if the table does not fit the sizes or holds other than counts.

    >>> task_confusion([[7, 0, 3], [0, 6, 4], [0, 1, 9]], [2, 1]).tolist()
    [[13, 7], [1, 9]]
    """
    _check_sizes(sizes)
    members = _members(sizes)
    return (members.T @ _counts("confusion", confusion, sizes) @ members).to(torch.int64)


def _members(sizes: Sequence[int]) -> Tensor:
    """Return the (K, T) float64 table with 1 where a class is of a task."""
    task = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return torch.nn.functional.one_hot(task, len(sizes)).double()


def _check_sizes(sizes: Sequence[int]) -> None:
    if not len(sizes):
        raise ValueError("sizes must hold at least one task; got none")
    for task, size in enumerate(sizes):
        check_count(f"sizes[{task}]", size)


def _counts(name: str, confusion: Counts, sizes: Sequence[int]) -> Tensor:
    table = torch.as_tensor(confusion).detach().cpu().double()
    classes = sum(sizes)
    if table.shape != (classes, classes):
        raise ValueError(
            f"{name} must have shape ({classes}, {classes}), of the classes seen; "
            f"got {tuple(table.shape)}"
        )
    if not bool(((table >= 0) & (table == table.round()) & table.isfinite()).all()):
        raise ValueError(f"{name} must hold counts: whole numbers of at least 0")
    return table


def _mean(values: Tensor) -> float:
    return float(values[~values.isnan()].mean())
