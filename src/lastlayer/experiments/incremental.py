"""Methods times seeds over a sequence of tasks: plan and train them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lastlayer._inputs import blank
from lastlayer.experiments.compare import GridProgress, Job, Kind, file_name, run
from lastlayer.experiments.recipe import Recipe
from lastlayer.incremental import IncrementalConfig, IncrementalRun, learn
from lastlayer.incremental.build import build_untrained, check_head, new_state
from lastlayer.incremental.run import check_remembered, plan_tasks
from lastlayer.longtail import class_counts
from lastlayer.training.build import load_splits
from lastlayer.training.config import merge


def plan_methods(
    recipe: Recipe,
    methods: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    changes: dict[str, Any] | None = None,
) -> list[Job]:
    """Return the runs of a comparison of methods, seed by seed, so that early results are paired.

    Methods of one seed have the same class order, backbone and data.

    Args:
        recipe: the runs' settings, of the kind ``"incremental"``.
        methods: as written on the command line; the first is the baseline.
        seeds: one run per method and seed.
        out: folder of the runs.
        changes: configuration that overrides the recipe's.

    Raises:
        ValueError: if there is no method or seed, a method is named twice or is unknown, or a
            setting does not fit.
    """
    if not methods or not seeds:
        raise ValueError(f"a comparison needs a method and a seed; got {methods}, {list(seeds)}")
    if len(set(methods)) != len(methods):
        raise ValueError(f"a method is named twice in {', '.join(methods)}")
    return [
        Job(
            method,
            recipe.run_config(method, merge(changes or {}, {"seed": seed})),
            out / f"{file_name(method)}-seed{seed}",
        )
        for seed in seeds
        for method in methods
    ]


def run_methods(
    jobs: Sequence[Job], *, parallel: int, progress: GridProgress | None = None
) -> list[str]:
    """Train every job that is not finished, as :func:`~.compare.run` does for single runs."""
    kind = Kind(IncrementalRun, learn, _check_learnable)
    return run(jobs, parallel=parallel, progress=progress, kind=kind)


def _check_learnable(configs: Sequence[IncrementalConfig]) -> None:
    """Divide the classes and build every classifier once."""
    splits = load_splits(configs[0])
    built: list[tuple[Any, ...]] = []
    for config in configs:
        check_remembered(config, splits.num_classes)
        parts = (
            config.model,
            config.head,
            config.regularizer,
            config.correction,
            config.old_classes,
            config.tasks,
        )
        if parts in built or config.data != configs[0].data:
            continue
        plan = plan_tasks(config, splits)
        counts = class_counts(splits)[: plan.sizes[0]]
        state = new_state(config)
        classifier = build_untrained(state, blank(splits.train.inputs), plan.sizes[0], counts)
        check_head(config, classifier.head)
        built.append(parts)
