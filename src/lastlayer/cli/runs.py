"""What the commands that train many runs have in common: train, report, print tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lastlayer.cli.console import complain, grid_progress, print_table, say

if TYPE_CHECKING:
    from lastlayer.experiments import Job, Recipe


def compare_runs(
    recipe: Recipe,
    recipe_name: str,
    variants: Sequence[str],
    seeds: Sequence[int],
    jobs: int,
    folder: Path,
    changes: dict[str, Any],
) -> None:
    """Train, write and print one comparison of any kind; exit with 1 if a run failed."""
    from lastlayer.experiments import plan, run

    planned = plan(recipe, variants, seeds, folder, changes)
    say(f"{folder}: {len(planned)} runs, settings of {recipe_name}")
    with grid_progress() as progress:
        errors = run(planned, parallel=jobs, progress=progress)
    report_runs(recipe, planned, folder)
    stop_if(errors)


def report_runs(recipe: Recipe, planned: Sequence[Job], folder: Path) -> None:
    """Write what the finished runs show, and print its tables."""
    from lastlayer.experiments.kinds import KINDS
    from lastlayer.report import write_comparison
    from lastlayer.training import RunDirectory

    runs: dict[str, list[Path]] = {job.label: [] for job in planned}
    for job in planned:
        runs[job.label].append(job.path)
    if not any(RunDirectory(path).finished for paths in runs.values() for path in paths):
        return
    report = write_comparison(
        folder,
        runs,
        title=recipe.title,
        intro=recipe.source + KINDS[recipe.kind].describe(planned[0].config),
        published=recipe.published,
        published_note=recipe.published_note,
        extra_figures=_explain_one(runs),
    )
    for wide, *narrower in report.tables:
        print_table(wide, *narrower)
    say(f"report: {report.page}  table: {report.markdown}")


def print_trials(trials: Sequence[Any]) -> None:
    """Print what a search found."""
    from lastlayer.report import TextTable

    entries = list(trials[0].setting) if trials else []
    rows = [
        (t.variant, *(str(t.setting[e]) for e in entries), f"{100 * t.error:.2f}", f"{t.nll:.4f}")
        for t in trials
    ]
    note = "Held-out measures, the best setting of each head first."
    print_table(TextTable(("Head", *entries, "Error %", "NLL"), tuple(rows), note))


def _explain_one(runs: dict[str, list[Path]]) -> dict[str, Path]:
    """Draw the retain probabilities of a finished DropMax run, not over tasks, if there is one."""
    from lastlayer.report.explain import explain_run
    from lastlayer.report.kinds import KINDS
    from lastlayer.training import RunDirectory

    heads = [head for head in runs if head.startswith("dropmax")]
    for head in sorted(heads, key=lambda head: head != "dropmax"):
        for path in runs[head]:
            run = RunDirectory(path)
            if not run.finished:
                continue
            summary = run.summary()
            if KINDS["heads"].applies(summary) and summary["measured_on"] == "test":
                return {f"Retain probabilities of {path.name}": explain_run(path)}
    return {}


def settings_digest(recipe: Recipe, changes: dict[str, Any]) -> str:
    """Return a folder name that the settings decide."""
    import hashlib
    import json

    from lastlayer.experiments.kinds import KINDS
    from lastlayer.training.config import merge, rename_entry

    config = KINDS[recipe.kind].config
    settings = merge(config.current(recipe.config), config.current(changes))
    data = settings.get("data", {}).get("name", "digits").replace(":", "-")
    if "tasks" in settings:  # as version 0.1 called it, so that its folders are found again
        settings["tasks"] = rename_entry(settings["tasks"], "later", "steps")
    text = json.dumps([settings, recipe.variant_config], sort_keys=True, default=str)
    return f"{data}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def stop_if(errors: list[str]) -> None:
    """Print errors and exit with 1 if there are any."""
    for error in errors:
        complain(error)
    if errors:
        raise SystemExit(1)
