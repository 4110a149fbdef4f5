"""Solvers of one convex problem: how near the optimum, and how good on test data, by when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from lastlayer.report.style import COLORS, MUTED, Array, as_array, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class SolverCurve:
    """One solver's way.

    Attributes:
        name: of the solver.
        seconds: (T,) since it began, ascending.
        objective: (T,).
        bound: (T,) lower bounds of the minimum; NaN or minus infinity where there is none.
        test_seconds: (S,) when test accuracy was measured.
        test_accuracy: (S,) in [0, 1].
    """

    name: str
    seconds: ArrayLike
    objective: ArrayLike
    bound: ArrayLike
    test_seconds: Sequence[float] = field(default=())
    test_accuracy: Sequence[float] = field(default=())


def convergence_figure(curves: Sequence[SolverCurve]) -> Figure:
    """Objective above the best lower bound of all solvers, and test accuracy, against seconds.

    Where no solver has a bound, the least objective of all takes its place; the solver that found
    it then ends where it found it.

    Args:
        curves: one per solver, all of the same objective.

    Returns:
        A matplotlib figure; time and gap are on logarithmic axes.

    Raises:
        ValueError: if there is no curve, or the lengths of one differ.

    >>> curve = SolverCurve("lbfgs", [0.1, 0.2], [3.0, 2.0], [1.0, 1.9], [0.2], [0.9])
    >>> [axes.get_yscale() for axes in convergence_figure([curve]).axes]
    ['log', 'linear']
    """
    if not curves:
        raise ValueError("curves must not be empty")
    bounds = np.concatenate([np.asarray(curve.bound, dtype=np.float64) for curve in curves])
    bounds = bounds[np.isfinite(bounds)]
    certified = len(bounds) > 0
    floor = bounds.max() if certified else min(np.min(np.asarray(c.objective)) for c in curves)
    traced = any(len(curve.test_seconds) for curve in curves)
    with style():
        figure = new_figure(8.4 if traced else 4.8, 3.4)
        panels = figure.subplots(1, 1 + traced, squeeze=False)[0]
        for index, curve in enumerate(curves):
            color = COLORS[index % len(COLORS)]
            seconds, objective = _points(curve)
            gap = (objective - floor) / max(abs(floor), 1e-300)
            gap[gap <= 0] = np.nan
            panels[0].plot(seconds, gap, color=color, label=curve.name, marker="o", ms=2.5)
            if traced:
                accuracy = 100 * np.asarray(curve.test_accuracy, dtype=np.float64)
                panels[1].plot(curve.test_seconds, accuracy, color=color, marker="o", ms=2.5)
        against = "best lower bound" if certified else "least one found"
        panels[0].set(yscale="log", ylabel=f"objective above the {against}, relative")
        if traced:
            panels[1].set(ylabel="test accuracy %")
        for axes in panels:
            axes.set(xscale="log", xlabel="seconds")
            axes.grid()
            axes.set_axisbelow(True)
            axes.tick_params(which="minor", color=MUTED)
        figure.legend(loc="outside right upper")
    return figure


def path_figure(paths: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Held-out NLL along a regularization path, with one standard error, and accuracy.

    Args:
        paths: by solver the lists ``C``, ``nll``, ``standard_error`` and ``accuracy``.

    Returns:
        A matplotlib figure; the ring marks the least NLL.

    Raises:
        ValueError: if there is no path.

    >>> path = {"C": [0.1, 1], "nll": [0.5, 0.4], "standard_error": [0.1, 0.1]}
    >>> len(path_figure({"lbfgs": path | {"accuracy": [0.8, 0.9]}}).axes)
    2
    """
    if not paths:
        raise ValueError("paths must not be empty")
    with style():
        figure = new_figure(8.4, 3.2)
        left, right = figure.subplots(1, 2)
        for index, (name, path) in enumerate(paths.items()):
            color = COLORS[index % len(COLORS)]
            C, nll, error, accuracy = (
                as_array(key, path[key], 1) for key in ("C", "nll", "standard_error", "accuracy")
            )
            best = int(nll.argmin())
            left.errorbar(C, nll, error, color=color, label=name, marker="o", ms=3, elinewidth=0.8)
            left.plot(C[best], nll[best], "o", ms=9, mfc="none", mec=color)
            right.plot(C, 100 * accuracy, color=color, marker="o", ms=3)
        left.set(ylabel="held-out NLL (nats)")
        right.set(ylabel="held-out accuracy %")
        for axes in (left, right):
            axes.set(xscale="log", xlabel="C: weaker penalty to the right")
            axes.grid(axis="y")
        figure.legend(loc="outside right upper")
    return figure


def _points(curve: SolverCurve) -> tuple[Array, Array]:
    seconds = as_array(f"seconds of {curve.name!r}", curve.seconds, 1)
    objective = as_array(f"objective of {curve.name!r}", curve.objective, 1)
    if len(seconds) != len(objective) or len(curve.test_seconds) != len(curve.test_accuracy):
        raise ValueError(f"the lists of {curve.name!r} must have one length per axis")
    return np.maximum(seconds, 1e-6), objective  # a logarithmic axis has no 0
