"""Figures by name, drawn from run directories and records: what ``lastlayer figure`` offers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lastlayer._checks import check_choice, check_count, check_options
from lastlayer.registry import Registry
from lastlayer.report.convergence import convergence_figure, path_figure
from lastlayer.report.curves import learning_curves, rates_figure, reliability_figure
from lastlayer.report.dot_plot import comparison_figure
from lastlayer.report.group_figures import class_accuracy_figure, tail_confusion_figure
from lastlayer.report.heat_maps import confusion_figure
from lastlayer.report.maps import filtering_figure
from lastlayer.report.rows import Row, read_record
from lastlayer.report.run_files import (
    collect_rows,
    confusion_counts_of,
    filter_collages,
    learning_records,
    read_solvers,
    reliability_tables,
    sampling_rates,
)
from lastlayer.report.surfaces import PAIRS, contour_surfaces
from lastlayer.report.task_curves import (
    accuracy_curve_figure,
    old_new_figure,
    taken_for_figure,
    tasks_figure,
)
from lastlayer.training import RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Functions from paths, and options by keyword, to a figure. An installed package adds one through
#: the entry point ``lastlayer.figures``.
FIGURES: Registry[Callable[..., Figure]] = Registry(kind="figure", group="lastlayer.figures")

Paths = Sequence[Path]
T = TypeVar("T")


def draw_figure(name: str, paths: Paths, **options: Any) -> Figure:
    """Draw a figure by its name.

    Paths are run directories, folders of them such as ``lastlayer compare``
    leaves, a ``comparison.json``, or the folder of ``lastlayer fit-linear``.
    """
    draw = FIGURES.get(name)
    check_options(f"figure {name!r}", draw, options)
    return draw(list(paths), **options)


def find_runs(paths: Paths, *, finished: bool = True) -> dict[str, list[Path]]:
    """Return run directories by variant: those given, and those in the folders given.

    A variant is called as its directory without ``-seedN``. Runs that are not ``finished`` are left
    out, unless they are asked for.
    """
    found: dict[str, list[Path]] = {}
    for path in paths:
        inside = [path] if (path / "config.toml").is_file() else None
        inside = inside or sorted(file.parent for file in path.glob("*/config.toml"))
        if not inside:
            raise FileNotFoundError(f"{path} is neither a run nor a folder of runs")
        for run in inside:
            if not finished or RunDirectory(run).finished:
                found.setdefault(re.sub(r"-seed\d+$", "", run.resolve().name), []).append(run)
    if not found:
        raise FileNotFoundError(f"no finished run in {', '.join(map(str, paths)) or 'no path'}")
    return found


def _rows(paths: Paths, table: str) -> list[Row]:
    """Return the rows of one table, from a record where there is one, else from runs."""
    records = [path / "comparison.json" if path.is_dir() else path for path in paths]
    if len(records) == 1 and records[0].is_file():
        rows = read_record(records[0])[table]
    else:
        rows = collect_rows(find_runs(paths))[table]
    if not rows:
        what = "long-tailed data" if table == "groups" else table
        raise ValueError(f"there is nothing of {what} in {', '.join(map(str, paths))}")
    return rows


def _one(found: Mapping[str, T], wanted: str | None) -> T:
    """Return the row, or runs, of one variant: the one there is, or the one asked for."""
    if wanted is None and len(found) > 1:
        raise ValueError(f"variant must be one of {', '.join(found)}: the figure shows one")
    if wanted is not None:
        check_choice("variant", wanted, found)
    return next(iter(found.values())) if wanted is None else found[wanted]


def _task_row(paths: Paths, variant: str | None) -> Row:
    return _one({row.name: row for row in _rows(paths, "tasks")}, variant)


def _one_variant(paths: Paths, variant: str | None) -> list[Path]:
    chosen = _one(find_runs(paths), variant)
    for path in chosen:
        RunDirectory.open(path)  # says what a run over tasks is read with
    return chosen


@FIGURES.register(
    "comparison",
    description="every seed, mean and interval of measures (measures=error,nll), from a comparison",
)
def _comparison(
    paths: Paths, *, measures: str | Sequence[str] | None = None, table: str = "heads"
) -> Figure:
    named = measures.split(",") if isinstance(measures, str) else measures
    return comparison_figure(_rows(paths, table), named)


@FIGURES.register(
    "curves",
    description="a measure while training (measure=nll), from runs, finished or not",
)
def _curves(paths: Paths, *, measure: str = "nll", log: bool = False) -> Figure:
    curves = learning_records(find_runs(paths, finished=False), measure)
    if not curves:
        raise ValueError(f"no record of training holds {measure!r}")
    label = "cross entropy (nats)" if measure == "nll" else measure
    return learning_curves(curves, y_label=label, log_y=log)


@FIGURES.register(
    "reliability",
    description="accuracy against confidence, all seeds pooled (kind=top1 or pooled), from runs",
)
def _reliability(paths: Paths, *, kind: str = "top1") -> Figure:
    runs = find_runs(paths)
    for path in (path for of_variant in runs.values() for path in of_variant):
        RunDirectory.open(path)
    return reliability_figure(reliability_tables(runs, kind))


@FIGURES.register(
    "confusion",
    description="predicted classes by label, all seeds of one variant (variant=NAME), from runs",
)
def _confusion(paths: Paths, *, variant: str | None = None) -> Figure:
    runs = _one_variant(paths, variant)
    names = RunDirectory(runs[0]).summary()["class_names"]
    return confusion_figure(confusion_counts_of(runs), [str(name) for name in names])


@FIGURES.register(
    "class-accuracy",
    description="accuracy of each class against its training examples, from long-tailed runs",
)
def _class_accuracy(paths: Paths) -> Figure:
    return class_accuracy_figure(_rows(paths, "groups"))


@FIGURES.register(
    "tail-confusion", description="what the rarest classes are taken for, from long-tailed runs"
)
def _tail_confusion(paths: Paths) -> Figure:
    return tail_confusion_figure(_rows(paths, "groups"))


@FIGURES.register(
    "rates", description="sampling rates that a Meta Sampler learned, class by class, from one run"
)
def _rates(paths: Paths, *, variant: str | None = None) -> Figure:
    learned = sampling_rates(_one_variant(paths, variant)[0])
    if learned is None:
        raise ValueError(f"no sampler learned rates in {paths[0]}")
    return rates_figure(*learned)


@FIGURES.register(
    "accuracy", description="accuracy on the classes seen as tasks arrive, from runs over tasks"
)
def _accuracy(paths: Paths) -> Figure:
    return accuracy_curve_figure(_rows(paths, "tasks"))


@FIGURES.register(
    "old-new", description="old classes taken for new and new for old, from runs over tasks"
)
def _old_new(paths: Paths) -> Figure:
    return old_new_figure(_rows(paths, "tasks"))


@FIGURES.register(
    "tasks",
    description="accuracy on each task after each, of one method (variant=NAME), from runs over "
    "tasks",
)
def _tasks(paths: Paths, *, variant: str | None = None) -> Figure:
    return tasks_figure(_task_row(paths, variant))


@FIGURES.register(
    "taken-for",
    description="which task's classes examples are taken for, of one method (variant=NAME), from "
    "runs over tasks",
)
def _taken_for(paths: Paths, *, variant: str | None = None) -> Figure:
    return taken_for_figure(_task_row(paths, variant))


@FIGURES.register(
    "convergence",
    description="objective above the lower bound, and test accuracy, by seconds, from the folder "
    "of fit-linear",
)
def _convergence(paths: Paths) -> Figure:
    return convergence_figure(read_solvers(paths).curves)


@FIGURES.register(
    "path",
    description="held-out loss and accuracy by strength of the penalty, from the folder of "
    "fit-linear --path",
)
def _path(paths: Paths) -> Figure:
    found = read_solvers(paths).paths
    if not found:
        raise ValueError(f"no solver went along a path in {paths[0]}; fit with --path")
    return path_figure(found)


@FIGURES.register(
    "contours",
    description="probability of a class beside two that DropMax may drop, as surfaces; no path "
    "(retain=[[1,1],[0.1,0.9]], mean=true, points=61, seed=0)",
)
def _contours(
    paths: Paths,
    *,
    retain: Sequence[tuple[float, float]] = PAIRS,
    points: int = 61,
    mean: bool = False,
    seed: int = 0,
) -> Figure:
    if paths:
        raise ValueError(f"figure 'contours' is drawn from a formula, not from {paths[0]}")
    return contour_surfaces(retain, points=points, mean=mean, seed=seed)


@FIGURES.register(
    "filtering",
    description="collages of test images before and after one class is erased (target=0, count=3, "
    "posterior=0.9, seed=0), from one run on images",
)
def _filtering(
    paths: Paths,
    *,
    target: int = 0,
    count: int = 3,
    posterior: float = 0.9,
    seed: int = 0,
    variant: str | None = None,
    data_dir: str | None = None,
) -> Figure:
    check_count("count", count)
    run = RunDirectory.open(_one_variant(paths, variant)[0])
    before, filtered, window, stride = filter_collages(
        run, target, count=count, posterior=posterior, seed=seed, data_dir=data_dir
    )
    title = f"information about {run.summary()['class_names'][target]}"
    return filtering_figure(
        before, filtered.images, filtered.pmi, window, stride=stride, title=title
    )
