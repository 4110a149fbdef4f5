"""Examples in dask arrays, through the extra ``cluster``."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lastlayer._checks import check_whole
from lastlayer.linear_model.rows.labels import as_weight, index_classes
from lastlayer.linear_model.rows.matrices import DenseMatrix
from lastlayer.linear_model.rows.memory import LocalRows
from lastlayer.linear_model.rows.protocol import Block, Rows, Step, add_up
from lastlayer.linear_model.rows.sources import Chunk, check_numeric
from lastlayer.linear_model.rows.streams import StreamedRows

#: Bytes of chunks that are kept by this process where there is no cluster.
MEMORY_BOUND = 2**30


def rows_from_dask(
    X: Any,
    y: Any,
    weight: Any = None,
    *,
    address: str | Any = None,
    classes: Any = None,
    memory_bound: int = MEMORY_BOUND,
) -> Rows:
    """Return rows of a dask array, on a cluster or in this process.

    With a cluster every chunk is computed once and stays with the worker that did, and so does what
    solvers keep beside the rows; in every pass a worker sends one set of sums. lastlayer has
    to be installed on the workers; a worker that is lost ends the fit with an error.

    Without a cluster dask's own scheduler of the moment (threads, unless told otherwise) computes
    one chunk after the other, in every pass but for those that fit into ``memory_bound``.

    Args:
        X: (n, d) dask array of NumPy chunks of known size; float32 is kept, all else computed
            with in float64.
        y: (n,) labels: dask array or array.
        weight: (n,) weights of at least 0, like y.
        address: of a scheduler, or a ``distributed.Client``; the current client if there is one,
            else no cluster, if None.
        classes: (K,) all labels that there may be; those that occur if None.
        memory_bound: bytes of chunks kept in this process; only without a cluster.

    Returns:
        Rows for :meth:`LinearSoftmax.fit_rows`, which takes the labels from them.

    Raises:
        ImportError: if the extra is not installed.
        ValueError: if shapes, dtypes, labels or weights do not fit; for NaN and infinity in X
            without a cluster in the first pass.

    Example:
        >>> import dask.array as da  # doctest: +SKIP
        >>> X, y = da.random.random((1000, 5), chunks=(100, 5)), da.arange(1000, chunks=100) % 2
        ... # doctest: +SKIP
        >>> LBFGSSoftmax().fit_rows(rows_from_dask(X, y))  # doctest: +SKIP
    """
    check_whole("memory_bound", memory_bound, 0)
    array = _require("dask.array")
    X = _check_features(X, array)
    counts = X.chunks[0]
    y, weight = (_alike(name, v, counts, array) for name, v in (("y", y), ("weight", weight)))
    dtype = torch.float32 if X.dtype == np.float32 else torch.float64
    client = _client(address)
    if client is not None:
        found = client.compute(array.unique(y)).result() if classes is None else classes
        _, known = index_classes(found)
        return ClusterRows(client, _build(client, X, y, weight, known, dtype), X.shape[1], known)
    target, known = index_classes(y.compute(), classes)
    return StreamedRows(
        [_chunk(X, number) for number in range(len(counts)) if counts[number]],
        target,
        as_weight(None if weight is None else weight.compute(), len(target), dtype),
        num_features=X.shape[1],
        classes=known,
        dtype=dtype,
        device=torch.device("cpu"),
        room=int(memory_bound),
        prefetch=False,  # dask computes in parallel itself
    )


def rows_on_cluster(
    chunks: Sequence[Chunk],
    target: Tensor,
    weight: Tensor | None,
    num_features: int,
    classes: NDArray[Any],
    dtype: torch.dtype,
    cluster: Any,
) -> Rows:
    """Return rows whose chunks a cluster's workers, which must be able to, read once and keep.

    ``cluster`` is the address of a scheduler, or a client.
    """
    array, delayed = _require("dask.array"), _require("dask").delayed
    wanted = np.dtype(str(dtype).removeprefix("torch."))
    parts = [
        array.from_delayed(
            delayed(_read)(chunk, wanted), shape=(chunk.num_rows, num_features), dtype=wanted
        )
        for chunk in chunks
    ]
    own = None if weight is None else weight.numpy()
    labels = classes[target.numpy()]
    X = array.concatenate(parts)
    return rows_from_dask(X, labels, own, address=cluster, classes=classes)


def _read(chunk: Chunk, dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # becomes infinity, and an error
        return np.asarray(chunk.read(), dtype=dtype)


class ClusterRows:
    """Rows held by the workers of a dask cluster, given futures of their blocks."""

    in_memory = False
    feature_names: Sequence[str] | None = None

    def __init__(
        self, client: Any, blocks: Sequence[Any], num_features: int, classes: NDArray[Any]
    ) -> None:
        self.client = client
        self.num_features = num_features
        self.classes: NDArray[Any] | None = classes
        self.device = torch.device("cpu")
        placed: dict[str, list[Any]] = defaultdict(list)
        homes = client.who_has(blocks)
        for block in blocks:
            placed[min(homes[block.key])].append(block)
        # One actor a worker: it holds the blocks and what solvers keep, and sums before it sends.
        actors = [
            client.submit(WorkerRows, own, actor=True, workers=[home], pure=False)
            for home, own in sorted(placed.items())
        ]
        with client.as_current():
            self._workers = [actor.result() for actor in actors]
            self.num_rows = sum(worker.num_rows().result() for worker in self._workers)
            self.dtype: torch.dtype = self._workers[0].dtype().result()

    def reduce(self, step: Step, *shared: object) -> tuple[Tensor, ...]:
        """Return the sums over the blocks of all workers."""
        with self.client.as_current():
            asked = [worker.reduce(step, *shared) for worker in self._workers]
            found = [answer.result() for answer in asked]
        # Cloned, since what has come from a worker may be read-only.
        return add_up([tuple(part.clone() for part in found[0]), *found[1:]])

    def clear(self) -> None:
        """Forget what solvers kept."""
        with self.client.as_current():
            for answer in [worker.clear() for worker in self._workers]:
                answer.result()


class WorkerRows:
    """The rows of one worker, in its memory; an actor, so that they and their state stay there."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        matrix = blocks[0].matrix
        self._rows = LocalRows(blocks, matrix.dtype, matrix.device)

    def num_rows(self) -> int:
        """Return the number of examples."""
        return self._rows.num_rows

    def dtype(self) -> torch.dtype:
        """Return the dtype of the features."""
        return self._rows.dtype

    def reduce(self, step: Step, *shared: object) -> tuple[Tensor, ...]:
        """Return the sums over the blocks."""
        return self._rows.reduce(step, *shared)

    def clear(self) -> None:
        """Forget what solvers kept."""
        self._rows.clear()


