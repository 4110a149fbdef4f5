"""How well estimators of mutual information do on the five Gaussians, whose information is known.

Run ``python studies/information_estimators.py``. For every dimension, label prior, estimator and
seed it trains the estimator on a fresh sample and estimates on another, all with the same network
sizes and steps. Every finished training is written down at once, so that a run which was stopped
goes on where it stopped. The table has bias (mean less truth), spread over seeds, the mean of the
stated standard errors, and seconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from lastlayer.data.gaussian_mixture import gaussian_mixture
from lastlayer.information import ESTIMATORS, build_estimator

RESULTS = Path(__file__).resolve().parents[1] / "results" / "information-estimators"
PRIORS = {"balanced": True, "unbalanced": False}
HELD_OUT_SEED = 1_000_000  # apart from every training seed


def study(dim: int, prior: str, name: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Train one estimator on one sample and evaluate it on another."""
    task = gaussian_mixture(dim, balanced=PRIORS[prior])
    options = {key: settings[key] for key in ("hidden", "epochs", "batch_size", "learning_rate")}
    estimator = build_estimator(name, seed=seed, **options)
    train = task.sample(settings["train_size"], seed)
    test = task.sample(settings["test_size"], HELD_OUT_SEED + seed)
    start = time.perf_counter()
    try:
        found = estimator.fit(*train).estimate(*test)
    except RuntimeError as error:
        return {"failure": str(error)}
    return {
        "value": found.value,
        "standard_error": found.standard_error,
        "seconds": time.perf_counter() - start,
    }


def load(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Read what is there, or raise if it was made with other settings."""
    if not path.exists():
        return {"torch": torch.__version__, "settings": settings, "results": {}}
    document: dict[str, Any] = json.loads(path.read_text())
    if document["settings"] != settings:
        raise SystemExit(
            f"{path} was made with {document['settings']}, not {settings}; use another --out"
        )
    return document


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return one row per dimension, prior and estimator."""
    lines = [
        "| d | labels | I(X; Y) | estimator | bias | spread | stated error | seconds | runs |",
        "| ---: | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    grouped = itertools.groupby(results.items(), key=lambda item: item[0].rpartition("/")[0])
    for key, group in grouped:
        dim, prior, name = key.split("/")
        truth = gaussian_mixture(int(dim), balanced=PRIORS[prior]).mutual_information
        runs = [run for _, run in group]
        done = [run for run in runs if "value" in run]
        cells = ["–"] * 4
        if done:
            values = [run["value"] for run in done]
            spread = f"{statistics.stdev(values):.4f}" if len(values) > 1 else "–"
            cells = [
                f"{statistics.mean(values) - truth:+.4f}",
                spread,
                f"{statistics.mean(run['standard_error'] for run in done):.4f}",
                f"{statistics.mean(run['seconds'] for run in done):.1f}",
            ]
        counted = f"{len(done)}" + (f" of {len(runs)}" if len(done) < len(runs) else "")
        lines.append(
            f"| {dim} | {prior} | {truth:.6f} | {name} | {' | '.join(cells)} | {counted} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", default="1,2,5,10")
    parser.add_argument("--priors", default=",".join(PRIORS))
    parser.add_argument("--estimators", default=",".join(ESTIMATORS.names()))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train-size", type=int, default=50_000)
    parser.add_argument("--test-size", type=int, default=100_000)
    parser.add_argument("--hidden", default="100,100,100")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=2000)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    build_estimator("pc-softmax", epochs=1).fit(*gaussian_mixture().sample(100, 0))  # warms up
    settings = {
        "train_size": arguments.train_size,
        "test_size": arguments.test_size,
        "hidden": [int(width) for width in arguments.hidden.split(",")],
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "learning_rate": arguments.learning_rate,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "results.json"
    document = load(path, settings)
    results = document["results"]
    wanted = itertools.product(
        map(int, arguments.dims.split(",")),
        arguments.priors.split(","),
        arguments.estimators.split(","),
        range(arguments.seeds),
    )
    for dim, prior, name, seed in wanted:
        key = f"{dim}/{prior}/{name}/{seed}"
        if key in results:
            continue
        results[key] = study(dim, prior, name, seed, settings)
        print(key, results[key], flush=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(document, indent=1) + "\n")
        partial.replace(path)  # a stop in the middle of writing leaves the last state
    # Runs that were added later stand at the end; the table has them beside their seeds.
    ordered = dict(sorted(results.items(), key=lambda item: _order(item[0])))
    (arguments.out / "table.md").write_text(table(ordered))
    print(table(ordered))


def _order(key: str) -> tuple[int, int, int, int]:
    dim, prior, name, seed = key.split("/")
    return int(dim), list(PRIORS).index(prior), ESTIMATORS.names().index(name), int(seed)


if __name__ == "__main__":
    main()
