"""Seconds to a relative gap of 1e-3 and 1e-6: our solvers beside scikit-learn's, on two cores.

Run ``python benchmarks/linear_solvers.py``; ``--problems digits,digits-relu`` for some of them. All
solvers of a problem run one after another in one process on the same arrays, each until its
objective stands still or its time is up. Our time counts from the call of ``fit``. Scikit-learn's
objective is read where it computes it, so that a single run shows both times. The minimum is the
least that any of them finds. Finished cells are kept and not run again with the same settings.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paired import RESULTS, write_results
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model._linear_loss import LinearModelLoss

from lastlayer.data import load
from lastlayer.linear_model import (
    ADMMSoftmax,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
    SGDSoftmax,
    SoftmaxRegression,
)
from lastlayer.linear_model.estimators import NEWTON_PRODUCTS

TARGETS = (1e-3, 1e-6)
Data = tuple[np.ndarray, np.ndarray]
Trace = list[tuple[float, float]]  # seconds, objective


class TimeUpError(Exception):
    """Ends a solver of scikit-learn from within."""


def digits(relu: int = 0) -> Data:
    features, labels = load_digits(return_X_y=True)
    features = features / 16
    return (random_relu(features, relu) if relu else features), labels


def mnist(relu: int, count: int, data_dir: Path | None) -> Data:
    train = load("mnist", data_dir=data_dir, validation_size=0).train
    pixels = train.inputs.flatten(1).numpy().astype(np.float64)
    chosen = np.random.default_rng(0).permutation(len(pixels))[:count]
    return random_relu(pixels[chosen], relu), train.target.numpy()[chosen]


def random_relu(features: np.ndarray, count: int) -> np.ndarray:
    """Return an extreme learning machine's hidden layer."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(features.shape[1], count)) / math.sqrt(features.shape[1])
    return np.maximum(features @ weights + 0.1 * rng.normal(size=count), 0.0)


def power_law(count: int, width: int, classes: int) -> Data:
    """Features of a power-law spectrum in a random basis, non-zero mean and row norm 10."""
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, width + 1) ** -0.5
    basis = np.linalg.qr(rng.normal(size=(width, width)))[0]
    features = (rng.normal(size=(count, width)) + 0.5 * rng.normal(size=width)) * spectrum
    features = features @ basis
    features *= 10 / np.linalg.norm(features, axis=1, keepdims=True)
    logits = features @ rng.normal(size=(width, classes))
    return features, (logits + rng.gumbel(size=logits.shape)).argmax(1)


def problems(data_dir: Path | None) -> dict[str, tuple[Callable[[], Data], float]]:
    """Return data and C by name."""
    return {
        "digits": (digits, 1.0),
        "digits, C=1000": (digits, 1000.0),
        "digits + 2000 relu": (lambda: digits(2000), 1.0),
        "digits + 2000 relu, C=1000": (lambda: digits(2000), 1000.0),
        "MNIST + 1000 relu": (lambda: mnist(1000, 60_000, data_dir), 1.0),
        "50000 x 256, K=10": (lambda: power_law(50_000, 256, 10), 1.0),
        "20000 x 512, K=100, C=.316": (lambda: power_law(20_000, 512, 100), 0.316),
        "20000 x 512, K=100, C=10": (lambda: power_law(20_000, 512, 100), 10.0),
        "10000 x 256, K=1000": (lambda: power_law(10_000, 256, 1000), 1.0),
    }


def ours(name: str, C: float, budget: float) -> Callable[[np.ndarray, np.ndarray], Trace]:
    options: dict[str, Any] = {"tol": 1e-12, "max_iter": 100_000}
    kinds = {
        "auto": SoftmaxRegression,
        "lbfgs": LBFGSSoftmax,
        "newton-krylov": NewtonKrylovSoftmax,
        "admm": ADMMSoftmax,
        "admm, pure": lambda C, **o: ADMMSoftmax(C, polish=False, **o),
        "sgd": lambda C, **o: SGDSoftmax(C, random_state=0, **o),
    }

    def run(features: np.ndarray, labels: np.ndarray) -> Trace:
        trace: Trace = []
        start = time.perf_counter()

        def note(record: Any) -> bool:
            trace.append((time.perf_counter() - start, record.objective))
            return trace[-1][0] > budget or _stalled(trace)

        kinds[name](C, callback=note, **options).fit(features, labels)
        return trace

    return run


def scikit(name: str, C: float, budget: float) -> Callable[[np.ndarray, np.ndarray], Trace]:
    def run(features: np.ndarray, labels: np.ndarray) -> Trace:
        model = LogisticRegression(C=C, solver=name, tol=1e-12, max_iter=100_000)
        with recorded(len(labels), budget) as trace, suppress(TimeUpError):
            model.fit(features, labels)
        return trace

    return run


def saga(C: float, budget: float) -> Callable[[np.ndarray, np.ndarray], Trace]:
    """It computes no objective: fits of ever more epochs, each from the start."""

    def run(features: np.ndarray, labels: np.ndarray) -> Trace:
        trace: Trace = []
        epochs, spent = 2, 0.0
        while spent < budget:
            model = LogisticRegression(C=C, solver="saga", tol=0.0, max_iter=epochs, random_state=0)
            start = time.perf_counter()
            model.fit(features, labels)
            seconds = time.perf_counter() - start
            spent += seconds
            trace.append((seconds, objective(model, features, labels, C)))
            epochs = math.ceil(1.4 * epochs)
        return trace

    return run


