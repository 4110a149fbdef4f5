"""From run directories to what is shown: the only place where the report reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lastlayer._checks import check_choice
from lastlayer._files import read_json, with_nan
from lastlayer.data.collages import digit_collages
from lastlayer.evaluation import Reliability, confusion_counts, measures_of, reliability
from lastlayer.information import filter_object, posterior_threshold
from lastlayer.information.filtering import Filtered
from lastlayer.report.convergence import SolverCurve
from lastlayer.report.curves import Curve
from lastlayer.report.kinds import KINDS
from lastlayer.report.rows import Row
from lastlayer.training import RunDirectory
from lastlayer.training.fit import load_classifier, load_run_splits

#: Paths of runs by the variant they are of.
Runs = Mapping[str, Sequence[Path]]


def collect_rows(runs: Runs) -> dict[str, list[Row]]:
    """Return the rows of every table, one per variant, from its finished runs.

    A variant without a run for a table is left out of it, and so is a measure that one of its runs
    was not measured by. Runs on long-tailed data whose classes are grouped in another way than the
    first one's are left out; a row of tasks holds what the run's own predictor reached.

    Args:
        runs: paths by variant.

    Returns:
        Rows by table: ``"heads"``, ``"groups"`` and ``"tasks"``.

    Raises:
        ValueError: if a run's summary is corrupt, or two runs have tasks of other sizes.
    """
    finished = [
        (name, run, run.summary())
        for name, paths in runs.items()
        for run in map(RunDirectory, paths)
        if run.finished
    ]
    return {table: _rows_of(table, finished) for table in KINDS}


_Finished = tuple[str, RunDirectory, dict[str, Any]]


def _rows_of(table: str, finished: Sequence[_Finished]) -> list[Row]:
    kind = KINDS[table]
    own = [each for each in finished if kind.applies(each[2])]
    by_name: dict[str, list[_Finished]] = {}
    for each in own:
        first, this = kind.alike(own[0][2]), kind.alike(each[2])
        if this == first:
            by_name.setdefault(each[0], []).append(each)
        elif kind.must_be_alike is not None:
            raise ValueError(
                f"runs must have {kind.must_be_alike}; {own[0][1].path} has {first}, "
                f"{each[1].path} {this}"
            )
    return [_row(name, table, found) for name, found in by_name.items()]


def _row(name: str, table: str, found: Sequence[_Finished]) -> Row:
    kind = KINDS[table]
    values: dict[str, list[float]] = {}
    details: dict[str, list[Any]] = {each: [] for each in kind.details}
    for _, run, summary in found:
        try:
            for measure in measures_of(table).values():
                value = measure.of(summary, run.predictions)
                if value is not None:
                    values.setdefault(measure.name, []).append(value)
            for each, read in kind.details.items():
                details[each].append(with_nan(read(summary)))
        except ValueError as error:
            raise ValueError(f"{run.path}: {error}") from error
    return Row(
        name,
        [int(summary["seed"]) for _, _, summary in found],
        {each: numbers for each, numbers in values.items() if len(numbers) == len(found)},
        table,
        {each: read(found[0][2]) for each, read in kind.shared.items()},
        details,
    )


def learning_records(runs: Runs, measure: str = "nll") -> list[Curve]:
    """Return one curve per run and split from the records of training."""
    curves = []
    for name, paths in runs.items():
        for path in paths:
            records = RunDirectory(path).metrics()
            for split in ("train", "validation"):
                points = [(r["step"], r.get(measure)) for r in records if r["split"] == split]
                kept = [(step, value) for step, value in points if value is not None]
                if kept:
                    steps, values = zip(*kept, strict=True)
                    curves.append(Curve(name, split, np.asarray(steps), np.asarray(values)))
    return curves


class SamplingRates(NamedTuple):
    """The (T,) steps and (T, K) rates of a run's sampler, and its classes' counts and names."""

    steps: np.ndarray
    rates: np.ndarray
    class_counts: list[int]
    class_names: list[str]


def sampling_rates(path: Path) -> SamplingRates | None:
    """Return the rates that a run's sampler learned; None if it has none or is not finished."""
    run = RunDirectory(path)
    if not run.finished:
        return None
    records = [record for record in run.metrics() if record["split"] == "rates"]
    summary = run.summary()
    if not records or "class_counts" not in summary:
        return None
    return SamplingRates(
        np.asarray([record["step"] for record in records]),
        np.asarray([record["rates"] for record in records]),
        summary["class_counts"],
        summary["class_names"],
    )


