"""Tables of numbers as colors: classes or tasks taken for each other, accuracy task by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lastlayer.evaluation.class_tasks import task_confusion
from lastlayer.report.style import (
    WRONG,
    Array,
    as_array,
    check_class_names,
    class_ticks,
    new_figure,
    style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANNOTATED = 12  # rows up to which the numbers are written in


def confusion_figure(
    matrix: ArrayLike | Tensor,
    class_names: Sequence[str] | None = None,
    *,
    title: str = "",
    x_label: str = "predicted class",
    y_label: str = "label",
) -> Figure:
    """Heat map of a K by K matrix, with its numbers written in up to 12 classes.

    Args:
        matrix: (K, K) counts or shares of at least 0; NaN is left blank.
        class_names: K names; the class indices if None.
        title: heading.
        x_label: what the columns are.
        y_label: what the rows are.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: if ``matrix`` is not square, empty or holds a negative number, or
            ``class_names`` has another length.

    >>> figure = confusion_figure([[9, 1], [2, 8]], ["cat", "dog"])
    >>> figure.axes[0].images[0].get_array().tolist()
    [[9.0, 1.0], [2.0, 8.0]]
    """
    array = as_array("matrix", matrix, 2)
    size = len(array)
    if array.shape != (size, size) or (array < 0).any():
        raise ValueError(
            f"matrix must be square with entries of at least 0; got shape {array.shape}"
        )
    names = check_class_names(class_names, size)
    top = float(np.nanmax(array, initial=0.0)) or 1.0
    return _heat_map(array, names, top=top, title=title, x_label=x_label, y_label=y_label)


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
    return _heat_map(
        100 * array,
        _task_names(task_names, len(array)),
        percent="%",
        title=title,
        x_label="accuracy on task",
        y_label="after task",
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
    figure = _heat_map(
        shares,
        _task_names(task_names, len(shares)),
        percent="% of the row",
        title=title,
        x_label="task of the predicted class",
        y_label="task of the label",
    )
    if last:
        from matplotlib.patches import Rectangle

        corner = (last - 0.5, -0.5)
        frame = Rectangle(corner, 1, last, fill=False, ec=WRONG, lw=1.6, clip_on=False)
        figure.axes[0].add_patch(frame)
    return figure


def _heat_map(
    array: Array,
    names: list[str],
    *,
    title: str,
    x_label: str,
    y_label: str,
    top: float = 100.0,
    percent: str = "",
) -> Figure:
    """Draw a square (K, K) table with K names; NaN is left blank, ``top`` has the darkest color.

    A table too large for its numbers has a color bar; ``percent`` is its label, if they are such.
    """
    size = len(array)
    with style():
        side = 1.3 + min(5.2, max(2.2, 0.38 * size)) + 0.06 * max(map(len, names))
        figure = new_figure(side + 0.4, side)
        axes = figure.subplots()
        image = axes.imshow(array, cmap="Blues", vmin=0, vmax=top, interpolation="nearest")
        class_ticks(axes, names, rows=True, columns=True)
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        if size <= ANNOTATED:
            for (row, column), value in np.ndenumerate(array):
                if not np.isnan(value):
                    ink = "white" if value > 0.6 * top else "#222222"
                    text = _percent(value) if percent else _short(value)
                    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7}
                    axes.text(column, row, text, color=ink, **look)
        else:
            bar = figure.colorbar(image, ax=axes, shrink=0.8)
            bar.set_label(percent)
    return figure


def _short(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}".removeprefix("0")


def _task_names(names: Sequence[str] | None, tasks: int) -> list[str]:
    if names is None:
        return [str(task + 1) for task in range(tasks)]
    if len(names) != tasks:
        raise ValueError(f"task_names must hold {tasks} names, one per task; got {len(names)}")
    return list(names)


def _percent(value: float) -> str:
    return f"{value:.0f}" if value in (0.0, 100.0) else f"{value:.1f}"
