"""Examples spread over the processes of a ``torch.distributed`` group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from lastlayer.linear_model.rows.labels import as_labels
from lastlayer.linear_model.rows.memory import LocalRows
from lastlayer.linear_model.rows.protocol import Step

if TYPE_CHECKING:
    from lastlayer.linear_model.base import LinearSoftmax

EstimatorT = TypeVar("EstimatorT", bound="LinearSoftmax")
T = TypeVar("T")
Layout = tuple[tuple[tuple[int, ...], torch.dtype], ...]


class DistributedRows:
    """Rows of all processes, each with its own.

    Every process runs the same solver on these rows. A step works on the process's own blocks; its
    sums are added up by one all-reduce a dtype, so that a pass costs one message of d * K numbers
    (two for float32, whose losses are summed in float64), and what solvers keep beside the rows
    stays there. All processes get the same sums, take the same decisions and end with the same
    coefficients, as long as they run the same software with the same number of threads. A
    callback has to decide alike on all of them.

    An error on one process is raised on all.

    Args:
        local_rows: this process's rows, in memory or of files, or a function that returns them, so
            that an error in it is raised on all processes; None if it has none.
        group: the process group; the default one if None.

    Raises:
        RuntimeError: if there is no such group.
        ValueError: on all processes, if one has no rows, or they differ in number of features,
            their names, dtype, kind of device or classes.
    """

    in_memory = False

    def __init__(
        self, local_rows: LocalRows | Callable[[], LocalRows | None] | None, group: Any = None
    ) -> None:
        check_group(group)
        given = local_rows
        local_rows = attempt(lambda: given() if callable(given) else given, group=group)
        own_rows = 0 if local_rows is None else local_rows.num_rows
        num_rows = gather(own_rows, group=group)
        empty = [rank for rank, count in enumerate(num_rows) if not count]
        if empty or local_rows is None:
            raise ValueError(f"every rank needs at least one row; without any: ranks {empty}")
        facts = gather(_facts(local_rows), group=group)
        for what in facts[0]:
            check_same(what, [found[what] for found in facts])
        self.local_rows = local_rows
        self.group = group
        self.num_rows = sum(num_rows)
        self.num_features = local_rows.num_features
        self.dtype = local_rows.dtype
        self.device = local_rows.device
        self.classes = local_rows.classes
        self.feature_names = local_rows.feature_names
        self._layouts: dict[object, Layout] = {}

    def reduce(self, step: Step, *shared: object) -> tuple[Tensor, ...]:
        """Return the sums over the blocks of all processes; call it on all of them.

        Raises:
            Exception: what the step raised on this process.
            RuntimeError: if it failed on another.
        """
        parts: tuple[Tensor, ...] = ()
        error: Exception | None = None
        try:
            parts = self.local_rows.reduce(step, *shared)
        except Exception as caught:
            error = caught
        # What the shapes of a step's sums depend on.
        key = (step.__module__, step.__qualname__, *map(_kind, shared))
        if key not in self._layouts:
            # Who fails does not know how long the message would be; so agree on that first.
            layouts = gather(_layout(parts), error, group=self.group)
            check_same("shapes of the sums", layouts)
            self._layouts[key] = layouts[0]
        layout = self._layouts[key]
        if error is None and _layout(parts) != layout:
            error = ValueError(f"sums of {key} had the shapes {layout}; got {_layout(parts)}")
        return self._sum(parts, layout, error)

    def _sum(
        self, parts: tuple[Tensor, ...], layout: Layout, error: Exception | None
    ) -> tuple[Tensor, ...]:
        """Add up all processes' parts, and with them a count of failures."""
        if error is not None:
            parts = tuple(torch.zeros(s, dtype=t, device=self.device) for s, t in layout)
        totals: dict[int, Tensor] = {}
        failures: Tensor | None = None
        for dtype in dict.fromkeys(dtype for _, dtype in layout):
            own = [number for number, (_, kind) in enumerate(layout) if kind == dtype]
            pieces = [parts[number].reshape(-1) for number in own]
            pieces.append(pieces[0].new_full((1,), 0 if error is None else 1))
            flat = torch.cat(pieces)
            dist.all_reduce(flat, group=self.group)
            *sums, failures = torch.split(flat, [len(piece) for piece in pieces])
            for number, total in zip(own, sums, strict=True):
                totals[number] = total.view(layout[number][0])
        if failures is None or float(failures) > 0:
            gather(None, error, group=self.group)  # raises
        return tuple(totals[number] for number in range(len(layout)))

    def clear(self) -> None:
        """Forget what solvers kept."""
        self.local_rows.clear()


