"""What the commands that train many runs have in common: train, report, print tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lastlayer.cli.console import complain, grid_progress, print_table, say

if TYPE_CHECKING:
    from lastlayer.experiments import Job, Recipe
    from lastlayer.report import TextTable

ESSENTIAL = ("error", "nll", "brier", "ece", "ece_pooled", "seconds")


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
    tables = write_report(recipe, planned, folder)
    for wide, *narrow in tables:
        print_table(wide, *narrow)
    if tables:
        say(f"report: {folder / 'report.html'}  table: {folder / 'comparison.md'}")
    stop_if(errors)


def write_report(
    recipe: Recipe, planned: Sequence[Job], folder: Path
) -> list[tuple[TextTable, ...]]:
    """Write the report of the finished runs, and return its tables, each with narrower ones.

    The only place where a comparison calls ``lastlayer.report``; empty if no run is finished.
    """
    from lastlayer.report import comparison_table, incremental_table, long_tail_table
    from lastlayer.report.incremental_page import published_accuracies, write_incremental
    from lastlayer.report.pages import published_table, write_comparison
    from lastlayer.report.runs import comparison_rows, incremental_rows, long_tail_rows

    tables: list[tuple[TextTable, ...]] = []
    runs: dict[str, list[Path]] = {job.label: [] for job in planned}
    for job in planned:
        runs[job.label].append(job.path)
    numbers = (recipe.published, recipe.published_note)
    if recipe.kind == "incremental":
        methods = incremental_rows(runs)
        if not methods:
            return tables
        published = published_accuracies(methods, *numbers)
        # What is kept of old classes, but for methods that say so themselves.
        config: Any = planned[0].config
        intro = f"{recipe.source}. Memory: {config.memory.describe()}."
        write_incremental(folder, methods, title=recipe.title, intro=intro, published=published)
        tables.append((incremental_table(methods),))
    else:
        rows = comparison_rows(runs)
        if not rows:
            return tables
        published = published_table(rows, *numbers)
        write_comparison(
            folder,
            runs,
            title=recipe.title,
            intro=recipe.source,
            published=published,
            extra_figures=_explain_one(runs),
        )
        narrow = comparison_table(rows, measures=ESSENTIAL, differences=("error",))
        tables.append((comparison_table(rows), narrow))
        if tails := long_tail_rows(runs):
            tables.append((long_tail_table(tails),))
    return tables if published is None else [*tables, (published,)]


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
    """Draw the retain probabilities of a finished DropMax run, if there is one."""
    from lastlayer.report.explain import explain_run
    from lastlayer.training import RunDirectory

    heads = [head for head in runs if head.startswith("dropmax")]
    for head in sorted(heads, key=lambda head: head != "dropmax"):
        for path in runs[head]:
            run = RunDirectory(path)
            if run.finished and run.summary()["measured_on"] == "test":
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
