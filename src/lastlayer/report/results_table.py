"""Variants side by side over seeds: the table of their measures and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from lastlayer._checks import check_choice
from lastlayer.evaluation import Measure, measures_of
from lastlayer.report.format_cells import difference_cell, spread_cell
from lastlayer.report.kinds import KINDS
from lastlayer.report.rows import Row, check_rows
from lastlayer.report.text_table import TextTable

#: How the columns are laid out by direction of their measures.
BETTER = {"lower": "below 0 is better", "higher": "above 0 is better"}


def results_table(
    rows: Sequence[Row],
    baseline: str | None = None,
    measures: Sequence[str] | None = None,
    differences: Sequence[str] | None = None,
    *,
    narrow: bool = False,
) -> TextTable:
    """Mean ± sd of every measure per variant, and paired differences to a baseline.

    A difference is taken seed by seed over the seeds a variant shares with the baseline, with a
    95 % Student-t interval; one shared seed gives no interval, none gives no difference. A column
    appears if any row has its measure.

    Args:
        rows: one ``Row`` per variant, all of one table.
        baseline: variant to compare with; the first row's if None.
        measures: names of measures, one column each; if None, those that are declared to have one.
        differences: names of measures, one column of differences each; the declared ones if None.
        narrow: leave out what is declared for wide terminals only.

    Returns:
        A ``TextTable``; its note says what is measured, and how.

    Raises:
        ValueError: if ``rows`` is empty, a variant comes twice, rows are of other tables, groups or
            tasks, ``baseline`` is not among them, or a measure is unknown.

    >>> row = Row("softmax", [0], {"error": [0.1], "nll": [0.3], "seconds": [1.5]})
    >>> print(results_table([row]).to_markdown().splitlines()[2])
    | softmax | 1 | 10.00 | 0.300 | 1.5 | baseline | baseline |
    """
    reference = _reference(rows, baseline)
    kind, shared = KINDS[rows[0].table], rows[0].shared
    shown = [
        measure
        for measure in _chosen("measures", rows, measures, narrow and "column")
        if any(measure.name in row.values for row in rows)
    ]
    compared = _chosen("differences", rows, differences, narrow and "difference")
    columns = (
        kind.noun,
        "Seeds",
        *(measure.heading(shared) for measure in shown),
        *(
            f"Δ {measure.heading(shared, measure.difference)} to {reference.name}"
            for measure in compared
        ),
    )
    cells = [
        (
            row.name,
            str(len(row.seeds)),
            *(spread_cell(row.values.get(m.name, []), m.unit) for m in shown),
            *(difference_cell(row, reference, m) for m in compared),
        )
        for row in rows
    ]
    return TextTable(columns, tuple(cells), _note(rows[0], shown, compared))


def wide_and_narrow(rows: Sequence[Row], baseline: str | None = None) -> tuple[TextTable, ...]:
    """Return the table, and that for narrow terminals if it is another one."""
    tables = [results_table(rows, baseline, narrow=narrow) for narrow in (False, True)]
    return tuple(tables[: 1 + (tables[0].columns != tables[1].columns)])


def published_table(
    rows: Sequence[Row], published: Mapping[str, Mapping[str, float]], note: str = ""
) -> TextTable | None:
    """Return our numbers beside the published ones, in per cent; None if none were published.

    ``published`` is by variant, without options, and source.
    """
    sources = list(dict.fromkeys(source for by in published.values() for source in by))
    kind = KINDS[rows[0].table]
    if not sources or kind.published is None:
        return None
    measure, words = kind.published
    cells = []
    for row in rows:
        ours = 100 * float(np.mean(row.values[measure]))
        plain = "+".join(word.partition(":")[0] for word in row.name.split("+"))
        theirs = published.get(plain, {})
        numbers = [f"{theirs[s]:.2f}" if s in theirs else "–" for s in sources]
        cells.append((row.name, f"{ours:.2f}", *numbers))
    text = f"{words} in per cent; ours is the mean over seeds." + (f" {note}." if note else "")
    return TextTable((kind.noun, "Ours", *sources), tuple(cells), text)


def _reference(rows: Sequence[Row], baseline: str | None) -> Row:
    """Return the row that the others are held against: the first if no baseline is named."""
    names = [row.name for row in rows]
    noun = KINDS[rows[0].table].noun.lower() if rows else "head"
    if not names or len(set(names)) != len(names):
        raise ValueError(f"rows must hold one row per {noun}, one or more; got {names}")
    check_rows(rows)
    baseline = names[0] if baseline is None else baseline
    if baseline not in names:
        raise ValueError(f"baseline must be one of {', '.join(names)}; got {baseline!r}")
    return rows[names.index(baseline)]


def _chosen(
    argument: Literal["measures", "differences"],
    rows: Sequence[Row],
    names: Sequence[str] | None,
    left_out: str | bool,
) -> list[Measure]:
    known = measures_of(rows[0].table)
    if names is None:
        declared = "column" if argument == "measures" else "difference"
        names = [
            name
            for name, measure in known.items()
            if getattr(measure, declared) is not None and left_out not in measure.wide_only
        ]
    for name in names:
        check_choice(argument, name, known)
    return [known[name] for name in names]


def _note(row: Row, shown: Sequence[Measure], compared: Sequence[Measure]) -> str:
    explained = dict.fromkeys(m.explanation for m in shown if m.explanation)
    directions = {BETTER[m.direction]: m for m in compared}
    better = " and ".join(directions)
    if len(directions) > 1:
        better = ", ".join(
            f"of {m.heading(row.shared, m.difference)} {BETTER[m.direction]}" for m in compared
        )
    return KINDS[row.table].note(row.shared, "".join(f" {text}" for text in explained), better)
