"""Task by task as heat maps: what is still known after each task, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lastlayer.evaluation.class_tasks import task_confusion
from lastlayer.report.heat_maps import heat_map
from lastlayer.report.style import WRONG, as_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def task_matrix_figure(
    matrix: ArrayLike | Tensor, task_names: Sequence[str] | None = None, *, title: str = ""
) -> Figure:
    """Heat map of the accuracy on every task after every task; blank above the diagonal.

    Args:
        matrix: (T, T) accuracies in [0, 1], such as ``TaskMatrix.matrix``; NaN is left blank.
        task_names: T names; 1 to T if None.
        title: heading.

    Returns:
        A matplotlib figure, in per cent; dark is 100 in every such figure.

    Raises:
        ValueError: if the matrix is not square or not of accuracies, or ``task_names`` has another
            length.

    >>> figure = task_matrix_figure([[0.9, float("nan")], [0.6, 0.8]])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['90.0', '60.0', '80.0']
    """
    array = as_array("matrix", matrix, 2)
    if array.shape[0] != array.shape[1] or ((array < 0) | (array > 1)).any():
        raise ValueError(
            f"matrix must be square with accuracies in [0, 1]; got shape {array.shape}, largest "
            f"entry {np.nanmax(array):g}"
        )
    return heat_map(
        100 * array,
        _task_names(task_names, len(array)),
        top=100.0,
        text=_percent,
        title=title,
        x_label="accuracy on task",
        y_label="after task",
        bar_label="%",
    )


def task_confusion_figure(
    confusion: ArrayLike | Tensor,
    sizes: Sequence[int],
    task_names: Sequence[str] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Which task's classes the examples of each task are taken for, in per cent of each row.

    The frame holds old taken for new: the examples of earlier tasks that are taken for a class of
    the last. The diagonal is right or wrong within the task.

    Args:
        confusion: (K, K) counts, rows are labels, classes in the order of arrival; a (T, T) table
            of tasks goes with sizes of 1.
        sizes: classes of each of T tasks, of sum K.
        task_names: T names; 1 to T if None.
        title: heading.

    Returns:
        A matplotlib figure; the row of a task without examples is blank.

    Raises:
        ValueError: if the table does not fit the sizes or holds other than counts, or
            ``task_names`` has another length.

    >>> figure = task_confusion_figure([[7, 0, 3], [0, 6, 4], [0, 1, 9]], [2, 1])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['65.0', '35.0', '10.0', '90.0']
    """
    table = task_confusion(torch.as_tensor(confusion), sizes).double()
    shares = (100 * table / table.sum(dim=1, keepdim=True)).numpy()
    last = len(shares) - 1
    figure = heat_map(
        shares,
        _task_names(task_names, len(shares)),
        top=100.0,
        text=_percent,
        title=title,
        x_label="task of the predicted class",
        y_label="task of the label",
        bar_label="% of the row",
    )
    if last:
        from matplotlib.patches import Rectangle

        corner = (last - 0.5, -0.5)
        frame = Rectangle(corner, 1, last, fill=False, ec=WRONG, lw=1.6, clip_on=False)
        figure.axes[0].add_patch(frame)
    return figure


def _task_names(names: Sequence[str] | None, tasks: int) -> list[str]:
    if names is None:
        return [str(task + 1) for task in range(tasks)]
    if len(names) != tasks:
        raise ValueError(f"task_names must hold {tasks} names, one per task; got {len(names)}")
    return list(names)


def _percent(value: float) -> str:
    return f"{value:.0f}" if value in (0.0, 100.0) else f"{value:.1f}"
