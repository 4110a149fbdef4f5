"""Linear models by several solvers on the same features: fit, measure, keep, take up again."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline

from lastlayer._checks import check_choice
from lastlayer.experiments.linear_data import AnyPart, LinearData
from lastlayer.experiments.linear_files import Numbers, finished_summary, plain, write_fit
from lastlayer.experiments.linear_progress import FitProgress, LinearProgress, noted_warnings
from lastlayer.linear_model import SOLVERS, LinearSoftmax, RandomFeatures, regularization_path
from lastlayer.linear_model.prepared_data import PreparedData, clone_with


@dataclass(frozen=True)
class LinearSettings:
    """How linear models are fitted.

    Attributes:
        C: inverse strength of the penalty.
        path: strengths to choose C from on held-out examples, instead.
        one_standard_error: whether the strongest penalty within one standard error is chosen.
        tol: certified relative gap at which to stop; the solver's default if None.
        max_iter: most iterations; the solver's default if None.
        intercept: whether there is an intercept.
        class_weight: None or ``"balanced"``.
        random_features: width of a random layer below, or None.
        activation: that layer's nonlinearity.
        seed: of the layer, and of SGD.
    """

    C: float = 1.0
    path: tuple[float, ...] = ()
    one_standard_error: bool = False
    tol: float | None = None
    max_iter: int | None = None
    intercept: bool = True
    class_weight: str | None = None
    random_features: int | None = None
    activation: str = "relu"
    seed: int = 0

    def estimator(self, solver: str, *, device: str | None = None) -> LinearSoftmax:
        """Return the estimator that a solver's name stands for."""
        if self.class_weight is not None:
            check_choice("class_weight", self.class_weight, ("balanced",))
        kind: Any = SOLVERS.get(solver)
        wanted = {
            "C": self.C,
            "tol": self.tol,
            "max_iter": self.max_iter,
            "fit_intercept": self.intercept,
            "class_weight": self.class_weight,
            "random_state": self.seed,
            "device": device,
        }
        known = kind().get_params(deep=False)
        options = {k: v for k, v in wanted.items() if v is not None and k in known}
        estimator: LinearSoftmax = kind(**options)
        estimator._check_options()
        return estimator


@dataclass(frozen=True)
class LinearFit:
    """What a solver came to.

    Attributes:
        model: the fitted estimator, behind its random features if there are any.
        summary: the measures.
        history: the way there: the estimator's ``history_``, and accuracy if it was traced.
    """

    model: Any
    summary: Numbers
    history: Numbers


def fit_solvers(
    solvers: Sequence[str],
    data: LinearData,
    settings: LinearSettings,
    out: Path,
    *,
    device: str | None = None,
    progress: LinearProgress | None = None,
) -> list[Numbers]:
    """Fit every solver that has not finished with these settings and data; return all summaries.

    With several solvers and no path, test accuracy is measured along the way too: by fits to 1, 2,
    4, 8, ... iterations, after the one that is timed, so that they cost as much again.

    Each gets a folder in ``out`` with ``model.npz``, ``history.json`` and ``summary.json``;
    ``reused`` of a summary tells whether it was there.
    """
    if not solvers or len(set(solvers)) < len(solvers):
        raise ValueError(f"solver must name one or more, each once; got {', '.join(solvers)!r}")
    estimators = {name: settings.estimator(name, device=device) for name in solvers}
    described = plain(asdict(settings) | {"data": data.fingerprint()})
    traced = len(solvers) > 1 and not settings.path
    found = {name: finished_summary(out / name, described, traced) for name in solvers}
    waiting = [name for name in solvers if found[name] is None]
    if waiting and settings.random_features is not None:
        layer = RandomFeatures(
            settings.random_features, settings.activation, random_state=settings.seed
        )
        data = data.through(layer)
    for name in waiting:
        fit = fit_linear(name, estimators[name], data, settings, traced=traced, progress=progress)
        summary = plain(fit.summary | {"settings": described})
        write_fit(out / name, fit.model, summary, plain(fit.history))
        found[name] = summary | {"reused": False}
    return [summary for summary in found.values() if summary is not None]


def fit_linear(
    name: str,
    estimator: LinearSoftmax,
    data: LinearData,
    settings: LinearSettings,
    *,
    traced: bool = False,
    progress: LinearProgress | None = None,
) -> LinearFit:
    """Fit one estimator, along a path if the settings have one, and measure it."""
    fit_progress = FitProgress(name, estimator, max(1, len(settings.path)), progress)
    estimator = clone_with(estimator, callback=fit_progress.record)
    path: dict[str, list[float]] | None = None
    with noted_warnings() as notes:
        begin = time.perf_counter()
        if settings.path:
            if data.validation is None:
                raise ValueError("a path needs held-out examples to choose C by")
            points = regularization_path(
                estimator,
                *data.train,
                Cs=settings.path,
                validation=data.validation.held_out,
                callback=fit_progress.point,
            )
            estimator = points.choose(one_standard_error=settings.one_standard_error).model
            path = points.columns()
            seconds = time.perf_counter() - begin
        else:
            prepared = PreparedData(estimator, *data.train)
            prepared.fit(estimator)
            seconds = time.perf_counter() - begin
    history: Numbers = dict(estimator.history_)
    if traced:
        history["test_accuracy"] = _accuracy_on_the_way(estimator, prepared, data.test)
    estimator.callback = None
    objective, bound = min(history["objective"]), max(history["bound"])
    summary = {
        "solver": name,
        "taken": getattr(estimator, "solver_", None),  # of auto, the solver that it chose
        "data": data.name,
        "train_size": data.train.shape[0],
        "features": data.train.shape[1],
        "classes": len(estimator.classes_),
        "C": float(estimator.C),
        "iterations": int(estimator.n_iter_),
        "seconds": round(seconds, 4),
        "objective": objective,
        "bound": bound,
        "gap": max(0.0, objective - bound) / max(abs(objective), 1e-300),
        "converged": bool(estimator.converged_),
        "train": data.train.measure(estimator),
        "test": data.test.measure(estimator),
        "path": path,
        "threads": torch.get_num_threads(),
        "notes": notes,
    }
    model = estimator if data.random is None else make_pipeline(data.random, estimator)
    return LinearFit(model, summary, history)


def _accuracy_on_the_way(
    estimator: LinearSoftmax, prepared: PreparedData, test: AnyPart
) -> Numbers:
    """Return test accuracy after 1, 2, 4, ... iterations and at the end, beside the seconds."""
    seconds, last = estimator.history_["seconds"], len(estimator.history_["seconds"]) - 1
    found: Numbers = {"iteration": [], "seconds": [], "accuracy": []}
    counts = [2**power for power in range(last.bit_length()) if 2**power < last]
    for count in [*counts, last]:
        model = estimator
        if count < last:
            model = clone_with(estimator, max_iter=count, callback=None)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                prepared.fit(model)
        found["iteration"].append(count)
        found["seconds"].append(seconds[count])
        found["accuracy"].append(test.accuracy(model))
    return found
