"""Examples in files that are larger than memory."""

from __future__ import annotations

import glob
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lastlayer._checks import check_choice, check_count
from lastlayer.linear_model.rows.dask import rows_on_cluster
from lastlayer.linear_model.rows.labels import as_labels, as_weight, index_classes
from lastlayer.linear_model.rows.protocol import Rows
from lastlayer.linear_model.rows.sources import (
    Chunk,
    NpySource,
    ParquetSource,
    Source,
    open_npy,
    read_column,
    take_rows,
)
from lastlayer.linear_model.rows.streams import StreamedRows, choose_block_rows, row_bytes

PARQUET = (".parquet", ".pq")
#: Bytes of features in memory unless the user says otherwise.
MEMORY_BOUND = 2**28

AnyPath = str | os.PathLike[str]


def rows_from_files(
    features: AnyPath | Sequence[AnyPath],
    target: Any,
    weight: Any = None,
    *,
    subset: Any = None,
    classes: Any = None,
    columns: Sequence[str] | None = None,
    block_rows: int | None = None,
    memory_bound: int = MEMORY_BOUND,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    prefetch: bool = True,
    state_folder: AnyPath | None = None,
    cluster: Any = None,
) -> Rows:
    r"""Return rows whose features are read from ``.npy`` or parquet files, block by block.

    Every pass of a solver reads the files once, in order; blocks that fit into ``memory_bound`` are
    kept, so that files smaller than it are read once only. Numbers of any real dtype are
    converted block by block. Of a parquet file the blocks are its row groups.

    Outside ``memory_bound`` are 16 bytes a row for class index and weight, the solver's matrices
    (:math:`d^2` for the Gram matrix), and what it keeps beside the rows: K numbers a row for
    Newton-Krylov, 2 K for ADMM, none for L-BFGS; ``state_folder`` puts those on disk.

    With a ``cluster`` of dask its workers, which must all see the files, read them once and keep
    them in their memory, as those of :func:`rows_from_dask`.

    Args:
        features: one or several files, each a matrix of some rows and all d columns; or a pattern
            such as ``"part*.parquet"``, for files in the order of their names.
        target: (n,) labels of any kind: an array, a ``.npy`` file, an array of an ``.npz`` file as
            ``"FILE.npz:NAME"``, or the name of a column of the parquet files.
        weight: (n,) weights of at least 0, like ``target``.
        subset: (n,) True for the rows that are taken, such as those to train on; all if None.
        classes: (K,) all labels that there may be; those that occur if None.
        columns: of the parquet files, the features; all but target and weight if None.
        block_rows: rows worked on together; what fits into a core's cache if None.
        memory_bound: bytes of features in memory, in conversion and the work on a block included.
        dtype: float32 or float64; float32 if all files are, else float64.
        device: where to compute.
        prefetch: whether a thread reads the next block while one is worked on.
        state_folder: where a temporary folder is made for what solvers keep; memory if None.
        cluster: address of a dask scheduler, or a ``distributed.Client``; this process alone if
            None. The last three arguments before it, and ``device``, are then without effect.

    Returns:
        Rows for :meth:`LinearSoftmax.fit_rows`, which takes the labels from them.

    Raises:
        FileNotFoundError: if a file is missing, or none fits the pattern.
        ImportError: if the extra ``parquet`` or ``cluster`` is needed and not installed.
        ValueError: if a file is truncated, or shapes, dtypes, labels or weights do not fit. Rows
            that hold NaN or infinity are found in the first pass.

    Example:
        >>> import tempfile
        >>> from sklearn.datasets import load_iris
        >>> from lastlayer.linear_model import LBFGSSoftmax
        >>> X, y = load_iris(return_X_y=True)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/features.npy", X)
        ...     rows = rows_from_files(f"{folder}/features.npy", y)
        ...     model = LBFGSSoftmax().fit_rows(rows)
        >>> round(model.score(X, y), 3)
        0.973
    """
    check_count("memory_bound", memory_bound)
    memory_bound = int(memory_bound)
    paths = file_paths("features", features)
    named = [name for name in (target, weight) if _is_column(name)]
    sources: list[Source] = [
        ParquetSource(path, columns, named) if path.suffix in PARQUET else NpySource(path)
        for path in paths
    ]
    feature_names = _feature_names(sources)
    if dtype is None:
        dtype = torch.float32 if all(s.dtype == np.float32 for s in sources) else torch.float64
    check_choice("dtype", dtype, (torch.float32, torch.float64))
    indices, classes = index_classes(_values("target", target, paths), classes)
    count, width = sum(source.shape[0] for source in sources), sources[0].shape[1]
    if len(indices) != count:
        raise ValueError(f"target has {len(indices)} labels, but the features have {count} rows")
    device = torch.device(device)
    stored = max(source.dtype.itemsize for source in sources)
    bytes_a_row = row_bytes(width, len(classes), dtype, stored)
    fitting = choose_block_rows(bytes_a_row, width, dtype, device, memory_bound)
    wanted_rows = fitting if block_rows is None else block_rows
    chunks = _chunks(sources, wanted_rows, bytes_a_row, memory_bound)
    largest = max(chunk.num_rows for chunk in chunks)
    weights = as_weight(_values("weight", weight, paths), count, dtype)
    if subset is not None:
        wanted = _checked_subset(subset, count)
        chunks, indices = take_rows(chunks, wanted), indices[wanted]
        weights = None if weights is None else weights[wanted]
    if cluster is not None:
        rows = rows_on_cluster(chunks, indices, weights, width, classes, dtype, cluster)
        rows.feature_names = feature_names
        return rows
    return StreamedRows(
        chunks,
        indices,
        weights,
        num_features=width,
        classes=classes,
        dtype=dtype,
        device=device,
        room=memory_bound - largest * bytes_a_row,
        prefetch=prefetch,
        state_folder=None if state_folder is None else Path(state_folder),
        feature_names=feature_names,
    )


