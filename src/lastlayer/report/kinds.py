"""The kinds of comparison: which runs stand in which table, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lastlayer.evaluation import task_confusion
from lastlayer.evaluation.catalog import task_results
from lastlayer.evaluation.measures import Summary

#: What is taken from a run's summary, by name.
Readers = Mapping[str, Callable[[Summary], Any]]


@dataclass(frozen=True)
class Kind:
    """A kind of comparison.

    Attributes:
        noun: what a row is of.
        heading: of its table on the page.
        record: the entry of ``comparison.json`` that holds its rows.
        applies: takes a finished run's summary; whether the run stands in the table.
        note: the text below the table; takes what a row's seeds share, what the measures say of
            themselves, and which differences are good.
        alike: takes a summary; runs stand side by side if it gives the same.
        must_be_alike: what it gives, if other runs are refused; None if they are left out.
        shared: what all seeds of a row have in common.
        details: what figures show, one entry per seed.
        published: name and words of the measure that papers give.
    """

    noun: str
    heading: str
    record: str
    applies: Callable[[Summary], bool]
    note: Callable[[Mapping[str, Any], str, str], str]
    published: tuple[str, str] | None = None
    alike: Callable[[Summary], Any] = lambda summary: None
    must_be_alike: str | None = None
    shared: Readers = field(default_factory=dict)
    details: Readers = field(default_factory=dict)


def describe_tasks(sizes: Sequence[int]) -> str:
    """Return in a few words how many classes come in how many tasks.

    >>> describe_tasks([5, 1, 1])
    'Tasks: a base of 5 classes, then 2 of 1'
    """
    base, *steps = sizes
    if len(set(sizes)) == 1:
        return f"Tasks: {len(sizes)} of {base} classes"
    if len(set(steps)) == 1:
        return f"Tasks: a base of {base} classes, then {len(steps)} of {steps[0]}"
    return f"Tasks: {len(sizes)}, of {', '.join(map(str, sizes))} classes"


KINDS = {
    "heads": Kind(
        noun="Head",
        heading="Results",
        record="rows",
        applies=lambda summary: "incremental" not in summary,
        note=lambda shared, explained, better: (
            "Mean ± standard deviation over seeds. NLL in nats. Δ: paired difference, of errors in "
            f"points, seed by seed, with its 95 % Student-t interval; {better}.{explained}"
        ),
        published=("error", "Test error"),
    ),
    "groups": Kind(
        noun="Head",
        heading="Groups of classes",
        record="long_tail",
        applies=lambda summary: "long_tail" in summary,
        note=lambda shared, explained, better: (
            f"{shared['note']} Accuracy is the mean over classes, ± standard deviation over seeds."
            f"{explained} Δ: paired difference in points, seed by seed, with its 95 % Student-t "
            f"interval; {better}."
        ),
        alike=lambda summary: summary["long_tail"]["grouping"],
        shared={
            "groups": lambda summary: list(summary["long_tail"]["group_accuracy"]),
            "note": lambda summary: summary["long_tail"]["groups"],
        },
        details={
            "group_confusion": lambda summary: summary["long_tail"]["group_confusion"],
            "class_counts": lambda summary: summary["class_counts"],
            "class_accuracy": lambda summary: summary["long_tail"]["class_accuracy"],
        },
    ),
    "tasks": Kind(
        noun="Method",
        heading="Results",
        record="rows",
        applies=lambda summary: "incremental" in summary,
        note=lambda shared, explained, better: (
            f"{describe_tasks(shared['class_sizes'])}. An accuracy is over all test examples of "
            "the classes seen so far, without being told the task: examples count alike, not "
            f"tasks.{explained} ± standard deviation over seeds. Δ: paired difference in points, "
            f"seed by seed, with its 95 % Student-t interval; {better}."
        ),
        published=("average_incremental_accuracy", "Average incremental accuracy"),
        alike=lambda summary: summary["incremental"]["sizes"],
        must_be_alike="tasks of the same sizes",
        shared={"class_sizes": lambda summary: summary["incremental"]["sizes"]},
        details={
            "matrices": lambda summary: task_results(summary)["measures"]["matrix"],
            "accuracies": lambda summary: task_results(summary)["measures"]["accuracies"],
            "task_confusions": lambda summary: task_confusion(
                task_results(summary)["confusions"][-1], summary["incremental"]["sizes"]
            ).tolist(),
        },
    ),
}
