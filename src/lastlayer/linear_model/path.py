"""One model for each strength of the penalty, and the one that held-out examples prefer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lastlayer.linear_model.base import LinearSoftmax, RowMeasures
from lastlayer.linear_model.prepared_data import PreparedData, clone_with
from lastlayer.linear_model.rows.protocol import Rows
from lastlayer.linear_model.solvers.progress import asks_to_stop

#: The strengths tried if none are given: those of scikit-learn's ``LogisticRegressionCV``.
DEFAULT_CS = tuple(float(C) for C in np.logspace(-4, 4, 10))


@dataclass(frozen=True)
class PathPoint:
    """One fit of a path.

    Attributes:
        C: inverse strength of the penalty.
        model: the fitted estimator.
        nll: mean negative log-likelihood of the held-out examples, in nats.
        standard_error: of that mean.
        accuracy: share of held-out examples that are right.
        seconds: what the fit took.
    """

    C: float
    model: LinearSoftmax
    nll: float
    standard_error: float
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class RegularizationPath:
    """Fits from the strongest penalty to the weakest.

    Attributes:
        points: one per C, C ascending.
    """

    points: tuple[PathPoint, ...]

    @property
    def best(self) -> PathPoint:
        """The fit of least held-out NLL; the stronger penalty of two that are equal."""
        return min(self.points, key=lambda point: point.nll)

    @property
    def one_standard_error(self) -> PathPoint:
        """The strongest penalty whose NLL is within one standard error of the least."""
        limit = self.best.nll + self.best.standard_error
        return next(point for point in self.points if point.nll <= limit)

    def choose(self, *, one_standard_error: bool = False) -> PathPoint:
        """Return the fit of one of the two rules."""
        return self.one_standard_error if one_standard_error else self.best

    def columns(self) -> dict[str, list[float]]:
        """Return C and the measures as lists by name, for JSON."""
        names = ("C", "nll", "standard_error", "accuracy", "seconds")
        return {name: [float(getattr(p, name)) for p in self.points] for name in names}


def regularization_path(
    estimator: LinearSoftmax,
    X: Any,
    y: Any = None,
    *,
    Cs: Sequence[float] = DEFAULT_CS,
    validation: tuple[Any, Any] | Rows,
    sample_weight: Any = None,
    callback: Callable[[PathPoint], object] | None = None,
) -> RegularizationPath:
    """Fit one model per C, each from the weights of the one before, and measure it held out.

    The strongest penalty comes first: its weights are small and soon found. The examples are
    checked, and their Gram matrix is formed, once for all fits.

    Args:
        estimator: gives all options but C; it is not changed.
        X: (n, d) features to fit to; or rows, such as of files, with their labels.
        y: (n,) labels of features.
        Cs: inverse strengths, above 0, in any order.
        validation: features and labels that the fits do not see, or rows; C is chosen by them, so
            measure the chosen model on others.
        sample_weight: (n,) weights of features in the fits.
        callback: called with every :class:`PathPoint`; returning True ends the path.

    Returns:
        The :class:`RegularizationPath`.

    Raises:
        TypeError: if the estimator is none of this package.
        ValueError: if there is no C, one comes twice, or held-out labels are not of the classes.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from lastlayer.linear_model import LBFGSSoftmax
        >>> X, y = load_iris(return_X_y=True)
        >>> held_out = (X[1::2], y[1::2])
        >>> path = regularization_path(
        ...     LBFGSSoftmax(), X[::2], y[::2], Cs=[0.01, 1, 100], validation=held_out
        ... )
        >>> path.best.C, path.best.accuracy > 0.95
        (100.0, True)
    """
    strengths = sorted(float(C) for C in Cs)
    if not strengths or len(set(strengths)) != len(strengths):
        raise ValueError(f"Cs must hold different numbers, one or more; got {list(Cs)}")
    prepared = PreparedData(estimator, X, y, sample_weight)
    models = [clone_with(estimator, C=C) for C in strengths]
    for model in models:
        model._check_options()
    held_out = _measurement(validation, prepared.classes)
    points: list[PathPoint] = []
    for model in models:
        begin = time.perf_counter()
        prepared.fit(model, start=points[-1].model if points else None)
        seconds = time.perf_counter() - begin
        nll, error, accuracy, _ = held_out(model)
        points.append(PathPoint(float(model.C), model, nll, error, accuracy, seconds))
        if callback is not None and asks_to_stop(callback(points[-1])):
            break
    return RegularizationPath(tuple(points))


def _measurement(
    validation: tuple[Any, Any] | Rows, classes: NDArray[Any]
) -> Callable[[LinearSoftmax], RowMeasures]:
    """Return what measures a model on held-out examples, which are checked here."""
    if isinstance(validation, Rows):
        return lambda model: model.measure_rows(validation)
    features, labels = validation
    given = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if given.ndim != 1 or not len(given):
        raise ValueError(f"validation needs labels of shape (m,), m >= 1; got shape {given.shape}")
    unknown = np.setdiff1d(given, classes)
    if len(unknown):
        raise ValueError(
            f"validation has labels that no example to fit to has: {unknown[:5].tolist()}"
        )
    target = torch.from_numpy(np.searchsorted(classes, given).astype(np.int64))
    return lambda model: _held_out(model, features, target)


def _held_out(model: LinearSoftmax, features: Any, target: Tensor) -> RowMeasures:
    log_prob = torch.as_tensor(model.predict_log_proba(features)).detach().cpu().double()
    if len(log_prob) != len(target):
        raise ValueError(f"validation has {len(log_prob)} rows but {len(target)} labels")
    rows = -log_prob.gather(1, target.unsqueeze(1)).squeeze(1)
    error = float(rows.std()) / math.sqrt(len(rows)) if len(rows) > 1 else math.inf
    accuracy = float((log_prob.argmax(1) == target).double().mean())
    return RowMeasures(float(rows.mean()), error, accuracy, len(rows))