def reliability_tables(runs: Runs, kind: str = "top1") -> dict[str, Reliability]:
    """Return one reliability table per variant over the predictions of all its finished runs."""
    tables = {}
    for name, paths in runs.items():
        stored = [run.predictions() for run in map(RunDirectory, paths) if run.finished]
        if stored:
            log_prob, target = (
                torch.cat([each[entry] for each in stored]) for entry in ("log_prob", "target")
            )
            tables[name] = reliability(log_prob, target, kind=kind)
    return tables


def confusion_counts_of(paths: Sequence[Path]) -> Tensor:
    """Return the (K, K) counts of labels and predictions over finished runs of one variant."""
    total = torch.zeros((), dtype=torch.int64)
    for path in paths:
        stored = RunDirectory(path).predictions()
        prediction, num_classes = stored["log_prob"].argmax(dim=1), stored["log_prob"].shape[1]
        total = total + confusion_counts(prediction, stored["target"], num_classes)
    return total


class Solvers(NamedTuple):
    """Solvers' ways to the optimum, and by solver held-out measures along a path of penalties."""

    curves: list[SolverCurve]
    paths: dict[str, dict[str, list[float]]]


def read_solvers(paths: Sequence[Path]) -> Solvers:
    """Read folders of ``lastlayer fit-linear``, or of single solvers in them."""
    found = Solvers([], {})
    for path in paths:
        files = [path / "history.json"] if (path / "history.json").is_file() else None
        files = files or sorted(path.glob("*/history.json"))
        if not files:
            raise FileNotFoundError(f"{path} is no folder of lastlayer fit-linear")
        for file in files:
            name, history = file.parent.resolve().name, read_json(file)
            test = history.get("test_accuracy", {"seconds": [], "accuracy": []})
            seconds, objective, bound = (
                with_nan(history[entry]) for entry in ("seconds", "objective", "bound")
            )
            found.curves.append(
                SolverCurve(name, seconds, objective, bound, test["seconds"], test["accuracy"])
            )
            along = read_json(file.with_name("summary.json"))["path"]
            if along is not None:
                found.paths[name] = along
    return found


EMPTY = 0.5  # of the mean ink of an image; windows of a collage with less are background


def filter_collages(
    run: RunDirectory, target: int, *, count: int, posterior: float, seed: int, data_dir: str | None
) -> tuple[Tensor, Filtered, tuple[int, int], int]:
    """Erase a class from collages of a run's test images, by the run's own classifier.

    Windows go where the class's probability is above ``posterior``; images are in [0, 1], with
    empty background. Returns the collages, what filtering left of them, the windows' size and their
    stride.
    """
    test = load_run_splits(run, data_dir=data_dir).test
    if test.inputs.dim() != 4:
        raise ValueError(f"filtering needs images; the inputs of {run.path} have another shape")
    height, width = test.inputs.shape[-2:]
    check_choice("target", target, range(len(run.summary()["class_names"])))
    collages = digit_collages(
        test.inputs, test.target, count, chosen=target, gap=height // 2, seed=seed
    ).images
    prior = torch.tensor(run.summary()["class_counts"], dtype=torch.float64)
    prior /= prior.sum()
    stride = max(1, min(height, width) // 8)
    filtered = filter_object(
        load_classifier(run),
        collages,
        target,
        (height, width),
        posterior_threshold(posterior, float(prior[target])),
        stride=stride,
        log_prior=prior.log().float(),
        min_ink=EMPTY * float(test.inputs.float().mean()),
    )
    return collages, filtered, (height, width), stride
