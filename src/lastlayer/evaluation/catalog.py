"""The measures there are. A new one is a new entry here, or an entry point of a package."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lastlayer._checks import check_choice
from lastlayer.evaluation.measures import (
    NATS,
    SCORE,
    SECONDS,
    SHARE,
    TABLES,
    Measure,
    Summary,
)
from lastlayer.registry import Registry

#: All measures by name, in the order of their columns. An installed package adds one through the
#: entry point ``lastlayer.measures``.
MEASURES: Registry[Measure] = Registry(kind="measure", group="lastlayer.measures")


def measures_of(table: str) -> dict[str, Measure]:
    """Return the measures of a table by name, in the order of their columns.

    >>> from lastlayer.evaluation import measures_of
    >>> list(measures_of("groups"))[:2]
    ['balanced_accuracy', 'frequent_accuracy']
    """
    check_choice("table", table, TABLES)
    found = [MEASURES.get(name) for name in MEASURES.names()]
    return {measure.name: measure for measure in found if table in measure.tables}


def or_nan(value: float | None) -> float:
    """Return a summary's number, with NaN for the null of a share of nothing."""
    return math.nan if value is None else value


def task_results(summary: Summary) -> Summary:
    """Return what the run's own predictor reached in a sequence of tasks, or raise."""
    entry = summary["incremental"]
    found: Summary | None = entry.get(entry["predictor"])
    if found is None:
        raise ValueError(
            f"the summary is corrupt: it has no result of its predictor {entry['predictor']!r}"
        )
    return found


def _metric(name: str) -> Callable[[Summary], float]:
    return lambda summary: summary["metrics"][name]


def _scaled(name: str) -> Callable[[Summary], float | None]:
    return lambda summary: (
        summary["temperature_scaled"][name] if "temperature_scaled" in summary else None
    )


def _of_group(index: int) -> Callable[[Summary], float]:
    return lambda summary: or_nan(list(summary["long_tail"]["group_accuracy"].values())[index])


def _of_tasks(name: str) -> Callable[[Summary], float]:
    return lambda summary: or_nan(task_results(summary)["measures"][name])


def _after_last_task(name: str) -> Callable[[Summary], float]:
    return lambda summary: or_nan(task_results(summary)["measures"][name][-1])


_SCALED: dict[str, Any] = {
    "wide_only": ("column",),
    "explanation": "Scaled: after temperature scaling on held-out data.",
}
_GROUPS: dict[str, Any] = {"tables": ("groups",)}
_TASKS: dict[str, Any] = {"tables": ("tasks",)}

for _measure in (
    Measure(
        "error",
        "share of examples classified wrong",
        SHARE,
        "lower",
        "Error %",
        _metric("error"),
        difference="error",
        in_figure=True,
    ),
    Measure(
        "nll",
        "mean negative log-likelihood of the label",
        NATS,
        "lower",
        "NLL",
        _metric("nll"),
        difference="NLL",
        in_figure=True,
        wide_only=("difference",),
        null=math.inf,
    ),
    Measure(
        "brier",
        "squared error of the probabilities, summed over classes",
        SCORE,
        "lower",
        "Brier",
        _metric("brier"),
    ),
    Measure(
        "ece",
        "expected calibration error of the most probable class",
        SHARE,
        "lower",
        "ECE top-1 %",
        _metric("ece"),
        in_figure=True,
    ),
    Measure(
        "ece_pooled",
        "expected calibration error over all pairs of example and class",
        SHARE,
        "lower",
        "ECE pooled %",
        _metric("ece_pooled"),
    ),
    Measure(
        "nll_scaled",
        "nll after temperature scaling on held-out data",
        NATS,
        "lower",
        "NLL, scaled",
        _scaled("nll"),
        null=math.inf,
        **_SCALED,
    ),
    Measure(
        "ece_scaled",
        "ece after temperature scaling on held-out data",
        SHARE,
        "lower",
        "ECE top-1 %, scaled",
        _scaled("ece"),
        **_SCALED,
    ),
    Measure(
        "balanced_accuracy",
        "mean accuracy over classes, on long-tailed data",
        SHARE,
        "higher",
        "Balanced accuracy %",
        lambda summary: or_nan(summary["long_tail"]["balanced_accuracy"]),
        difference="balanced",
        **_GROUPS,
    ),
    Measure(
        "frequent_accuracy",
        "mean accuracy over the classes with the most examples",
        SHARE,
        "higher",
        "{groups[0]} %",
        _of_group(0),
        **_GROUPS,
    ),
    Measure(
        "medium_accuracy",
        "mean accuracy over the classes between these",
        SHARE,
        "higher",
        "{groups[1]} %",
        _of_group(1),
        **_GROUPS,
    ),
    Measure(
        "rare_accuracy",
        "mean accuracy over the classes with the fewest examples",
        SHARE,
        "higher",
        "{groups[2]} %",
        _of_group(2),
        difference="{groups[2]}",
        **_GROUPS,
    ),
    Measure(
        "rare_as_frequent",
        "share of the rarest classes' examples taken for one of the most frequent",
        SHARE,
        "lower",
        "{groups[2]} taken for {groups[0]} %",
        lambda summary: or_nan(summary["long_tail"]["group_confusion"][2][0]),
        **_GROUPS,
    ),
    Measure(
        "average_incremental_accuracy",
        "mean over all tasks of the accuracy on the classes seen",
        SHARE,
        "higher",
        "AIA %",
        _of_tasks("average_incremental_accuracy"),
        difference="AIA",
        explanation="AIA (average incremental accuracy): its mean over all steps, the base "
        "included.",
        **_TASKS,
    ),
    Measure(
        "final_accuracy",
        "accuracy on all classes after the last task",
        SHARE,
        "higher",
        "Final %",
        _of_tasks("final_accuracy"),
        difference="final",
        explanation="Final: after the last step.",
        **_TASKS,
    ),
    Measure(
        "forgetting",
        "fall from the best accuracy on a task to the final one",
        SHARE,
        "lower",
        "Forgetting",
        _of_tasks("forgetting"),
        explanation="Forgetting: the best accuracy on a task at any step minus the final one, in "
        "points, mean over all tasks but the last, lower is better;",
        **_TASKS,
    ),
    Measure(
        "backward_transfer",
        "change of the accuracy on a task since it was learned",
        SHARE,
        "higher",
        "Backward transfer",
        _of_tasks("backward_transfer"),
        explanation="backward transfer: the final minus that when the task was learned, higher is "
        "better.",
        **_TASKS,
    ),
    Measure(
        "old_as_new",
        "share of the earlier tasks' examples taken for a class of the last task",
        SHARE,
        "lower",
        "Old taken for new %",
        _after_last_task("old_as_new"),
        explanation="Old taken for new: examples of earlier tasks' classes taken for a class of "
        "the last task, at the end.",
        **_TASKS,
    ),
    Measure(
        "new_as_old",
        "share of the last task's examples taken for a class of an earlier one",
        SHARE,
        "lower",
        None,
        _after_last_task("new_as_old"),
        **_TASKS,
    ),
    Measure(
        "seconds",
        "time of training",
        SECONDS,
        "lower",
        "Seconds",
        lambda summary: summary["seconds"],
        tables=("heads", "tasks"),
    ),
):
    MEASURES.add(_measure.name, _measure, description=_measure.description)
