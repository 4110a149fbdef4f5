"""Which classes an input is confused between: DropMax's retain probabilities, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lastlayer.report.style import (
    MUTED,
    TRUTH,
    WRONG,
    Array,
    as_array,
    as_labels,
    check_class_names,
    class_ticks,
    new_figure,
    style,
    thumbnails,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


def retain_confusion(retain_prob: ArrayLike | Tensor, target: ArrayLike | Tensor) -> Array:
    r"""Class-to-class confusion from retain probabilities.

    .. math:: C_{cj} = \frac{1}{|\{i: t_i = c\}|} \sum_{i: t_i = c} \frac{\rho_{ij}}{\rho_{ic}}

    Row c: how much class j is kept in play by inputs of class c, relative to c itself. The
    diagonal is 1 and the matrix is not symmetric, as in the DropMax poster's "correlation between
    classes"; its exact definition is unpublished, this one is our reading.

    Args:
        retain_prob: (N, K) retain probabilities in (0, 1].
        target: (N,) labels in [0, K).

    Returns:
        (K, K) float64; the row of a class without inputs is NaN.

    Raises:
        ValueError: if a shape is wrong, a label is out of range, a probability is outside [0, 1],
            or an input's own class has retain probability 0.

    >>> retain_confusion([[0.8, 0.2], [0.4, 0.4]], [0, 1]).tolist()
    [[1.0, 0.25], [1.0, 1.0]]
    """
    rho = _probabilities("retain_prob", retain_prob)
    labels = as_labels("target", target, *rho.shape)
    own = rho[np.arange(len(rho)), labels]
    if not own.all():
        raise ValueError(
            f"retain_prob of an input's own class must be above 0; row {int(own.argmin())} has 0"
        )
    num_classes = rho.shape[1]
    confusion = np.full((num_classes, num_classes), np.nan)
    for c in np.unique(labels):
        mine = labels == c
        confusion[c] = (rho[mine] / own[mine, None]).mean(axis=0)
    return confusion


ROW_HEIGHT = 0.28  # inches
MANY_CLASSES = 24
LONGEST_NAME = 16
NO_VALUE = "#B9D3E8"  # a color: no gray could tell a missing value from a probability


class _Panel(NamedTuple):
    title: str
    values: Array
    target: NDArray[np.int64] | None = None
    prediction: NDArray[np.int64] | None = None
    images: Array | None = None


def retain_panels(
    *,
    retain_easy: ArrayLike | Tensor,
    target_easy: ArrayLike | Tensor,
    retain_hard: ArrayLike | Tensor,
    target_hard: ArrayLike | Tensor,
    posterior_hard: ArrayLike | Tensor | None = None,
    base_prediction: ArrayLike | Tensor | None = None,
    confusion: ArrayLike | Tensor | None = None,
    images_easy: ArrayLike | Tensor | None = None,
    images_hard: ArrayLike | Tensor | None = None,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Gray panels of retain probabilities: easy inputs, hard inputs, their posterior, confusion.

    Rows are test inputs, columns are classes, 0 is black and 1 is white. A green circle marks the
    label, an orange cross the base model's wrong prediction. A faithful DropMax shows about 0.78
    on an even 0.23 for easy inputs, two or more gray-to-white classes for hard ones, and a
    posterior of about 1 for the label.

    Args:
        retain_easy: (E, K) retain probabilities of inputs every model gets right.
        target_easy: (E,) their labels.
        retain_hard: (H, K) retain probabilities of inputs the base model gets wrong.
        target_hard: (H,) their labels.
        posterior_hard: (H, K) posterior retain probabilities q(z | x, y) of the hard inputs.
        base_prediction: (H,) the base model's predictions for the hard inputs.
        confusion: (K, K) in [0, 1] or above; drawn as is, see ``retain_confusion``.
        images_easy: (E, height, width), or with 1 or 3 channels before or after; thumbnails.
        images_hard: the same for the hard inputs.
        class_names: K names; the class indices if None.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: if a shape is wrong, a label is out of range, or a probability is outside
            [0, 1].

    Source: Lee et al., DropMax (2018), Figure 4 of the first version and the NeurIPS poster.

    >>> from lastlayer.report import retain_panels
    >>> rho = [[0.8, 0.2], [0.3, 0.7]]
    >>> figure = retain_panels(
    ...     retain_easy=rho, target_easy=[0, 1], retain_hard=rho, target_hard=[1, 1]
    ... )
    >>> len(figure.axes)  # two panels and the gray scale
    3
    """
    easy = _probabilities("retain_easy", retain_easy)
    hard = _probabilities("retain_hard", retain_hard)
    num_classes = easy.shape[1]
    if hard.shape[1] != num_classes:
        raise ValueError(
            f"retain_hard must have {num_classes} classes as retain_easy has; got {hard.shape[1]}"
        )
    names = [
        name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
        for name in check_class_names(class_names, num_classes)
    ]
    easy_labels = as_labels("target_easy", target_easy, len(easy), num_classes)
    labels = as_labels("target_hard", target_hard, len(hard), num_classes)
    wrong = None
    if base_prediction is not None:
        wrong = as_labels("base_prediction", base_prediction, len(hard), num_classes)
    panels = [
        _Panel(
            "Retain probability\neasy inputs",
            easy,
            easy_labels,
            images=_optional("images_easy", images_easy, len(easy)),
        ),
        _Panel(
            "Retain probability\nhard inputs",
            hard,
            labels,
            wrong,
            images=_optional("images_hard", images_hard, len(hard)),
        ),
    ]
    if posterior_hard is not None:
        q = _probabilities("posterior_hard", posterior_hard, hard.shape)
        panels.append(_Panel("Posterior\nhard inputs", q, labels, wrong))
    if confusion is not None:
        matrix = as_array("confusion", confusion, 2)
        if matrix.shape != (num_classes, num_classes):
            raise ValueError(
                f"confusion must have shape ({num_classes}, {num_classes}); got {matrix.shape}"
            )
        panels.append(_Panel("Classes kept in play\nmean over a class", matrix))
    with style():
        return _draw(panels, names)


