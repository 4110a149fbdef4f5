"""Parts of a matrix that are read when they are needed: of ``.npy`` files and of other sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

#: Kinds of NumPy dtypes that are converted: bool, signed, unsigned and floating.
NUMERIC = "biuf"


def all_finite(values: NDArray[Any]) -> bool:
    """Return whether no entry is NaN or infinite."""
    # A sum is finite only if every entry is; cheaper than looking at each.
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum(dtype=np.float64)
    return bool(np.isfinite(total) or np.isfinite(values).all())


@dataclass(frozen=True)
class Chunk:
    """Some rows of a matrix.

    Attributes:
        source: what errors name: a file.
        num_rows: at least 1.
        read: returns them, (num_rows, d), of any numeric dtype; they are copied afterwards.
    """

    source: str
    num_rows: int
    read: Callable[[], NDArray[Any]]


class Source(Protocol):
    """A file of features.

    Attributes:
        path: where it is.
        shape: (n, d).
        dtype: of the numbers in it.
        feature_names: names of the d columns, if they have any.
    """

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    feature_names: list[str] | None

    def chunks(self, block_rows: int) -> list[Chunk]:
        """Return its rows in parts of at most that many rows, where the format lets us choose."""


class NpySource:
    """A matrix in a ``.npy`` file.

    Args:
        path: the file.

    Raises:
        ValueError: if it is truncated, or holds no numeric matrix with a row and a column.
    """

    feature_names: list[str] | None = None

    def __init__(self, path: Path) -> None:
        array = open_npy(path)
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(
                f"{path}: features must be a matrix (n, d) of at least one row and one column; "
                f"got shape {array.shape}"
            )
        check_numeric(array.dtype, str(path))
        self.path = path
        self.shape: tuple[int, int] = (array.shape[0], array.shape[1])
        self.dtype = array.dtype

    def chunks(self, block_rows: int) -> list[Chunk]:
        """Return parts of that many rows."""
        count = self.shape[0]
        return [
            self._chunk(start, min(start + block_rows, count))
            for start in range(0, count, block_rows)
        ]

    def _chunk(self, start: int, stop: int) -> Chunk:
        # Mapped anew for each part: pages of parts read before would count as this process's.
        return Chunk(str(self.path), stop - start, lambda: open_npy(self.path)[start:stop])


def open_npy(path: Path) -> NDArray[Any]:
    """Map a ``.npy`` file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is none, is truncated, or holds Python objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: truncated, or no .npy file of numbers ({error})") from error


def check_numeric(dtype: np.dtype[Any], what: str) -> None:
    """Raise ``ValueError`` unless a dtype can be converted to floating point."""
    if dtype.kind not in NUMERIC:
        raise ValueError(f"{what}: features must be real numbers; got dtype {dtype}")
