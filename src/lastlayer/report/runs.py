"""From run directories to what is shown: the only place where the report reads files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lastlayer.evaluation import Reliability, reliability
from lastlayer.report.comparison import ComparisonRow
from lastlayer.report.curves import Curve
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
    counts = [s["class_counts"] for s in summary.get("stages", ()) if "class_counts" in s]
    if not records or not counts:
        return None
    return SamplingRates(
        np.asarray([record["step"] for record in records]),
        np.asarray([record["rates"] for record in records]),
        counts[-1],
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
