"""What ``compare``, ``reproduce`` and ``tune`` have in common: train, report, print tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lastlayer.cli.console import complain, grid_progress, print_table, say


def run_comparison(
    recipe: Any,
    recipe_name: str,
    heads: list[str],
    seeds: Sequence[int],
    jobs: int,
    out: Path | None,
    changes: dict[str, Any],
) -> None:
    """Train, write and print one comparison; exit with 1 if a run failed."""
    from lastlayer.experiments import plan, run

    folder = out or Path("runs") / f"compare-{settings_digest(recipe, changes)}"
    planned = plan(recipe, heads, seeds, folder, changes)
    say(f"{folder}: {len(planned)} runs, settings of {recipe_name}")
    with grid_progress() as progress:
        errors = run(planned, parallel=jobs, progress=progress)
    runs: dict[str, list[Path]] = {head: [] for head in heads}
    for job in planned:
        runs[job.label].append(job.path)
    report_runs(folder, runs, recipe, recipe.source, _explain_one(runs))
    stop_if(errors)


def report_runs(
    folder: Path,
    runs: dict[str, list[Path]],
    recipe: Any,
    intro: str,
    extra_figures: dict[str, Path] | None = None,
) -> None:
    """Write what the finished ones of these runs show, and print its tables."""
    from lastlayer.report import write_comparison
    from lastlayer.training import RunDirectory

    if not any(RunDirectory(path).finished for paths in runs.values() for path in paths):
        return
    report = write_comparison(
        folder,
        runs,
        title=recipe.title,
        intro=intro,
        published=recipe.published,
        published_note=recipe.published_note,
        extra_figures=extra_figures,
    )
    for wide, *narrower in report.tables:
        print_table(wide, *narrower)
    say(f"report: {report.page}  table: {report.markdown}")


def print_trials(trials: Sequence[Any]) -> None:
    """Print what a search found."""
    from lastlayer.report import TextTable

    entries = list(trials[0].setting) if trials else []
    rows = [
        (t.head, *(str(t.setting[e]) for e in entries), f"{100 * t.error:.2f}", f"{t.nll:.4f}")
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


def split_heads(text: str) -> list[str]:
    """Return the heads of a comma- or semicolon-separated list."""
    # Options hold commas, so heads with options are separated by semicolons.
    separator = ";" if ";" in text or ":" in text else ","
    return [head.strip() for head in text.split(separator) if head.strip()]


def settings_digest(recipe: Any, changes: dict[str, Any]) -> str:
    """Return a folder name that the settings decide."""
    import hashlib
    import json

    from lastlayer.training.config import merge

    settings = merge(recipe.config, changes)
    data = settings.get("data", {}).get("name", "digits").replace(":", "-")
    text = json.dumps([settings, recipe.head_config], sort_keys=True, default=str)
    return f"{data}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def stop_if(errors: list[str]) -> None:
    """Print errors and exit with 1 if there are any."""
    for error in errors:
        complain(error)
    if errors:
        raise SystemExit(1)
