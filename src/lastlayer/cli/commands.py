"""The command line: parse, call, print. Here the commands that train, and the entry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import CycloptsError, Parameter

from lastlayer.cli import figure, linear, reading
from lastlayer.cli.app import app
from lastlayer.cli.console import (
    complain,
    err_console,
    grid_progress,
    out_console,
    say,
    step_progress,
)
from lastlayer.cli.runs import compare_runs, print_trials, settings_digest, stop_if
from lastlayer.cli.settings import Settings, TaskSettings, Variants

if TYPE_CHECKING:
    from lastlayer.experiments import Recipe
    from lastlayer.experiments.kinds import KindName

__all__ = ["app", "figure", "linear", "main", "reading"]


@app.command
def train(
    *,
    head: Annotated[str, Parameter(name=("--head", "--variant"))] = "dropmax",
    seed: int = 0,
    out: Path | None = None,
    resume: bool = False,
    settings: Settings | None = None,
) -> None:
    """Train one classifier.

    Args:
        head: head, with options and a regularizer if need be: dropmax,
            class-dropout:retain_prob=0.4, softmax+disout:where=layer3,p=0.1; or a scheme of two
            stages: crt, balms:steps=500.
        seed: fixes data, weights, order and masks.
        out: run directory; default: runs/DATA-HEAD-seedN.
        resume: take up the run where it was stopped.
        settings: what the run is made of.
    """
    from lastlayer.experiments import resolve_recipe
    from lastlayer.experiments.jobs import file_name
    from lastlayer.training import train as train_run
    from lastlayer.training.config import merge
    from lastlayer.training.fit import is_first_process

    settings = settings or Settings()
    changes = settings.changes()
    recipe, recipe_name = resolve_recipe(settings.recipe, changes)
    config = recipe.run_config(head, merge(changes, {"seed": seed}))
    path = out or Path("runs") / file_name(f"{config.data.name}-{head}-seed{seed}")
    if not is_first_process():  # of several devices; the first one tells
        train_run(config, path, resume=resume)
        return
    say(f"{path}: {config.data.name}, {head}, settings of {recipe_name}")
    with step_progress(config.total_steps) as progress:
        run = train_run(config, path, resume=resume, progress=progress)
    summary = run.summary()
    measures = summary["metrics"]
    say(
        f"{summary['measured_on']}: error {100 * measures['error']:.2f} %, "
        f"NLL {measures['nll']:.4f}, Brier {measures['brier']:.4f}, "
        f"ECE {100 * measures['ece']:.2f} %, {summary['seconds']:.0f} s"
    )


@app.command
def compare(
    *,
    variants: Variants = None,
    seeds: int | None = None,
    first_seed: int = 0,
    jobs: int = 2,
    out: Path | None = None,
    settings: Settings | None = None,
) -> None:
    """Train heads side by side over seeds and print one table; called again, it goes on.

    Args:
        variants: heads, comma-separated; the first is the baseline. Options go after a colon, a
            regularizer after a plus sign: softmax+dropout:p=0.2. With options, separate by
            semicolons. Schemes of two stages stand among them by name: softmax,crt,balms.
        seeds: number of seeds.
        first_seed: the first seed.
        jobs: processes side by side.
        out: folder of the comparison; default: a name made from its settings under runs.
        settings: what the runs are made of.
    """
    _compare("heads", variants, seeds, first_seed, jobs, out, settings or Settings())


@app.command
def learn(
    *,
    variants: Variants = None,
    seeds: int | None = None,
    first_seed: int = 0,
    jobs: int = 2,
    out: Path | None = None,
    settings: TaskSettings | None = None,
) -> None:
    """Learn classes one task after another, methods side by side; called again, it goes on.

    Args:
        variants: methods, separated by commas, with options by semicolons; the first is the
            baseline. A head and what is added to it: softmax,
            balanced-softmax+distillation:weight=2, softmax+alignment; or icarl, weighted, joint.
            See `lastlayer list methods`.
        seeds: number of seeds, each with a class order of its own.
        first_seed: the first seed.
        jobs: processes side by side.
        out: folder; default: a name made from the settings under runs.
        settings: what the runs are made of.
    """
    settings = settings or TaskSettings()
    if (note := settings.note()) is not None:
        err_console.print(note, markup=False, highlight=False, soft_wrap=True)
    _compare("incremental", variants, seeds, first_seed, jobs, out, settings)


def _compare(
    kind: KindName,
    variants: str | None,
    seeds: int | None,
    first_seed: int,
    jobs: int,
    out: Path | None,
    settings: Settings,
) -> None:
    from lastlayer.experiments import resolve_recipe
    from lastlayer.experiments.kinds import KINDS

    changes = settings.changes()
    recipe, recipe_name = resolve_recipe(settings.recipe, changes, kind)
    folder = Path("runs") / f"{KINDS[kind].command}-{settings_digest(recipe, changes)}"
    chosen = _variants(variants, recipe)
    count = recipe.seeds if seeds is None else seeds
    over = range(first_seed, first_seed + count)
    compare_runs(recipe, recipe_name, chosen, over, jobs, out or folder, changes)


def _variants(given: str | None, recipe: Recipe) -> list[str]:
    from lastlayer.training.variants import split_variants

    return split_variants(given) if given else list(recipe.variants)


@app.command
def reproduce(
    recipe: str,
    *,
    variants: Variants = None,
    seeds: int | None = None,
    data_dir: Annotated[Path | None, Parameter(env_var="LASTLAYER_DATA")] = None,
    jobs: int = 2,
    out: Path | None = None,
) -> None:
    """Run a recipe as it stands and print our numbers beside the published ones.

    Args:
        recipe: a name from `lastlayer list recipes`, or a .toml file.
        variants: comma-separated heads, or methods, instead of the recipe's.
        seeds: number of seeds, instead of the recipe's.
        data_dir: folder of the data's files.
        jobs: processes side by side.
        out: folder; default: runs/RECIPE.
    """
    from lastlayer.experiments import Recipe

    loaded = Recipe.load(recipe)
    changes = {} if data_dir is None else {"data": {"data_dir": str(data_dir)}}
    over = range(loaded.seeds if seeds is None else seeds)
    folder = out or Path("runs") / Path(recipe).stem
    compare_runs(loaded, recipe, _variants(variants, loaded), over, jobs, folder, changes)


@app.command
def tune(
    *,
    grid: Annotated[list[str], Parameter(consume_multiple=True, negative=())],
    variants: Variants = None,
    seeds: int = 1,
    first_seed: int = 100,
    jobs: int = 2,
    out: Path | None = None,
    settings: Settings | None = None,
) -> None:
    """Try every setting of a grid for every head, judged on held-out examples only.

    Args:
        grid: entry=value,value,... such as optimizer.lr=5e-4,1e-3; several make a product.
        variants: as for compare.
        seeds: runs per head and setting.
        first_seed: the first seed; away from the seeds of later comparisons.
        jobs: processes side by side.
        out: folder; default: a name made from the settings under runs.
        settings: what the runs are made of.
    """
    from lastlayer.experiments import parse_grid, resolve_recipe, tune_variants

    settings = settings or Settings()
    changes = settings.changes()
    recipe, _ = resolve_recipe(settings.recipe, changes)
    folder = out or Path("runs") / f"tune-{settings_digest(recipe, changes)}"
    with grid_progress() as progress:
        trials, errors = tune_variants(
            recipe,
            _variants(variants, recipe),
            parse_grid(grid),
            range(first_seed, first_seed + seeds),
            folder,
            parallel=jobs,
            changes=changes,
            progress=progress,
        )
    print_trials(trials)
    stop_if(errors)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an expected error is one line and exit status 2.

    Args:
        arguments: words of the command; the process's own if None.
    """
    try:
        app(arguments, console=out_console, error_console=err_console, exit_on_error=False)
    except CycloptsError:  # told already; its own exit status was 1 before version 5
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        err_console.print("stopped; the same command goes on (train: with --resume)")
        raise SystemExit(130) from None
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        complain(str(error))
        raise SystemExit(2) from None
