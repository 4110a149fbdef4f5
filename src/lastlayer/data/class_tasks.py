"""Classes that arrive task by task: in which order, in which groups, which row each one gets."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import index

import torch
from torch import Tensor

from lastlayer._checks import check_choice, check_count, check_labels, is_whole

#: The named orders: a permutation by the seed, or label after label.
ORDERS = ("random", "label")


def class_order(
    num_classes: int, *, order: str | Sequence[int] = "random", seed: int = 0
) -> tuple[int, ...]:
    """Return the order in which classes arrive.

    A random order depends on ``num_classes`` and ``seed`` alone: it is drawn by a torch generator
    of its own on the CPU, so that every method, stage and machine sees the same.

    Args:
        num_classes: K, at least 1.
        order: ``"random"``, ``"label"`` for 0, 1, ..., or the K labels in the order wanted.
        seed: of the random order.

    Returns:
        The K labels, the first to arrive first.

    Raises:
        TypeError: if a label is not an integer.
        ValueError: if ``order`` is another word, or does not hold every label once.

    Examples:
        >>> class_order(5, seed=1)
        (0, 4, 2, 3, 1)
        >>> class_order(3, order=[2, 0, 1])
        (2, 0, 1)
    """
    check_count("num_classes", num_classes)
    if isinstance(order, str):
        check_choice("order", order, ORDERS)
        if order == "label":
            return tuple(range(num_classes))
        generator = torch.Generator().manual_seed(seed)
        return tuple(torch.randperm(num_classes, generator=generator).tolist())
    labels = _labels("order", order)
    wanted = f"order must hold each of the labels 0 to {num_classes - 1} once"
    _check_range(wanted, labels, num_classes)
    if twice := _repeated(labels):
        raise ValueError(f"{wanted}; label {twice[0]} comes twice")
    if missing := sorted(set(range(num_classes)) - set(labels)):
        raise ValueError(f"{wanted}; label {missing[0]} is missing")
    return labels


@dataclass(frozen=True)
class ClassTasks:
    """Classes in groups that arrive one after another.

    Every class keeps its label in the data. Its row is its place in the order of arrival: a head
    that grows by a task's classes has them in the rows that follow those it had, and no label is
    used twice.

    Args:
        groups: the labels of each task, in the order of arrival; at least one task.

    Raises:
        TypeError: if a label is not an integer.
        ValueError: if there is no task, a task has no class, a label is negative or comes twice.

    Examples:
        >>> tasks = ClassTasks(((7, 2), (5,)))
        >>> tasks.order, tasks.sizes, tasks.seen(0), tasks.task_of(5)
        ((7, 2, 5), (2, 1), (7, 2), 1)
        >>> tasks.to_rows(torch.tensor([5, 2, 5])).tolist()
        [2, 1, 2]
    """

    groups: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        groups = tuple(_labels(f"groups[{t}]", group) for t, group in enumerate(self.groups))
        object.__setattr__(self, "groups", groups)
        if not groups:
            raise ValueError("groups must hold at least one task; got none")
        if () in groups:
            raise ValueError(f"groups[{groups.index(())}] must hold at least one class; got none")
        if min(self.order) < 0:
            raise ValueError(f"groups must hold labels of at least 0; got {min(self.order)}")
        if twice := _repeated(self.order):
            places = [t for t, group in enumerate(groups) for label in group if label == twice[0]]
            raise ValueError(
                "groups must hold every label at most once; label "
                f"{twice[0]} is in groups[{places[0]}] and groups[{places[1]}]"
            )

    @classmethod
    def from_groups(cls, groups: Iterable[Iterable[int]], num_classes: int) -> ClassTasks:
        """Return tasks of given groups, whose labels must be below ``num_classes``.

        Args:
            groups: the labels of each task, in the order of arrival; not every class need come.
            num_classes: K, classes in the data.

        Raises:
            TypeError: if a label is not an integer.
            ValueError: if a label is out of range or comes twice, or a group is empty.

        Example:
            >>> ClassTasks.from_groups([[3, 0], [2]], num_classes=4).num_tasks
            2
        """
        check_count("num_classes", num_classes)
        tasks = cls(tuple(tuple(group) for group in groups))
        wanted = f"groups must hold labels in [0, {num_classes - 1}]"
        _check_range(wanted, tasks.order, num_classes)
        return tasks

    @property
    def order(self) -> tuple[int, ...]:
        """All labels in the order of arrival; the class of each row."""
        return tuple(label for group in self.groups for label in group)

    @property
    def num_tasks(self) -> int:
        """The number of tasks, the base included."""
        return len(self.groups)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of classes of each task."""
        return tuple(map(len, self.groups))

    def seen(self, task: int) -> tuple[int, ...]:
        """Return the labels that have arrived once ``task``, counted from 0, has been learned."""
        if not 0 <= task < self.num_tasks:
            raise ValueError(f"task must lie in [0, {self.num_tasks - 1}]; got {task!r}")
        return tuple(label for group in self.groups[: task + 1] for label in group)

    def row_of(self, label: int) -> int:
        """Return the row of a class, which is its place in the order of arrival."""
        if label not in self.order:
            raise ValueError(f"label must be of a class of the tasks; {label!r} is in none")
        return self.order.index(label)

    def task_of(self, label: int) -> int:
        """Return the task, counted from 0, with which a class arrives."""
        return bisect_right(list(accumulate(self.sizes)), self.row_of(label))

    def to_rows(self, target: Tensor) -> Tensor:
        """Turn labels into rows.

        Args:
            target: (*) int64 labels of classes of the tasks.

        Returns:
            (*) int64 rows in [0, classes in all tasks), on the device of ``target``.

        Raises:
            TypeError: if the dtype is another.
            ValueError: if a label is in no task.
        """
        _check_int64("target", target)
        rows = torch.full((max(self.order) + 1,), -1, device=target.device)
        rows[list(self.order)] = torch.arange(len(self.order), device=target.device)
        inside = (target >= 0) & (target < len(rows))
        found = torch.where(inside, rows[target.clamp(0, len(rows) - 1)], -1)
        if bool((found < 0).any()):
            label = int(target[found < 0][0])
            raise ValueError(f"target must hold labels of the tasks; label {label} is in none")
        return found

    def to_labels(self, rows: Tensor) -> Tensor:
        """Turn rows, such as predictions of a grown head, back into labels.

        Args:
            rows: (*) int64 rows in [0, classes in all tasks).

        Returns:
            (*) int64 labels, on the device of ``rows``.

        Raises:
            TypeError: if the dtype is another.
            ValueError: if a row is out of range.
        """
        _check_int64("rows", rows)
        labels = torch.tensor(self.order, device=rows.device)
        outside = (rows < 0) | (rows >= len(labels))
        if bool(outside.any()):
            row = int(rows[outside][0])
            raise ValueError(f"rows must lie in [0, {len(labels) - 1}]; got {row}")
        return labels[rows]


