"""Results of one variant over seeds, and their record in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lastlayer._checks import check_choice
from lastlayer._files import with_nan, with_null
from lastlayer.evaluation.catalog import MEASURES, measures_of
from lastlayer.report.kinds import KINDS
from lastlayer.report.style import write_atomically


@dataclass(frozen=True)
class Row:
    """One variant's results, one value per seed in each list.

    Attributes:
        name: of the head or method.
        seeds: the seeds run.
        values: by name of a measure of :data:`lastlayer.evaluation.MEASURES`, the numbers as they
            are stored: shares, not per cent.
        table: which measures it holds, ``"heads"``, ``"groups"`` or ``"tasks"``.
        shared: what all seeds have in common: the names of the ``groups`` of classes, the most
            frequent first, and a ``note`` on what they are; the ``class_sizes`` of tasks.
        details: what figures need beside measures, one entry per seed.

    Raises:
        ValueError: if a seed comes twice, or a list has another length.

    >>> Row("softmax", [0, 1], {"error": [0.1, 0.2]}).values["error"]
    [0.1, 0.2]
    """

    name: str
    seeds: list[int]
    values: dict[str, list[float]]
    table: str = "heads"
    shared: dict[str, Any] = field(default_factory=dict)
    details: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("table", self.table, KINDS)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(
                f"seeds of {self.name!r} must be distinct, one or more; got {self.seeds}"
            )
        for name, entries in (self.values | self.details).items():
            if len(entries) != len(self.seeds):
                raise ValueError(
                    f"{name} of {self.name!r} must hold {len(self.seeds)} values, one per seed; "
                    f"got {len(entries)}"
                )


def check_rows(rows: Sequence[Row]) -> None:
    """Raise ``ValueError`` unless there is a row, and all are of one table, its groups or tasks."""
    if not rows:
        raise ValueError("rows must not be empty")
    first = rows[0]
    for row in rows:
        if row.table != first.table:
            raise ValueError(f"rows must be of one table; got {first.table} and {row.table}")
        if row.shared.get("groups") != first.shared.get("groups"):
            raise ValueError("rows must have the same groups of classes")
        if row.shared.get("class_sizes") != first.shared.get("class_sizes"):
            raise ValueError(
                f"rows must be of the same tasks; {first.name!r} has {first.shared['class_sizes']} "
                f"classes, {row.name!r} {row.shared['class_sizes']}"
            )
        if row.table == "tasks":
            _check_shapes(row)


def _check_shapes(row: Row) -> None:
    tasks = len(row.shared["class_sizes"])
    shapes = {"matrices": (tasks, tasks), "accuracies": (tasks,), "task_confusions": (tasks, tasks)}
    for name, shape in shapes.items():
        for seed, values in zip(row.seeds, row.details[name], strict=True):
            if np.shape(values) != shape:
                raise ValueError(
                    f"{name} of {row.name!r} must be {shape} for {tasks} tasks; seed {seed} has "
                    f"{np.shape(values)}"
                )


def write_record(path: Path, title: str, tables: Mapping[str, Sequence[Row]]) -> None:
    """Write the rows of a comparison by table as JSON, with the environment they come from.

    A row's entries stand side by side: the variant under ``head`` or ``method``, its seeds, and by
    name what it shares, its measures and details. NaN and infinity are null.
    """
    from lastlayer.training.run_directory import describe_environment

    used = {name for rows in tables.values() for row in rows for name in row.values}
    record: dict[str, Any] = {
        "title": title,
        "environment": describe_environment(),
        "measures": {
            name: {"unit": MEASURES.get(name).unit.name, "direction": MEASURES.get(name).direction}
            for name in MEASURES.names()
            if name in used
        },
    }
    for table, rows in tables.items():
        if rows:
            name = KINDS[table].noun.lower()
            record[KINDS[table].record] = [
                {name: row.name, "seeds": row.seeds} | row.shared | row.values | row.details
                for row in rows
            ]
    # On one line, matrices of tasks take far less room.
    indent = None if tables.get("tasks") else 1
    record = with_null(record, lambda number: math.isnan(number) or number == math.inf)
    text = json.dumps(record, indent=indent, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_record(path: Path) -> dict[str, list[Row]]:
    """Return the rows of a ``comparison.json``, of any version, by table.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not the record of a comparison.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {
            table: [
                _row_of(table, entries)
                for entries in record.get(kind.record, [])
                if kind.noun.lower() in entries
            ]
            for table, kind in KINDS.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not the record of a comparison: {error!r}") from error


def _row_of(table: str, entries: dict[str, Any]) -> Row:
    kind = KINDS[table]
    if "group_accuracy" in entries:  # before version 0.2 by the names of the groups
        by_group = entries["group_accuracy"].values()
        names = ("frequent_accuracy", "medium_accuracy", "rare_accuracy")
        into_first = [confusion[-1][0] for confusion in entries["group_confusion"]]
        entries |= dict(zip(names, by_group, strict=True)) | {"rare_as_frequent": into_first}
    return Row(
        entries[kind.noun.lower()],
        entries["seeds"],
        {
            name: [measure.null if value is None else value for value in entries[name]]
            for name, measure in measures_of(table).items()
            if entries.get(name)
        },
        table,
        {name: entries[name] for name in kind.shared},
        {name: with_nan(entries[name]) for name in kind.details},
    )
