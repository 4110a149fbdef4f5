"""One look for every figure, and saving a figure to a file or to bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lastlayer._files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array: TypeAlias = NDArray[np.float64]

# Okabe and Ito's palette: distinct with every common color-vision deficiency.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":", "-.")
TRUTH, WRONG, MUTED = "#009E73", "#D55E00", "#6B6B6B"
FORMATS = (".png", ".svg", ".pdf")

RC: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture everywhere
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.grid": False,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "lastlayer",  # the same figure gives the same bytes
}


@contextmanager
def style() -> Iterator[None]:
    """The house style, for figures built or saved inside."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """An empty figure of ``width`` by ``height`` inches, outside pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def figure_bytes(figure: Figure, suffix: str = ".svg", dpi: int = 150) -> bytes:
    """The figure as a PNG, SVG or PDF file's content, the same bytes each time."""
    buffer = io.BytesIO()
    # Without its date and version, an unchanged figure leaves an unchanged file.
    metadata: dict[str, Any] = {
        ".svg": {"Date": None, "Creator": None},
        ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        ".png": {"Software": None},
    }[suffix]
    with style():
        figure.savefig(buffer, format=suffix[1:], dpi=dpi, metadata=metadata, facecolor="white")
    return buffer.getvalue()


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` holds either the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 150) -> Path:
    """Save a figure in the format of the path's suffix; folders are made, the write is atomic.

    Args:
        figure: a matplotlib figure.
        path: file ending in ``.png``, ``.svg`` or ``.pdf``.
        dpi: pixels per inch of a PNG.

    Returns:
        The path.

    Raises:
        ValueError: if the suffix is another one.

    >>> import tempfile
    >>> from lastlayer.report import confusion_figure
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(confusion_figure([[9, 1], [2, 8]]), f"{folder}/confusion.svg").name
    'confusion.svg'
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"path must end in one of {', '.join(FORMATS)}; got {str(path)!r}")
    write_atomically(path, figure_bytes(figure, suffix, dpi))
    return path


def as_array(name: str, values: ArrayLike | Tensor, ndim: int | None = None) -> Array:
    """``values`` as a float64 array, or raise unless it is non-empty with ``ndim`` dimensions."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or (ndim is not None and array.ndim != ndim):
        wanted = "a non-empty array" if ndim is None else f"a non-empty {ndim}-dimensional array"
        raise ValueError(f"{name} must be {wanted}; got shape {array.shape}")
    return array


def as_labels(
    name: str, values: ArrayLike | Tensor, num_rows: int, num_classes: int
) -> NDArray[np.int64]:
    """``values`` as (num_rows,) class indices in [0, num_classes), or raise."""
    array = as_array(name, values, 1)
    if len(array) != num_rows:
        raise ValueError(f"{name} must have shape ({num_rows},); got {array.shape}")
    labels = array.astype(np.int64)
    wrong = (labels != array) | (labels < 0) | (labels >= num_classes)
    if wrong.any():
        raise ValueError(
            f"{name} must hold class indices in [0, {num_classes - 1}]; got {array[wrong][0]:g}"
        )
    return labels


def check_class_names(class_names: Sequence[str] | None, num_classes: int) -> list[str]:
    """The class names, or their indices if None; raise unless there is one per class."""
    names = [str(k) for k in range(num_classes)] if class_names is None else list(class_names)
    if len(names) != num_classes:
        raise ValueError(
            f"class_names must hold {num_classes} names, one per class; got {len(names)}"
        )
    return names


def class_ticks(axes: Axes, names: list[str], *, rows: bool, columns: bool) -> None:
    """Label every class up to 24 of them, then about ten of them."""
    step = 1 if len(names) <= 24 else len(names) // 10
    ticks = list(range(0, len(names), step))
    labels = [names[k] for k in ticks]
    if columns:
        upright = max(map(len, labels)) > 2
        axes.set_xticks(ticks, labels, rotation=90 if upright else 0)
    if rows:
        axes.set_yticks(ticks, labels)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def thumbnails(name: str, images: ArrayLike | Tensor, rows: int) -> Array:
    """Images as (rows, height, width) or (rows, height, width, 3), each stretched to [0, 1]."""
    array = as_array(name, images)
    if array.ndim == 4 and array.shape[1] in (1, 3):
        array = np.moveaxis(array, 1, -1)
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if len(array) != rows or not (array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 3)):
        raise ValueError(
            f"{name} must have shape ({rows}, height, width) with 1 or 3 channels before or "
            f"after; got {tuple(np.shape(images))}"
        )
    axes = tuple(range(1, array.ndim))
    low, high = array.min(axes, keepdims=True), array.max(axes, keepdims=True)
    return np.asarray((array - low) / np.where(high > low, high - low, 1.0))