def _chunks(
    sources: Sequence[Source], block_rows: int, bytes_a_row: int, memory_bound: int
) -> list[Chunk]:
    check_count("block_rows", block_rows)
    block_rows = int(block_rows)
    if block_rows * bytes_a_row > memory_bound:
        raise ValueError(
            f"block_rows={block_rows} takes {block_rows * bytes_a_row} bytes, more than "
            f"memory_bound={memory_bound}"
        )
    most = memory_bound // bytes_a_row
    return [
        chunk
        for source in sources
        for chunk in source.chunks(most if isinstance(source, ParquetSource) else block_rows)
    ]


def read_labels(features: AnyPath | Sequence[AnyPath], target: Any) -> NDArray[Any]:
    """Return the labels, (n,), that :func:`rows_from_files` would take."""
    return as_labels(_values("target", target, file_paths("features", features)))


def file_paths(name: str, given: AnyPath | Sequence[AnyPath]) -> list[Path]:
    """Return the files that are meant, at least one, all ``.npy`` or parquet."""
    if isinstance(given, str | os.PathLike):
        given = [given]
    paths = [path for one in given for path in _matching(os.fspath(one))]
    if not paths:
        raise ValueError(f"{name} must name at least one file; got none")
    for path in paths:
        if path.suffix not in (".npy", *PARQUET):
            raise ValueError(f"{name} must be .npy or .parquet files; got {path}")
    return paths


def _matching(given: str) -> list[Path]:
    """Return the files that a pattern stands for, sorted, or the one path."""
    if os.path.exists(given) or not glob.has_magic(given):
        return [Path(given)]
    found = sorted(glob.glob(given))
    if not found:
        raise FileNotFoundError(f"there is no file {given}")
    return [Path(path) for path in found]


def _checked_subset(given: Any, count: int) -> Tensor:
    wanted = torch.as_tensor(given)
    if wanted.dtype != torch.bool or wanted.shape != (count,):
        raise ValueError(
            f"subset must be True or False for each of {count} rows; "
            f"got {wanted.dtype} of shape {tuple(wanted.shape)}"
        )
    if not bool(wanted.any()):
        raise ValueError("subset must have at least one row; got none")
    return wanted


def _feature_names(sources: Sequence[Source]) -> list[str] | None:
    """Return the names that all files have; widths must agree, and names where there are any."""
    first = sources[0]
    for source in sources:
        if source.shape[1] != first.shape[1]:
            raise ValueError(
                f"files must have the same number of features: {first.path} has "
                f"{first.shape[1]}, {source.path} has {source.shape[1]}"
            )
    named = [source for source in sources if source.feature_names is not None]
    for source in named:
        if source.feature_names != named[0].feature_names:
            raise ValueError(
                "files must have the same columns in the same order, or columns must be given: "
                f"{named[0].path} has {named[0].feature_names}, "
                f"{source.path} has {source.feature_names}"
            )
    return named[0].feature_names if len(named) == len(sources) else None


def _is_column(given: Any) -> bool:
    return isinstance(given, str) and Path(given).suffix != ".npy" and ".npz:" not in given


def _values(name: str, given: Any, paths: Sequence[Path]) -> Any:
    """Return labels or weights: an array as it is, or read from a file or a column."""
    if _is_column(given):
        if any(path.suffix not in PARQUET for path in paths):
            raise ValueError(
                f"{name}={given!r} is a column, but not all features are parquet files; give an "
                "array or a .npy file"
            )
        return read_column(paths, given)
    if isinstance(given, str) and ".npz:" in given:
        return _one_column(name, given, _named_array(given))
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        if path.suffix != ".npy":
            raise ValueError(f"{name} must be an array, a .npy file or a column; got {path}")
        return _one_column(name, str(path), np.array(open_npy(path)))
    return given


def _named_array(given: str) -> NDArray[Any]:
    """Return the array that ``FILE.npz:NAME`` means."""
    path, _, name = given.rpartition(":")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = arrays.files
            found: NDArray[Any] | None = arrays[name] if name in names else None
    except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: truncated, or no .npz file of numbers ({error})") from error
    if found is None:
        raise ValueError(f"{path}: has no array {name!r}; its arrays: {', '.join(names)}")
    return found


def _one_column(name: str, where: str, values: NDArray[Any]) -> NDArray[Any]:
    if values.ndim != 1:
        raise ValueError(f"{where}: {name} must have shape (n,); got {values.shape}")
    return values