def class_tasks(
    num_classes: int,
    *,
    base: int,
    steps: int,
    order: str | Sequence[int] = "random",
    seed: int = 0,
) -> ClassTasks:
    """Split classes into a base and steps of equal size.

    "50 + 5 x 10" is ``base=50, steps=5`` of 100 classes; "5 x 2" is ``base=2, steps=4`` of 10.

    Args:
        num_classes: K.
        base: classes of the first task, in [1, K].
        steps: tasks after it, which share the other classes evenly; 0 if there are none.
        order: ``"random"``, ``"label"``, or the K labels in the order wanted.
        seed: of the random order.

    Returns:
        The ``1 + steps`` tasks.

    Raises:
        TypeError: if a label is not an integer.
        ValueError: if the classes after the base cannot be shared evenly (the message says which
            numbers of steps fit), or an argument is out of range.

    Example:
        >>> class_tasks(6, base=2, steps=2, order="label").groups
        ((0, 1), (2, 3), (4, 5))
    """
    labels = class_order(num_classes, order=order, seed=seed)
    check_count("base", base)
    if base > num_classes:
        raise ValueError(f"base must be at most the {num_classes} classes there are; got {base}")
    rest = num_classes - base
    fitting = [count for count in range(1, rest + 1) if rest % count == 0] or [0]
    if steps not in fitting or not is_whole(steps):
        raise ValueError(
            f"steps must share the {rest} classes after the base evenly; got {steps!r}, of which "
            f"these fit: {', '.join(map(str, fitting))}"
        )
    size = rest // max(1, steps)
    starts = [base + step * size for step in range(steps)]
    return ClassTasks((labels[:base], *(labels[start : start + size] for start in starts)))


def task_indices(target: Tensor, classes: Sequence[int]) -> Tensor:
    """Find the examples of some classes.

    Args:
        target: (N,) integer labels.
        classes: labels wanted, such as a group of :class:`ClassTasks`; at least one.

    Returns:
        (n,) int64 indices, rising, on the device of ``target``; none where no example is of these
        classes.

    Raises:
        TypeError: if labels are not integers.
        ValueError: if ``target`` has another shape or ``classes`` is empty.

    Example:
        >>> task_indices(torch.tensor([4, 1, 4, 0]), (0, 4))
        tensor([0, 2, 3])
    """
    check_labels("target", target, target.numel())
    wanted = _labels("classes", classes)
    if not wanted:
        raise ValueError("classes must hold at least one label; got none")
    return torch.isin(target, torch.tensor(wanted, device=target.device)).nonzero().flatten()


def _labels(name: str, labels: Iterable[int]) -> tuple[int, ...]:
    """Return labels as plain integers; NumPy's and one-element tensors are taken too."""
    try:
        return tuple(index(label) for label in labels)
    except TypeError:
        raise TypeError(f"{name} must hold integer labels; got {labels!r}") from None


def _repeated(labels: Sequence[int]) -> list[int]:
    return [label for label, count in Counter(labels).items() if count > 1]


def _check_range(wanted: str, labels: Sequence[int], num_classes: int) -> None:
    for label in labels:
        if not 0 <= label < num_classes:
            raise ValueError(f"{wanted}; got {label}")


def _check_int64(name: str, tensor: Tensor) -> None:
    if tensor.dtype != torch.int64:
        raise TypeError(f"{name} must hold int64 class indices; got dtype {tensor.dtype}")
