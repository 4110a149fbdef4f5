"""What stands in the cells of a table of results over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lastlayer.evaluation.intervals import mean_sd, paired_difference
from lastlayer.evaluation.measures import Measure, Unit
from lastlayer.report.rows import Row

NOTHING = "–"


def spread_cell(values: Sequence[float], unit: Unit) -> str:
    """Mean ± standard deviation of one number per seed; a dash if there is none, or one is NaN.

    >>> from lastlayer.evaluation.measures import SHARE
    >>> spread_cell([0.5, 0.7], SHARE), spread_cell([1.0], SHARE), spread_cell([math.nan], SHARE)
    ('60.00 ± 14.14', '100.00', '–')
    """
    if not values or any(map(math.isnan, values)):
        return NOTHING
    mean, sd = mean_sd([unit.factor * value for value in values])
    shown = f"{mean:.{unit.decimals}f}"
    return shown if math.isnan(sd) else f"{shown} ± {sd:.{unit.decimals}f}"


def difference_cell(row: Row, reference: Row, measure: Measure) -> str:
    """Mean paired difference with its 95 % Student-t interval, over the seeds both have.

    Without an interval for one shared seed, a dash for none; seeds where one is NaN are left out.
    """
    if row is reference:
        return "baseline"
    factor, digits = measure.unit.factor, measure.unit.decimals
    mine, theirs = (
        {
            seed: factor * value
            for seed, value in zip(each.seeds, each.values.get(measure.name, ()), strict=False)
            if not math.isnan(value)
        }
        for each in (row, reference)
    )
    shared = [seed for seed in mine if seed in theirs]
    if not shared:
        return NOTHING
    mean, low, high, _ = paired_difference([mine[s] for s in shared], [theirs[s] for s in shared])
    if math.isnan(mean):  # infinity minus infinity
        return NOTHING
    interval = f" [{low:+.{digits}f}, {high:+.{digits}f}]" if math.isfinite(low) else ""
    return f"{mean:+.{digits}f}{interval}"
