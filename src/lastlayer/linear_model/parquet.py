"""Features, labels and weights in parquet files, through the extra ``parquet``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lastlayer.linear_model.chunks import Chunk, check_numeric


class ParquetSource:
    """A matrix in a parquet file: numeric columns, or one column of lists of equal length.

    Its parts are the file's row groups, as a part of one cannot be found without reading it whole.

    Args:
        path: the file.
        columns: the features; all columns but ``others`` if None.
        others: columns that are no features: labels and weights.

    Raises:
        ImportError: if the extra is not installed.
        ValueError: if the file is truncated, or columns are missing or not of numbers.
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
        first = self._read_rows(file.iter_batches(batch_size=1, columns=self.columns))
        self.shape: tuple[int, int] = (sum(groups), first.shape[1])
        self.dtype = first.dtype
        # A column of lists has one name for all features.
        self.feature_names = self.columns if len(self.columns) == first.shape[1] else None

    def chunks(self, block_rows: int) -> list[Chunk]:
        """Return the row groups.

        Raises:
            ValueError: if one has more rows.
        """
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

    def _read_rows(self, batches: Any) -> NDArray[Any]:
        return self._to_matrix(_require().lib.Table.from_batches([next(iter(batches))]))

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
    """Return one column of several files, such as labels.

    Raises:
        ValueError: if a file lacks it or values in it.
    """
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
    """Open a parquet file.

    Raises:
        FileNotFoundError: if there is none.
        ImportError: if the extra is not installed.
        ValueError: if it is truncated or none.
    """
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
