"""The command that learns classes one task after another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lastlayer.cli.app import app
from lastlayer.cli.comparison import report_runs, settings_digest, split_heads, stop_if
from lastlayer.cli.console import grid_progress, say


@Parameter(name="*")
@dataclass(frozen=True)
class TaskSettings:
    """What a run over tasks is made of; what is left out comes from the recipe."""

    data: str | None = None
    "Data source; see `lastlayer list data`. Default: digits."

    data_dir: Annotated[Path | None, Parameter(env_var="LASTLAYER_DATA")] = None
    "Folder of the data's files."

    base: int | None = None
    "Classes of the first task; default: as many as every later one has."

    steps: int | None = None
    "Tasks after the first; the other classes are divided among them."

    memory: int | None = None
    "Exemplars kept of every class; 0 for none."

    memory_total: int | None = None
    "Exemplars kept of all classes together, instead."

    order: str | None = None
    "Order of the classes: random (by the seed) or label."

    train_size: int | None = None
    "Training examples, drawn class-balanced; default: all, or the recipe's."

    validation_size: str | None = None
    "Held-out examples: a number, or a fraction of the training examples."

    model: str | None = None
    "Backbone; see `lastlayer list models`. Default: by the inputs' shape."

    recipe: str | None = None
    "Settings to start from: a name from `lastlayer list recipes`, or a .toml file."

    training_steps: int | None = None
    "Training steps of every task."

    first_steps: int | None = None
    "Training steps of the first task."

    batch_size: int | None = None
    "Examples per step."

    lr: float | None = None
    "Learning rate."

    device: str | None = None
    "auto, cpu, gpu, mps, ..."

    set: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = ()
    "Any other entry of the configuration, such as distillation.temperature=4."

    def changes(self) -> dict[str, Any]:
        """Return the configuration's entries that were given, nested."""
        from lastlayer.training.config import merge
        from lastlayer.training.options import nest, parse_option

        given = {
            "data.name": self.data,
            "data.data_dir": None if self.data_dir is None else str(self.data_dir),
            "data.train_size": self.train_size,
            "tasks.base": self.base,
            "tasks.steps": self.steps,
            "tasks.order": self.order,
            "tasks.first_steps": self.first_steps,
            "memory.per_class": self.memory,
            "memory.total": self.memory_total,
            "model.name": self.model,
            "training.steps": self.training_steps,
            "training.batch_size": self.batch_size,
            "training.device": self.device,
            "optimizer.lr": self.lr,
        }
        held_out = [] if self.validation_size is None else [self.validation_size]
        typed = [*(f"data.validation_size={size}" for size in held_out), *self.set]
        changes: dict[str, Any] = {}
        for entry, value in [*given.items(), *map(parse_option, typed)]:
            if value is not None:
                changes = merge(changes, nest(entry, value))
        return changes


@app.command
def learn(
    *,
    methods: str | None = None,
    seeds: int | None = None,
    first_seed: int = 0,
    jobs: int = 2,
    out: Path | None = None,
    settings: TaskSettings | None = None,
) -> None:
    """Learn classes one task after another, methods side by side; called again, it goes on.

    Args:
        methods: separated by commas, with options by semicolons; the first is the baseline. A head
            and what is added to it: softmax, balanced-softmax+distillation:weight=2,
            softmax+alignment; or icarl, weighted, joint. See `lastlayer list methods`.
        seeds: number of seeds, each with a class order of its own.
        first_seed: the first seed.
        jobs: processes side by side.
        out: folder; default: a name made from the settings under runs.
        settings: what the runs are made of.
    """
    from lastlayer.experiments import resolve_recipe

    settings = settings or TaskSettings()
    changes = settings.changes()
    recipe, recipe_name = resolve_recipe(settings.recipe, changes, kind="incremental")
    chosen = split_heads(methods) if methods else list(recipe.heads)
    count = recipe.seeds if seeds is None else seeds
    folder = out or Path("runs") / f"learn-{settings_digest(recipe, changes)}"
    run_learning(
        recipe, recipe_name, chosen, range(first_seed, first_seed + count), jobs, folder, changes
    )


def run_learning(
    recipe: Any,
    recipe_name: str,
    methods: list[str],
    seeds: range,
    jobs: int,
    folder: Path,
    changes: dict[str, Any],
) -> None:
    """Train, write and print one comparison of methods; exit with 1 if a run failed."""
    from lastlayer.experiments.incremental import plan_methods, run_methods

    planned = plan_methods(recipe, methods, seeds, folder, changes)
    say(f"{folder}: {len(planned)} runs, settings of {recipe_name}")
    with grid_progress() as progress:
        errors = run_methods(planned, parallel=jobs, progress=progress)
    runs: dict[str, list[Path]] = {method: [] for method in methods}
    for job in planned:
        runs[job.label].append(job.path)
    # What is kept of old classes, but for methods that say so themselves.
    config: Any = planned[0].config
    report_runs(folder, runs, recipe, f"{recipe.source}. Memory: {config.memory.describe()}.")
    stop_if(errors)
