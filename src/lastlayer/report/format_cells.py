"""What stands in the cells of a table of results over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from lastlayer.evaluation.intervals import mean_sd, paired_difference

NOTHING = "–"


class Seeded(Protocol):
    """Results with one value per seed."""

    @property
    def seeds(self) -> list[int]:
        """The seeds run."""


Row = TypeVar("Row", bound=Seeded)


def spread_cell(
    values: Sequence[float], factor: float = 100.0, digits: int = 2, *, undefined: str = NOTHING
) -> str:
    """Mean ± standard deviation; the mean alone of a single value.

    Args:
        values: one number per seed; a dash if there is none.
        factor: what they are multiplied by, 100 for per cent.
        digits: decimals shown.
        undefined: what is shown if a value is NaN.

    >>> spread_cell([0.5, 0.7]), spread_cell([1.0]), spread_cell([math.nan])
    ('60.00 ± 14.14', '100.00', '–')
    """
    if not values:
        return NOTHING
    if any(map(math.isnan, values)):
        return undefined
    mean, sd = mean_sd([factor * value for value in values])
    return f"{mean:.{digits}f}" + ("" if math.isnan(sd) else f" ± {sd:.{digits}f}")


def difference_cell(
    row: Row,
    reference: Row,
    measure: Callable[[Row], Sequence[float]],
    factor: float = 100.0,
    digits: int = 2,
) -> str:
    """Mean paired difference with its 95 % Student-t interval, over the seeds both have.

    Args:
        row: the results shown.
        reference: those they are held against.
        measure: takes the values, one per seed, from a row.
        factor: what they are multiplied by.
        digits: decimals shown.

    Returns:
        The cell: without an interval for one shared seed, a dash for none. Seeds where one of both
        is NaN are left out.
    """
    if row is reference:
        return "baseline"
    mine, theirs = (dict(zip(each.seeds, measure(each), strict=False)) for each in (row, reference))
    pairs = [
        (factor * mine[seed], factor * theirs[seed])
        for seed in mine
        if seed in theirs and not (math.isnan(mine[seed]) or math.isnan(theirs[seed]))
    ]
    if not pairs:
        return NOTHING
    mean, low, high, _ = paired_difference([a for a, _ in pairs], [b for _, b in pairs])
    if math.isnan(mean):  # infinity minus infinity
        return NOTHING
    interval = f" [{low:+.{digits}f}, {high:+.{digits}f}]" if math.isfinite(low) else ""
    return f"{mean:+.{digits}f}{interval}"