def build_block(
    features: Any, labels: Any, weight: Any, classes: NDArray[Any], dtype: torch.dtype
) -> Block:
    """Return a block of a chunk, checked; runs on a worker."""
    values = torch.from_numpy(np.array(features)).to(dtype)
    bad = int((~torch.isfinite(values)).any(1).sum())
    if bad:
        raise ValueError(f"X: {bad} of {len(values)} rows of a chunk hold NaN or infinity")
    target, _ = index_classes(labels, classes)
    return Block(DenseMatrix(values), target, as_weight(weight, len(values), dtype))


def _build(
    client: Any, X: Any, y: Any, weight: Any, classes: NDArray[Any], dtype: torch.dtype
) -> list[Any]:
    """Compute the chunks on the workers; return futures of blocks."""
    delayed = _require("dask").delayed(build_block)
    columns = [X.to_delayed().ravel(), y.to_delayed().ravel()]
    weights = [None] * len(columns[0]) if weight is None else weight.to_delayed().ravel()
    counts = X.chunks[0]
    tasks = [
        delayed(features, labels, own, classes, dtype)
        for features, labels, own, count in zip(*columns, weights, counts, strict=True)
        if count
    ]
    futures: list[Any] = client.compute(tasks)
    with client.as_current():
        _require("distributed").wait(futures)
    for future in futures:
        if future.status == "error":
            raise future.exception()
    return futures


def _check_features(X: Any, array: Any) -> Any:
    if not isinstance(X, array.Array):
        raise ValueError(f"X must be a dask array; got {type(X).__name__}")
    if X.ndim != 2:
        raise ValueError(f"X must have shape (n, d); got {X.shape}")
    if any(np.isnan(size) for size in X.shape):
        raise ValueError("X has chunks of unknown size: call X.compute_chunk_sizes() first")
    if 0 in X.shape:
        raise ValueError(f"X must have at least one row and one column; got {X.shape}")
    check_numeric(X.dtype, "X")
    return X.rechunk({1: -1})


def _alike(name: str, values: Any, counts: tuple[int, ...], array: Any) -> Any:
    """Return labels or weights as a dask array in the chunks of the features."""
    if values is None:
        return None
    if not isinstance(values, array.Array):
        values = array.from_array(np.asarray(values))
    if values.shape != (sum(counts),):
        raise ValueError(f"{name} must have shape ({sum(counts)},); got {values.shape}")
    return values.rechunk((counts,))


def _chunk(X: Any, number: int) -> Chunk:
    part = X.blocks[number]
    return Chunk("X", part.shape[0], lambda: np.asarray(part.compute()))


@contextmanager
def cluster_client(address: str) -> Iterator[Any]:
    """Connect to the scheduler at an address, ``OSError`` if there is none; leave it afterwards."""
    with _require("distributed").Client(address, timeout=10, set_as_default=False) as client:
        yield client


def _client(address: Any) -> Any:
    """Return the client of a cluster, or None where there is none."""
    if address is None:
        # A client exists only where the module has been imported already.
        distributed = sys.modules.get("distributed")
        if distributed is None:
            return None
        try:
            return distributed.default_client()
        except ValueError:
            return None
    distributed = _require("distributed")
    if isinstance(address, distributed.Client):
        return address
    # Ours, and so not what other computations of the user should go to.
    return distributed.Client(address, set_as_default=False)


def _require(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            "a cluster and dask arrays need dask: pip install 'lastlayer[cluster]'"
        ) from error
