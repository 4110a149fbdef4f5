"""Heads times seeds: train them in parallel, side by side on equal terms."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed

from lastlayer.experiments.recipe import Recipe
from lastlayer.longtail import class_counts
from lastlayer.training import RunConfig, RunDirectory, train
from lastlayer.training.build import build_classifier, load_splits
from lastlayer.training.config import merge

#: Called with steps done, steps in all, runs done, runs in all.
GridProgress = Callable[[int, int, int, int], None]

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """One run of a comparison."""

    label: str
    config: RunConfig
    path: Path


@dataclass(frozen=True)
class Kind:
    """What sets one kind of run apart from another.

    Attributes:
        directory: its run directory.
        train: called with the configuration, the path and ``resume=True``.
        check: reads the data and builds what is to be trained, so that a mistake is found before.
    """

    directory: type[RunDirectory]
    train: Callable[..., object]
    check: Callable[[Sequence[Any]], None]


def plan(
    recipe: Recipe,
    heads: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    changes: dict[str, Any] | None = None,
) -> list[Job]:
    """Return the runs of a comparison, seed by seed, so that early results are paired.

    Args:
        recipe: the runs' settings.
        heads: heads as written on the command line; the first is the baseline.
        seeds: one run per head and seed.
        out: folder of the runs.
        changes: configuration that overrides the recipe's.

    Raises:
        ValueError: if there is no head or seed, a head is named twice or does not exist, or a
            setting does not fit.
    """
    if not heads or not seeds:
        raise ValueError(f"a comparison needs a head and a seed; got {list(heads)}, {list(seeds)}")
    if len(set(heads)) != len(heads):
        raise ValueError(f"a head is named twice in {', '.join(heads)}")
    jobs = []
    for seed in seeds:
        for label in heads:
            config = recipe.run_config(label, merge(changes or {}, {"seed": seed}))
            jobs.append(Job(label, config, out / f"{file_name(label)}-seed{seed}"))
    _check_buildable({job.label: job.config for job in jobs})
    return jobs


def run(
    jobs: Sequence[Job],
    *,
    parallel: int,
    progress: GridProgress | None = None,
    kind: Kind | None = None,
) -> list[str]:
    """Train every job that is not finished; a second call takes up where a first was stopped.

    Args:
        jobs: the runs.
        parallel: processes side by side, each with one torch thread.
        progress: called now and then.
        kind: of the runs; training of one classifier each if None.

    Returns:
        One message per run that failed; the others are finished.

    Raises:
        FileNotFoundError: if the data are missing.
        ValueError: if a classifier cannot be built, or a run is there with another configuration.
    """
    kind = Kind(RunDirectory, train, _check_trainable) if kind is None else kind
    for job in jobs:
        kind.directory(job.path).check_config(job.config)
    waiting = [job for job in jobs if not RunDirectory(job.path).finished]
    if waiting:
        kind.check([job.config for job in waiting])
    with _reporting(jobs, progress):
        errors = Parallel(n_jobs=min(parallel, max(1, len(waiting))), batch_size=1)(
            delayed(_train_job)(job, kind.train) for job in waiting
        )
    return [error for error in errors if error]


def _check_trainable(configs: Sequence[RunConfig]) -> None:
    """Read the data and build every classifier once, so that a mistake is found before training."""
    splits = load_splits(configs[0])
    built: list[tuple[Any, ...]] = []
    for config in configs:
        for stage in (config, config.first_stage()):
            parts = (stage.model, stage.head, stage.regularizer)
            if parts not in built and config.data == configs[0].data:
                build_classifier(
                    stage, splits.input_shape, splits.num_classes, class_counts=class_counts(splits)
                )
                built.append(parts)


def _train_job(job: Job, train_run: Callable[..., object]) -> str | None:
    torch.set_num_threads(1)
    log = job.path / "error.txt"
    try:
        train_run(job.config, job.path, resume=True)
    except Exception as error:
        job.path.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc(), encoding="utf-8")
        return f"{job.path.name}: {error} (details in {log})"
    log.unlink(missing_ok=True)
    return None


@contextmanager
def _reporting(jobs: Sequence[Job], progress: GridProgress | None) -> Iterator[None]:
    """Watch the runs' records from a thread: the runs are in other processes."""
    if progress is None:
        yield
        return
    total = sum(job.config.total_steps for job in jobs)
    stop = threading.Event()

    def look() -> None:
        done = [_steps_done(job) for job in jobs]
        runs = sum(RunDirectory(job.path).finished for job in jobs)
        progress(sum(done), total, runs, len(jobs))

    def watch() -> None:
        while not stop.wait(POLL_SECONDS):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look()


def _steps_done(job: Job) -> int:
    run_directory = RunDirectory(job.path)
    if run_directory.finished:
        return job.config.total_steps
    try:
        lines = run_directory.metrics_path.read_text(encoding="utf-8").splitlines()
        return int(json.loads(lines[-1])["step"])
    except (OSError, ValueError, KeyError, IndexError):
        return 0  # not begun, or in the middle of writing


def _check_buildable(configs: dict[str, RunConfig]) -> None:
    """Build every head once on a small width, so that a wrong option fails before training."""
    from lastlayer.heads import build_head, takes_class_counts
    from lastlayer.regularizers import REGULARIZERS

    for config in configs.values():
        for head in (config.head, config.first_stage().head):
            options = head.options
            num_classes = len(options.get("class_counts", range(10)))
            if takes_class_counts(head.name):
                options = {"class_counts": [1] * num_classes} | options
            build_head(head.name, 2, num_classes, device="meta", **options)
        if config.regularizer.name is not None:
            REGULARIZERS.get(config.regularizer.name)


def file_name(label: str) -> str:
    """Return a head or setting as written on the command line as a name for files."""
    return "".join(c if c.isalnum() or c in "-_.=" else "_" for c in label)
