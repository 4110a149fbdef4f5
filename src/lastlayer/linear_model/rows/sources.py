"""Files of features, read in parts: ``.npy``, and parquet through the extra ``parquet``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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

    ``source`` is what errors name, a file; ``read`` returns the rows, (num_rows, d), at least one,
    of any numeric dtype, and they are copied afterwards.
    """

    source: str
    num_rows: int
    read: Callable[[], NDArray[Any]]


def take_rows(chunks: Sequence[Chunk], wanted: Tensor) -> list[Chunk]:
    """Return the chunks with the wanted of (n,) rows alone, without those that have none."""
    parts = zip(chunks, torch.split(wanted, [c.num_rows for c in chunks]), strict=True)
    return [_some_rows(chunk, own.numpy()) for chunk, own in parts if own.any()]


def _some_rows(chunk: Chunk, wanted: NDArray[np.bool_]) -> Chunk:
    return replace(chunk, num_rows=int(wanted.sum()), read=lambda: chunk.read()[wanted])


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
    """A matrix in a ``.npy`` file, numeric, of at least one row and one column."""

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
    """Map a ``.npy`` file of numbers."""
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


class ParquetSource:
    """A matrix in a parquet file: numeric columns, or one column of lists of equal length.

    Its parts are the file's row groups, as a part of one cannot be found without reading it whole.
    The features are ``columns``; if None all columns but ``others``, which are labels and weights.
    """

    def __init__(
        self, path: Path, columns: Sequence[str] | None = None, others: Collection[str] = ()
    ) -> None:
        file = open_parquet(path)
        names = file.schema_arrow.names
        self.path = path
        self.columns = [n for n in names if n not in others] if columns is None else list(columns)
        check_columns(path, names, self.columns)
        groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        self._groups = [(number, rows) for number, rows in enumerate(groups) if rows]
        if not self._groups or not self.columns:
            raise ValueError(f"{path}: features must have at least one row and one column")
        batch = next(file.iter_batches(batch_size=1, columns=self.columns))
        first = self._to_matrix(_require().lib.Table.from_batches([batch]))
        self.shape: tuple[int, int] = (sum(groups), first.shape[1])
        self.dtype = first.dtype
        # A column of lists has one name for all features.
        self.feature_names = self.columns if len(self.columns) == first.shape[1] else None

    def chunks(self, block_rows: int) -> list[Chunk]:
        """Return the row groups, none of which may have more rows."""
        largest = max(rows for _, rows in self._groups)
        if largest > block_rows:
            raise ValueError(
                f"{self.path}: a row group has {largest} rows, but only {block_rows} fit into "
                "memory_bound; raise it, or write the file with smaller row groups"
            )
        return [self._chunk(number, rows) for number, rows in self._groups]

    def _chunk(self, number: int, rows: int) -> Chunk:
        def read() -> NDArray[Any]:
            table = open_parquet(self.path).read_row_group(number, columns=self.columns)
            return self._to_matrix(table)

        return Chunk(str(self.path), rows, read)

    def _to_matrix(self, table: Any) -> NDArray[Any]:
        columns = [self._to_array(table, name) for name in self.columns]
        if len(columns) > 1 and any(column.ndim > 1 for column in columns):
            raise ValueError(
                f"{self.path}: a column of lists must be the only one with features; got "
                f"{self.columns}"
            )
        return columns[0] if columns[0].ndim == 2 else np.column_stack(columns)

    def _to_array(self, table: Any, name: str) -> NDArray[Any]:
        column = table.column(name).combine_chunks()
        what = f"{self.path}, column {name!r}"
        if hasattr(column, "flatten") and hasattr(column.type, "value_type"):
            flat = column.flatten().to_numpy(zero_copy_only=False)
            check_numeric(flat.dtype, what)
            width = len(flat) // len(column)
            lengths = _require("pyarrow.compute").list_value_length(column)
            if column.null_count or set(lengths.to_pylist()) != {width}:
                raise ValueError(f"{what}: lists must all be of one length")
            return np.asarray(flat.reshape(len(column), width))
        values = column.to_numpy(zero_copy_only=False)
        if values.dtype == object and column.null_count:
            raise ValueError(f"{what}: {column.null_count} values are missing")
        check_numeric(values.dtype, what)
        return np.asarray(values)


def read_column(paths: Sequence[Path], name: str) -> NDArray[Any]:
    """Return one column of several files, such as labels, which must be complete."""
    parts = []
    for path in paths:
        file = open_parquet(path)
        check_columns(path, file.schema_arrow.names, [name])
        column = file.read(columns=[name]).column(name)
        if column.null_count:
            raise ValueError(f"{path}, column {name!r}: {column.null_count} values are missing")
        parts.append(column.to_numpy())
    return np.concatenate(parts)


def check_columns(path: Path, names: Collection[str], wanted: Sequence[str]) -> None:
    """Raise ``ValueError`` if columns are missing."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(f"{path}: has no columns {missing}; its columns: {list(names)}")


def open_parquet(path: Path) -> Any:
    """Open a parquet file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    parquet = _require("pyarrow.parquet")
    try:
        return parquet.ParquetFile(path)
    except (ValueError, OSError) as error:  # ArrowInvalid is a ValueError
        raise ValueError(f"{path}: truncated, or no parquet file ({error})") from error


def _require(name: str = "pyarrow") -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError("parquet files need pyarrow: pip install 'lastlayer[parquet]'") from error
