"""How far a linear model's fit is, and what the user should know of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sklearn.exceptions import ConvergenceWarning

from lastlayer.linear_model import LinearSoftmax, PathPoint, Record

#: Called with the solver, the share of its way in [0, 1], and where it stands in words.
LinearProgress = Callable[[str, float, str], None]


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Collect warnings of convergence as sentences; others pass."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield notes
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            notes.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


class FitProgress:
    """Turns records of so many fits into shares of the way: by digits of the gap, or iterations."""

    def __init__(
        self, name: str, estimator: LinearSoftmax, fits: int, progress: LinearProgress | None
    ) -> None:
        self._name, self._fits, self._progress = name, fits, progress
        self._tol, self._max_iter = estimator.tol, estimator.max_iter
        self._done = 0
        self._first = math.inf
        self._share = 0.0

    def record(self, record: Record) -> None:
        """Tell of an iteration."""
        if self._progress is None:
            return
        share = record.iteration / self._max_iter
        if record.iteration == 0:
            self._first, self._share = record.gap, 0.0
        if math.isfinite(self._first) and 0 < self._tol < self._first and record.gap > 0:
            share = math.log(self._first / record.gap) / math.log(self._first / self._tol)
        self._share = min(1.0, max(self._share, share))
        words = f"iteration {record.iteration}, objective {record.objective:.6g}"
        words += f", gap {record.gap:.1e}" if math.isfinite(record.gap) else ""
        if self._fits > 1:
            words = f"fit {self._done + 1} of {self._fits}, {words}"
        self._progress(self._name, (self._done + self._share) / self._fits, words)

    def point(self, point: PathPoint) -> None:
        """Tell of a finished fit of a path."""
        self._done += 1
        if self._progress is not None:
            words = f"C {point.C:g}: held-out NLL {point.nll:.4f}"
            self._progress(self._name, self._done / self._fits, words)
