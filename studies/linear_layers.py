"""Solvers of the convex last layer on random and on propagated features, side by side.

Run ``python studies/linear_layers.py --data mnist --data-dir D`` for random ReLU features of 500,
1,000 and 2,000 columns, likewise ``--data cifar10``. For features of a trained network give its
file: ``lastlayer features RUN --out cifar10-propagated.npz``, then ``--features`` with it. All
solvers minimize the same objective from the same start; SGD has its epochs, the others stop at the
same certified gap. A cell (features x solver) that has its file with the same settings and data is
not run again. It writes a table and a picture per kind of features. The tables of the paper that
ADMM-Softmax comes from are not at hand, so no published numbers stand beside.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from lastlayer._files import atomic_write
from lastlayer.experiments import parse_option
from lastlayer.experiments.linear import LinearSettings, fit_linear
from lastlayer.experiments.linear_data import LinearData, load_linear_data
from lastlayer.experiments.linear_files import plain, with_nan
from lastlayer.linear_model import SOLVERS, RandomFeatures
from lastlayer.report import SolverCurve, TextTable, convergence_figure, save_figure

RESULTS = Path(__file__).resolve().parents[1] / "results" / "linear-layers"
NOTE = (
    "Objective: cross-entropy in nats, summed over the training examples, plus penalty. Above the "
    "best bound: of all solvers of the same features, certified. The paper's own tables are not "
    "at hand; no published numbers stand beside."
)
COLUMNS = (
    "Features",
    "Solver",
    "Iterations",
    "Seconds",
    "Objective",
    "Above the best bound",
    "Train accuracy %",
    "Test accuracy %",
    "Test NLL",
)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--data-option", nargs="+", default=[], help="allow_missing_batches=true")
    parser.add_argument("--features", type=Path, default=None, help="a network's, instead")
    parser.add_argument("--widths", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--solvers", nargs="+", default=SOLVERS.names())
    parser.add_argument("--train-size", type=int, default=None)
    parser.add_argument("--C", type=float, default=1.0)
    parser.add_argument("--tol", type=float, default=1e-4)
    parser.add_argument("--epochs", type=int, default=50, help="of sgd")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def kinds(arguments: argparse.Namespace) -> dict[str, int | None]:
    """Return the width of the random layer by the features' name; None for none."""
    if arguments.features is not None:
        return {"propagated": None}
    return {f"random-{width}": width for width in arguments.widths}


def run_cell(data: LinearData, solver: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fit one solver; then trace its test accuracy, which is not part of the seconds."""
    epochs = arguments.epochs if solver == "sgd" else None
    settings = LinearSettings(
        C=arguments.C, tol=arguments.tol, max_iter=epochs, seed=arguments.seed
    )
    fit = fit_linear(solver, settings.estimator(solver), data, settings, traced=True)
    return {"summary": fit.summary, "history": fit.history}


def cells(
    kind: str, width: int | None, data: LinearData, arguments: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Return every solver's cell: from its file if that has the same settings, else from a run."""
    names = ("C", "tol", "dtype", "seed", "threads", "epochs")
    settings = {name: getattr(arguments, name) for name in names}
    settings |= {"width": width, "data": data.fingerprint()}
    features: LinearData | None = None
    found = {}
    for solver in arguments.solvers:
        path = arguments.out / data.name / f"{kind}-{solver}.json"
        if not path.exists() or json.loads(path.read_text())["settings"] != settings:
            if features is None:
                layer = width and RandomFeatures(width, random_state=arguments.seed)
                features = data.through(layer) if layer else data
            numbers = plain({"settings": settings} | run_cell(features, solver, arguments))
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(numbers, indent=1) + "\n")
            print(f"{data.name} {kind} {solver}: {numbers['summary']['seconds']} s", flush=True)
        found[solver] = json.loads(path.read_text())
    return found


def rows(kind: str, found: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    summaries = {solver: cell["summary"] for solver, cell in found.items()}
    bounds = [s["bound"] for s in summaries.values() if s["bound"] is not None]
    return [
        (
            kind,
            solver,
            str(s["iterations"]),
            f"{s['seconds']:.2f}",
            f"{s['objective']:.6g}",
            f"{max(0.0, s['objective'] / max(bounds) - 1):.1e}" if bounds else "–",
            f"{100 - 100 * s['train']['error']:.2f}",
            f"{100 - 100 * s['test']['error']:.2f}",
            f"{s['test']['nll']:.4f}",
        )
        for solver, s in summaries.items()
    ]


def curve(solver: str, cell: dict[str, Any]) -> SolverCurve:
    history = with_nan(cell["history"])
    test = history["test_accuracy"]
    columns = (history[name] for name in ("seconds", "objective", "bound"))
    return SolverCurve(solver, *columns, test["seconds"], test["accuracy"])


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    data = load_linear_data(
        features=arguments.features,
        data=None if arguments.features is not None else arguments.data,
        data_dir=arguments.data_dir,
        train_size=arguments.train_size,
        seed=arguments.seed,
        dtype=arguments.dtype,
        options=dict(map(parse_option, arguments.data_option)),
    )
    table: list[tuple[str, ...]] = []
    for kind, width in kinds(arguments).items():
        found = cells(kind, width, data, arguments)
        table += rows(kind, found)
        curves = [curve(solver, cell) for solver, cell in found.items()]
        save_figure(convergence_figure(curves), arguments.out / f"{data.name}-{kind}.svg")
    note = f"{NOTE} {len(data.train.labels)} training examples, C = {arguments.C:g}."
    note = " ".join((note, *data.notes))
    text = TextTable(COLUMNS, tuple(table), note).to_markdown()
    (arguments.out / f"{data.name}.md").write_text(text)
    command = ["python", *(w for w in sys.argv if w != str(arguments.data_dir))]
    about = {"command": command, "torch": torch.__version__, "threads": arguments.threads}
    (arguments.out / f"{data.name}.json").write_text(json.dumps(about, indent=1) + "\n")
    print(text, flush=True)


if __name__ == "__main__":
    main()
