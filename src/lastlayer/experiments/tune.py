"""The same search for every variant, judged on held-out examples and never on the test set."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lastlayer.evaluation import mean_sd
from lastlayer.experiments.jobs import GridProgress, Job, file_name, plan, run
from lastlayer.experiments.recipe import Recipe
from lastlayer.training import RunDirectory
from lastlayer.training.config import merge
from lastlayer.training.variants import nest

Grid = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Trial:
    """One point of the grid for one variant.

    Attributes:
        variant: as written on the command line.
        setting: the grid's entries.
        error: mean held-out error over the seeds.
        nll: mean held-out NLL over the seeds, in nats.
        seeds: number of seeds that finished.
    """

    variant: str
    setting: dict[str, Any]
    error: float
    nll: float
    seeds: int


def tune_variants(
    recipe: Recipe,
    variants: Sequence[str],
    grid: Grid,
    seeds: Sequence[int],
    out: Path,
    *,
    parallel: int,
    changes: dict[str, Any] | None = None,
    progress: GridProgress | None = None,
) -> tuple[list[Trial], list[str]]:
    """Try every setting for every variant.

    Args:
        recipe: what the settings are changes of.
        variants: as written on the command line.
        grid: values by dotted entry of the configuration, such as ``optimizer.lr``.
        seeds: runs per variant and setting.
        out: folder of the runs; a second call takes up where a first was stopped.
        parallel: processes side by side.
        changes: configuration that overrides the recipe's for all runs.
        progress: called now and then.

    Returns:
        Trials by variant, the best (held-out error, then NLL) first, and messages of failed runs.
    """
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    planned: list[tuple[str, dict[str, Any], Job]] = []
    for point in points:
        nested = merge(changes or {}, {"evaluate_on": "validation"})
        for entry, value in point.items():
            nested = merge(nested, nest(entry, value))
        setting = ",".join(f"{key}={value}" for key, value in point.items())
        jobs = plan(recipe, variants, seeds, out / file_name(setting or "as-is"), nested)
        planned += [(job.label, point, job) for job in jobs]
    errors = run([job for _, _, job in planned], parallel=parallel, progress=progress)
    trials = []
    for variant, point in itertools.product(variants, points):
        jobs = [job for label, setting, job in planned if label == variant and setting == point]
        runs = [found for found in (RunDirectory(job.path) for job in jobs) if found.finished]
        measures = [found.summary()["metrics"] for found in runs]
        if measures:
            error, nll = (mean_sd([m[name] for m in measures])[0] for name in ("error", "nll"))
            trials.append(Trial(variant, point, error, nll, len(measures)))
    order = list(variants)
    return sorted(trials, key=lambda t: (order.index(t.variant), t.error, t.nll)), errors
