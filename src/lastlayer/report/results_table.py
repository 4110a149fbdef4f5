"""Heads side by side over seeds: the results of one head, and the table of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from lastlayer._checks import check_choice
from lastlayer.report.format_cells import difference_cell, spread_cell
from lastlayer.report.text_table import TextTable, find_baseline

MEASURES = {  # field -> (column, unit factor, decimals)
    "error": ("Error %", 100.0, 2),
    "nll": ("NLL", 1.0, 3),
    "brier": ("Brier", 1.0, 3),
    "ece": ("ECE top-1 %", 100.0, 2),
    "ece_pooled": ("ECE pooled %", 100.0, 2),
    "nll_scaled": ("NLL, scaled", 1.0, 3),
    "ece_scaled": ("ECE top-1 %, scaled", 100.0, 2),
    "seconds": ("Seconds", 1.0, 1),
}


@dataclass(frozen=True)
class ComparisonRow:
    """One head's results, one value per seed in each list.

    Attributes:
        head: its name.
        seeds: the seeds run.
        error: error rates in [0, 1].
        nll: negative log-likelihoods in nats; may be inf.
        brier: Brier scores in [0, 2].
        ece: top-1 calibration errors in [0, 1].
        ece_pooled: pooled calibration errors in [0, 1].
        seconds: training times.
        nll_scaled: NLL after temperature scaling; empty if not done.
        ece_scaled: top-1 calibration error after temperature scaling; empty if not done.
    """

    head: str
    seeds: list[int]
    error: list[float]
    nll: list[float]
    brier: list[float]
    ece: list[float]
    ece_pooled: list[float]
    seconds: list[float]
    nll_scaled: list[float] = field(default_factory=list)
    ece_scaled: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(
                f"seeds of {self.head!r} must be distinct, one or more; got {self.seeds}"
            )
        for name in MEASURES:
            values = getattr(self, name)
            optional = name.endswith("_scaled") and not values
            if len(values) != len(self.seeds) and not optional:
                raise ValueError(
                    f"{name} of {self.head!r} must hold {len(self.seeds)} values, one per seed; "
                    f"got {len(values)}"
                )


def comparison_table(
    rows: Sequence[ComparisonRow],
    baseline: str | None = None,
    measures: Sequence[str] = tuple(MEASURES),
    differences: Sequence[str] = ("error", "nll"),
) -> TextTable:
    """Mean ± sd of every measure per head, and paired differences to a baseline.

    A difference is taken seed by seed over the seeds a head shares with the baseline, with a
    95 % Student-t interval; one shared seed gives no interval, none gives no difference.
    Temperature-scaled columns appear if any head has them.

    Args:
        rows: one ``ComparisonRow`` per head.
        baseline: head to compare with; the first row's if None.
        measures: fields of ``ComparisonRow``, one column each; fewer suit a narrow terminal.
        differences: fields of ``ComparisonRow``, one column of differences each.

    Returns:
        A ``TextTable``.

    Raises:
        ValueError: if ``rows`` is empty, a head comes twice, ``baseline`` is not among them, or a
            measure is unknown.

    >>> row = ComparisonRow("softmax", [0], [0.1], [0.3], [0.1], [0.02], [0.01], [1.5])
    >>> print(comparison_table([row]).to_markdown().splitlines()[2])
    | softmax | 1 | 10.00 | 0.300 | 0.100 | 2.00 | 1.00 | 1.5 | baseline | baseline |
    """
    heads = [row.head for row in rows]
    baseline = find_baseline(heads, baseline)
    for name in measures:
        check_choice("measures", name, MEASURES)
    for name in differences:
        check_choice("differences", name, MEASURES)
    reference = rows[heads.index(baseline)]
    shown = [name for name in measures if any(getattr(row, name) for row in rows)]
    cells = [
        (
            row.head,
            str(len(row.seeds)),
            *(
                spread_cell(getattr(row, name), *MEASURES[name][1:], undefined="nan")
                for name in shown
            ),
            *(
                difference_cell(row, reference, attrgetter(name), *MEASURES[name][1:])
                for name in differences
            ),
        )
        for row in rows
    ]
    names = ("error" if name == "error" else MEASURES[name][0] for name in differences)
    changes = (f"Δ {name} to {baseline}" for name in names)
    columns = ("Head", "Seeds", *(MEASURES[name][0] for name in shown), *changes)
    note = (
        "Mean ± standard deviation over seeds. NLL in nats. Δ: paired difference, of errors in "
        "points, seed by seed, with its 95 % Student-t interval; below 0 is better."
    )
    if any(name.endswith("_scaled") for name in shown):
        note += " Scaled: after temperature scaling on held-out data."
    return TextTable(columns, tuple(cells), note)