def _draw(panels: list[_Panel], names: list[str]) -> Figure:
    """Place the panels by inches, so that every cell and thumbnail has one size."""
    import matplotlib

    cell = ROW_HEIGHT if len(names) <= MANY_CLASSES else 3.6 / len(names)
    # The matrix has square cells; the rows of the others stay tall enough for their thumbnails.
    row_heights = [cell if panel.target is None else ROW_HEIGHT for panel in panels]
    widths = [cell * len(names) + (panel.images is not None) * 1.1 * ROW_HEIGHT for panel in panels]
    label_room = 0.3 + 0.07 * max(map(len, names))
    pitches = [max(width + label_room + 0.3, 1.9) for width in widths]
    above, below = 0.55, 0.5 + label_room
    tallest = max(len(p.values) * row for p, row in zip(panels, row_heights, strict=True))
    total = 0.2 + sum(pitches) + 0.55
    figure = new_figure(total, above + tallest + below, layout=None)
    gray = matplotlib.colormaps["gray"].with_extremes(bad=NO_VALUE)
    left = 0.2 + label_room
    for panel, pitch, width, row in zip(panels, pitches, widths, row_heights, strict=True):
        height = row * len(panel.values)
        axes = _axes_in_inches(figure, left, below + tallest - height, width, height)
        image = _draw_panel(axes, panel, names, row / cell, gray)
        left += pitch
    bar = _axes_in_inches(figure, total - 0.5, below + tallest / 4, 0.1, tallest / 2)
    figure.colorbar(image, cax=bar, ticks=[0.0, 0.5, 1.0])
    figure.axes[0].set_ylabel("test input, by its label")
    if any(panel.prediction is not None for panel in panels):
        from matplotlib.lines import Line2D

        look: dict[str, Any] = {"linestyle": "none", "markersize": 5.5, "markeredgewidth": 1.4}
        wrong = Line2D([], [], **look, marker="x", mec=WRONG, label="base model's wrong prediction")
        label = Line2D([], [], **look, marker="o", mfc="none", mec=TRUTH, label="label")
        figure.legend(handles=[label, wrong], loc="lower center", ncols=2)
    return figure


def _axes_in_inches(
    figure: Figure, left: float, bottom: float, width: float, height: float
) -> Axes:
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _draw_panel(
    axes: Axes, panel: _Panel, names: list[str], aspect: float, gray: Colormap
) -> AxesImage:
    from matplotlib.patches import Rectangle

    image = axes.imshow(panel.values, cmap=gray, vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(panel.title)
    axes.set_xlabel("class")
    class_ticks(axes, names, rows=panel.target is None, columns=True)
    left, rows = -0.5, len(panel.values)
    frame = Rectangle((-0.5, -0.5), len(names), rows, fill=False, ec=MUTED, lw=0.8, clip_on=False)
    axes.add_patch(frame)
    if panel.target is not None:
        axes.set_yticks(range(rows), [names[label] for label in panel.target])
    if panel.images is not None:
        left -= aspect * 1.1
        for row, thumbnail in enumerate(panel.images):
            extent = (left, left + aspect * 0.96, row + 0.48, row - 0.48)
            axes.imshow(thumbnail, cmap="gray", vmin=0, vmax=1, extent=extent)
    if panel.prediction is not None and panel.target is not None:
        size: dict[str, Any] = {"s": 26, "linewidths": 1.5}
        axes.scatter(panel.target, range(rows), **size, facecolors="none", edgecolors=TRUTH)
        missed = np.flatnonzero(panel.prediction != panel.target)
        axes.scatter(panel.prediction[missed], missed, **size, marker="x", c=WRONG)
    axes.set(xlim=(left, len(names) - 0.5), ylim=(rows - 0.5, -0.5), aspect="auto")
    return image


def _probabilities(
    name: str, values: ArrayLike | Tensor, shape: tuple[int, ...] | None = None
) -> Array:
    array = as_array(name, values, 2)
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; got {array.shape}")
    if not bool(((array >= 0) & (array <= 1)).all()):
        raise ValueError(f"{name} must hold probabilities in [0, 1]")
    return array


def _optional(name: str, images: ArrayLike | Tensor | None, rows: int) -> Array | None:
    return None if images is None else thumbnails(name, images, rows)
