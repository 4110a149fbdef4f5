"""Variants times seeds: planned, and trained in parallel, side by side on equal terms."""

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

from lastlayer.experiments.kinds import KINDS, KindName
from lastlayer.experiments.recipe import Recipe
from lastlayer.heads import build_head, takes_class_counts
from lastlayer.regularizers import REGULARIZERS
from lastlayer.training import RunConfig, RunDirectory

#: Called with steps done, steps in all, runs done, runs in all.
GridProgress = Callable[[int, int, int, int], None]

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """One run of a comparison.

    Attributes:
        label: its variant as written on the command line.
        config: its configuration.
        path: its run directory.
        kind: what kind of run it is.
    """

    label: str
    config: RunConfig
    path: Path
    kind: KindName


def plan(
    recipe: Recipe,
    variants: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    changes: dict[str, Any] | None = None,
) -> list[Job]:
    """Return the runs of a comparison, seed by seed, so that early results are paired.

    Args:
        recipe: the runs' settings, and their kind.
        variants: as written on the command line; the first is the baseline.
        seeds: one run per variant and seed.
        out: folder of the runs.
        changes: configuration that overrides the recipe's.

    Raises:
        ValueError: if there is no variant or seed, a variant is named twice or has a word or an
            option that does not exist, or a setting does not fit.
    """
    if not variants or not seeds:
        raise ValueError(
            f"a comparison needs a variant and a seed; got {list(variants)}, {list(seeds)}"
        )
    if len(set(variants)) != len(variants):
        raise ValueError(f"a variant is named twice in {', '.join(variants)}")
    configs = {name: recipe.run_config(name, changes or {}) for name in variants}
    # A wrong option of a part fails before training: heads are built once on a small width.
    for config in configs.values():
        for head in (config.head, config.first_stage().head):
            options = head.options
            num_classes = len(options.get("class_counts", range(10)))
            if takes_class_counts(head.name):
                options = {"class_counts": [1] * num_classes} | options
            build_head(head.name, 2, num_classes, device="meta", **options)
        if config.regularizer.name is not None:
            REGULARIZERS.get(config.regularizer.name)
    return [
        Job(
            name,
            configs[name].updated({"seed": seed}),
            out / f"{file_name(name)}-seed{seed}",
            recipe.kind,
        )
        for seed in seeds
        for name in variants
    ]


def run(jobs: Sequence[Job], *, parallel: int, progress: GridProgress | None = None) -> list[str]:
    """Train every job that is not finished; a second call takes up where a first was stopped.

    Args:
        jobs: the runs, of one kind.
        parallel: processes side by side, each with one torch thread.
        progress: called now and then.

    Returns:
        One message per run that failed; the others are finished.

    Raises:
        FileNotFoundError: if the data are missing.
        ValueError: if a classifier cannot be built, or a run is there with another configuration.
    """
    for job in jobs:
        KINDS[job.kind].directory(job.path).check_config(job.config)
    waiting = [job for job in jobs if not RunDirectory(job.path).finished]
    if waiting:
        KINDS[waiting[0].kind].check([job.config for job in waiting])
    with _reporting(jobs, progress):
        errors = Parallel(n_jobs=min(parallel, max(1, len(waiting))), batch_size=1)(
            delayed(_train_job)(job, KINDS[job.kind].train) for job in waiting
        )
    return [error for error in errors if error]


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
        text = run_directory.metrics_path.read_text(encoding="utf-8")
        whole = text[: text.rindex("\n")]  # the run may be in the middle of writing one more
        return int(json.loads(whole.splitlines()[-1])["step"])
    except (OSError, ValueError, KeyError, IndexError):
        return 0  # not begun


def file_name(label: str) -> str:
    """Return a variant or setting as written on the command line as a name for files."""
    return "".join(c if c.isalnum() or c in "-_.=" else "_" for c in label)
