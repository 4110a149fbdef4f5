"""From run directories to what is shown: the only place where the report reads files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lastlayer.evaluation import Reliability, reliability, task_confusion
from lastlayer.report.results_table import ComparisonRow
from lastlayer.report.curves import Curve
from lastlayer.report.incremental import IncrementalRow
from lastlayer.report.group_figures import LongTailRow
from lastlayer.training import RunDirectory

#: Paths of finished runs by the label of their head.
Runs = Mapping[str, Sequence[Path]]


def comparison_rows(runs: Runs) -> list[ComparisonRow]:
    """Return one row per head from its finished runs.

    Args:
        runs: paths by head; heads without a finished run are left out.

    Raises:
        ValueError: if a run's summary is corrupt.
    """
    rows = []
    for head, paths in runs.items():
        summaries = [RunDirectory(path).summary() for path in paths if RunDirectory(path).finished]
        if not summaries:
            continue
        measures = [summary["metrics"] for summary in summaries]
        scaled = [s["temperature_scaled"] for s in summaries if "temperature_scaled" in s]
        every_scaled = scaled if len(scaled) == len(summaries) else []
        rows.append(
            ComparisonRow(
                head=head,
                seeds=[int(summary["seed"]) for summary in summaries],
                error=[m["error"] for m in measures],
                nll=[m["nll"] for m in measures],
                brier=[m["brier"] for m in measures],
                ece=[m["ece"] for m in measures],
                ece_pooled=[m["ece_pooled"] for m in measures],
                seconds=[summary["seconds"] for summary in summaries],
                nll_scaled=[m["nll"] for m in every_scaled],
                ece_scaled=[m["ece"] for m in every_scaled],
            )
        )
    return rows


def long_tail_rows(runs: Runs) -> list[LongTailRow]:
    """Return one row per head from its finished runs on long-tailed data.

    Args:
        runs: paths by head; heads without such a run are left out. Seeds whose data were grouped
            in another way than the first one's are left out too.

    Raises:
        ValueError: if a run's summary is corrupt.
    """
    found = []
    for head, paths in runs.items():
        summaries = [RunDirectory(path).summary() for path in paths if RunDirectory(path).finished]
        found += [(head, s, s["long_tail"]) for s in summaries if "long_tail" in s]
    rows = []
    for head in runs:
        own = [
            (summary, tail)
            for name, summary, tail in found
            if name == head and tail["grouping"] == found[0][2]["grouping"]
        ]
        if not own:
            continue
        groups = tuple(own[0][1]["group_accuracy"])
        rows.append(
            LongTailRow(
                head=head,
                seeds=[int(summary["seed"]) for summary, _ in own],
                groups=groups,
                note=own[0][1]["groups"],
                balanced_accuracy=[tail["balanced_accuracy"] for _, tail in own],
                group_accuracy={
                    name: [_number(tail["group_accuracy"][name]) for _, tail in own]
                    for name in groups
                },
                group_confusion=[
                    [[_number(value) for value in row] for row in tail["group_confusion"]]
                    for _, tail in own
                ],
                class_counts=[summary["class_counts"] for summary, _ in own],
                class_accuracy=[[_number(v) for v in tail["class_accuracy"]] for _, tail in own],
            )
        )
    return rows


def incremental_rows(runs: Runs) -> list[IncrementalRow]:
    """Return one row per method from its finished runs on classes that arrive task by task.

    A row holds what the run's own predictor (its classifier, or the nearest mean) reached.

    Args:
        runs: paths by method; methods without such a run are left out.

    Raises:
        ValueError: if a run's summary is corrupt, or two runs have tasks of other sizes.
    """
    rows = []
    first: tuple[Path, list[int]] | None = None
    for method, paths in runs.items():
        summaries = {
            path: RunDirectory(path).summary() for path in paths if RunDirectory(path).finished
        }
        own = {path: s for path, s in summaries.items() if "incremental" in s}
        for path, summary in own.items():
            sizes = summary["incremental"]["sizes"]
            first = first or (path, sizes)
            if sizes != first[1]:
                raise ValueError(
                    "runs must have tasks of the same sizes; "
                    f"{first[0]} has {first[1]}, {path} {sizes}"
                )
        if own:
            rows.append(_incremental_row(method, own))
    return rows


def _incremental_row(method: str, summaries: Mapping[Path, dict[str, Any]]) -> IncrementalRow:
    results = [_of_predictor(path, s["incremental"]) for path, s in summaries.items()]
    entries = [summary["incremental"] for summary in summaries.values()]
    measures = [result["measures"] for result in results]
    sizes = entries[0]["sizes"]
    single = (
        "average_incremental_accuracy",
        "final_accuracy",
        "forgetting",
        "backward_transfer",
    )
    return IncrementalRow(
        method=method,
        seeds=[int(summary["seed"]) for summary in summaries.values()],
        class_sizes=sizes,
        matrices=[[[_number(v) for v in line] for line in m["matrix"]] for m in measures],
        accuracies=[m["accuracies"] for m in measures],
        **{name: [_number(m[name]) for m in measures] for name in single},
        old_as_new=[_number(m["old_as_new"][-1]) for m in measures],
        new_as_old=[_number(m["new_as_old"][-1]) for m in measures],
        task_confusions=[
            task_confusion(result["confusions"][-1], sizes).tolist() for result in results
        ],
        seconds=[summary["seconds"] for summary in summaries.values()],
    )


def _of_predictor(path: Path, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the run's own predictor reached."""
    predictor = entry["predictor"]
    result: Mapping[str, Any] | None = entry.get(predictor)
    if result is None:
        raise ValueError(
            f"{path}: the summary is corrupt: it has no result of its predictor {predictor!r}"
        )
    return result


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def learning_records(runs: Runs, measure: str = "nll") -> list[Curve]:
    """Return one curve per run and split from the records of training."""
    curves = []
    for head, paths in runs.items():
        for path in paths:
            records = RunDirectory(path).metrics()
            for split in ("train", "validation"):
                points = [(r["step"], r.get(measure)) for r in records if r["split"] == split]
                kept = [(step, value) for step, value in points if value is not None]
                if kept:
                    steps, values = zip(*kept, strict=True)
                    curves.append(Curve(head, split, np.asarray(steps), np.asarray(values)))
    return curves


@dataclass(frozen=True, eq=False)
class SamplingRates:
    """What a finished run's sampler learned.

    Attributes:
        steps: (T,) training steps.
        rates: (T, K) rates of the classes.
        class_counts: (K,) training examples.
        class_names: K names.
    """

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
    """Return one reliability table per head over the predictions of all its runs."""
    tables = {}
    for head, paths in runs.items():
        finished = [run for run in map(RunDirectory, paths) if run.finished]
        if not finished:
            continue
        predictions = [run.predictions() for run in finished]
        log_prob = torch.cat([p["log_prob"] for p in predictions])
        target = torch.cat([p["target"] for p in predictions])
        tables[head] = reliability(log_prob, target, kind=kind)
    return tables