def objective(model: Any, features: np.ndarray, labels: np.ndarray, C: float) -> float:
    logits = features @ model.coef_.T + model.intercept_
    top = logits.max(1, keepdims=True)
    picked = logits[np.arange(len(labels)), np.searchsorted(model.classes_, labels)]
    loss = (np.log(np.exp(logits - top).sum(1)) + top[:, 0] - picked).sum()
    return float(loss + (model.coef_**2).sum() / (2 * C))


@contextmanager
def recorded(count: int, budget: float) -> Iterator[Trace]:
    """Note every objective that scikit-learn computes, times the number of examples."""
    trace: Trace = []
    start = time.perf_counter()
    kept = {name: getattr(LinearModelLoss, name) for name in ("loss", "loss_gradient")}
    kept |= {"gradient_hessian": LinearModelLoss.gradient_hessian}

    def wrap(name: str) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            found = kept[name](self, *args, **kwargs)
            seconds = time.perf_counter() - start
            if name != "gradient_hessian":
                value = found[0] if name == "loss_gradient" else found
                trace.append((seconds, count * float(value)))
            if seconds > budget or _stalled(trace):
                raise TimeUpError
            return found

        return call

    for name in kept:
        setattr(LinearModelLoss, name, wrap(name))
    try:
        yield trace
    finally:
        for name, function in kept.items():
            setattr(LinearModelLoss, name, function)


def _stalled(trace: Trace) -> bool:
    """Return whether fifty looks at the objective brought less than a thousand-millionth of it."""
    if len(trace) < 100:
        return False
    before, after = (min(value for _, value in part) for part in (trace[:-50], trace[-50:]))
    return before - after < 1e-9 * abs(after)


def seconds_to(trace: Trace, least: float, target: float) -> float | None:
    """Return when the objective was first within a relative gap, or None."""
    limit = least + target * abs(least)
    return next((seconds for seconds, value in trace if value <= limit), None)


def solve(C: float, size: int, width: int, budget: float) -> dict[str, Any]:
    """Return the runners of a problem; those that could not finish are left out by their cost."""
    # "auto" is one of L-BFGS and Newton-Krylov; the other stands beside it.
    other = "lbfgs" if size <= NEWTON_PRODUCTS else "newton-krylov"
    found = {f"lastlayer {n}": ours(n, C, budget) for n in ("auto", other, "admm")}
    found |= {f"lastlayer {n}": ours(n, C, min(budget, 10.0)) for n in ("admm, pure", "sgd")}
    found |= {f"scikit-learn {n}": scikit(n, C, budget) for n in ("lbfgs", "newton-cg")}
    if width <= 3000:  # its Hessian has (d K)^2 entries
        found["scikit-learn newton-cholesky"] = scikit("newton-cholesky", C, budget)
    if size <= 2e7:
        found["scikit-learn saga"] = saga(C, budget)
    return found


def table(results: dict[str, Any]) -> str:
    names = list(dict.fromkeys(name for cell in results.values() for name in cell["seconds"]))
    lines = ["| problem | gap | " + " | ".join(names) + " | first |"]
    lines.append("| --- | --- |" + " ---: |" * len(names) + " --- |")
    for problem, cell in results.items():
        for target in TARGETS:
            times = {n: s[str(target)] for n, s in cell["seconds"].items()}
            done = {n: s for n, s in times.items() if s is not None}
            best = min(done, key=done.__getitem__) if done else "-"
            shown = [
                "" if n not in times else "–" if times[n] is None else f"{times[n]:.3g}"
                for n in names
            ]
            lines.append(f"| {problem} | {target:g} | {' | '.join(shown)} | {best} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--problems", default=None, help="names separated by semicolons")
    parser.add_argument("--budget", type=float, default=40.0, help="seconds for one solver")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "linear-solvers.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", FutureWarning)
    known = problems(arguments.data_dir)
    wanted = arguments.problems.split(";") if arguments.problems else list(known)
    settings = {"budget": arguments.budget, "threads": arguments.threads}
    results: dict[str, Any] = {}
    if arguments.out.exists():
        kept = json.loads(arguments.out.read_text())
        if all(kept[name] == value for name, value in settings.items()):
            results = kept["results"]
    for name in wanted:
        if name in results:
            continue
        make, C = known[name]
        features, labels = make()
        classes = len(np.unique(labels))
        size, width = features.size * classes, features.shape[1] * classes
        LBFGSSoftmax(max_iter=2, tol=0.5).fit(features[:1000], labels[:1000] % 2)  # warms up
        runners = solve(C, size, width, arguments.budget)
        traces = {}
        for solver, run in runners.items():
            traces[solver] = run(features, labels)
            seconds, value = traces[solver][-1]
            print(f"{name}: {solver}: {value:.8f} after {seconds:.1f} s", flush=True)
        least = min(value for trace in traces.values() for _, value in trace)
        times = {n: {str(t): seconds_to(r, least, t) for t in TARGETS} for n, r in traces.items()}
        results[name] = {
            "C": C,
            "shape": [*features.shape, classes],
            "minimum": least,
            "seconds": times,
            "traces": {n: _thinned(trace) for n, trace in traces.items()},
        }
        write_results(arguments.out, results, **settings)
    arguments.out.with_suffix(".md").write_text(table(results))
    print(table(results))


def _thinned(trace: Trace) -> list[list[float]]:
    step = max(1, len(trace) // 60)
    return [[round(s, 4), value] for s, value in (*trace[::step], trace[-1])]


if __name__ == "__main__":
    main()