def shared_classes(labels: Any, group: Any = None) -> NDArray[Any]:
    """Return the labels that occur on any process, sorted; call it on all of them.

    Args:
        labels: (n,) labels of this process.
        group: the process group; the default one if None.

    Returns:
        (K,) labels, the same on all processes.

    Raises:
        ValueError: on all processes, if some have numbers and others strings.
    """
    check_group(group)
    own = attempt(lambda: np.unique(as_labels(labels)), group=group)
    found = gather(own, group=group)
    found = [labels for labels in found if len(labels)] or found[:1]
    words = [labels.dtype.kind in "OUS" for labels in found]
    if any(words) and not all(words):
        raise ValueError(
            "ranks differ in their kind of labels: some have strings, others have numbers"
        )
    return np.unique(np.concatenate(found))


def fit_distributed(
    estimator: EstimatorT, X_local: Any, y_local: Any, sample_weight: Any = None, group: Any = None
) -> EstimatorT:
    """Fit an estimator to the examples of all processes; call it on all of them.

    The result is that of one process with all examples, up to the order of summation.

    Args:
        estimator: with the same options on all processes; not of stochastic gradient descent.
        X_local: (n, d) features of this process.
        y_local: (n,) labels of this process; need not be of all classes.
        sample_weight: (n,) weights of at least 0.
        group: the process group; the default one if None.

    Returns:
        The estimator, fitted alike on all processes.

    Raises:
        ValueError: if an argument or an option does not fit; ``RuntimeError`` on the other
            processes where it is one process's argument alone.
        TypeError: if the solver is stochastic gradient descent.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from lastlayer.linear_model import NewtonKrylovSoftmax
        >>> store = dist.HashStore()
        >>> dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        >>> X, y = load_iris(return_X_y=True)
        >>> model = fit_distributed(NewtonKrylovSoftmax(), X, y)
        >>> dist.destroy_process_group()
        >>> round(model.score(X, y), 3)
        0.973

    Source: the splitting by examples is that of Fung et al., "ADMM-Softmax", arXiv 1901.09450.
    """
    check_group(group)
    options = {
        name: value
        for name, value in estimator.get_params().items()
        if name not in ("callback", "device")
    }
    check_same("options", gather(f"{type(estimator).__name__}({options})", group=group))
    classes = shared_classes(y_local, group)

    def build() -> LocalRows | None:
        if not len(y_local):
            return None
        # Not the weights of classes: they need all examples, see fit_rows.
        rows = estimator._examples(X_local, y_local, sample_weight, classes=classes).rows()
        rows.feature_names = getattr(estimator, "feature_names_in_", None)
        return rows

    return estimator.fit_rows(DistributedRows(build, group), classes)


# -- what processes tell each other, besides sums -------------------------------------------------


def check_group(group: Any) -> None:
    """Raise ``RuntimeError`` unless this process is one of an initialized group."""
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "torch.distributed is not initialized: call torch.distributed.init_process_group"
        )
    if dist.get_rank(group) < 0:
        raise RuntimeError("this process is not of the group")


def gather(value: T, error: Exception | None = None, *, group: Any = None) -> list[T]:
    """Return every rank's value; where one had an error, raise on all, so that none waits."""
    message = None if error is None else f"{type(error).__name__}: {error}"
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, (value, message), group=group)
    if error is not None:
        raise error
    failed = [f"rank {rank} failed: {said}" for rank, (_, said) in enumerate(found) if said]
    if failed:
        raise RuntimeError("; ".join(failed))
    return [value for value, _ in found]


def attempt(compute: Callable[[], T], *, group: Any = None) -> T:
    """Return what this rank computes; an error on one rank is raised on all."""
    try:
        result = compute()
    except Exception as error:
        gather(None, error, group=group)
        raise
    gather(None, group=group)
    return result


def check_same(what: str, values: list[Any]) -> None:
    """Raise ``ValueError`` unless the values of all ranks are equal."""
    for rank, value in enumerate(values):
        if value != values[0]:
            raise ValueError(
                f"ranks differ in their {what}: rank 0 has {values[0]}, rank {rank} has {value}"
            )


def _facts(rows: LocalRows) -> dict[str, Any]:
    """Return what the rows of all processes must have alike."""
    classes, names = rows.classes, rows.feature_names
    return {
        "number of features": rows.num_features,
        "names of the features": None if names is None else list(names),
        "dtype": str(rows.dtype),
        "kind of device": rows.device.type,
        "classes": None if classes is None else np.asarray(classes).tolist(),
    }


def _layout(parts: tuple[Tensor, ...]) -> Layout:
    return tuple((tuple(part.shape), part.dtype) for part in parts)


def _kind(argument: object) -> object:
    if isinstance(argument, Tensor):
        return tuple(argument.shape), argument.dtype
    if callable(argument):
        return argument
    return argument if isinstance(argument, int) else type(argument)
