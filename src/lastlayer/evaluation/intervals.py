"""Means over seeds with Student-t intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """A mean with its confidence interval.

    Attributes:
        mean: mean of the values.
        low: lower end.
        high: upper end.
        n: number of values.
    """

    mean: float
    low: float
    high: float
    n: int


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (divisor n - 1).

    Args:
        values: n >= 1 numbers; may be infinite, not NaN.

    Returns:
        (mean, sd); sd is NaN for a single value and where a value is infinite.

    Raises:
        ValueError: if ``values`` is empty or holds NaN.

    >>> mean_sd([1.0, 2.0, 3.0])
    (2.0, 1.0)
    """
    array = _checked("values", values)
    mean = _mean(array)
    defined = len(array) > 1 and math.isfinite(mean)
    return mean, float(array.std(ddof=1)) if defined else math.nan


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    r"""Student-t interval of a mean, :math:`\bar x \pm t_{n-1}\, s/\sqrt n`.

    Args:
        values: n >= 1 numbers, one per seed; may be infinite, not NaN.
        confidence: coverage in (0, 1).

    Returns:
        The ``Interval``; its ends are infinite for a single value or if the spread is infinite.

    Raises:
        ValueError: if ``values`` is empty or holds NaN, or ``confidence`` is outside (0, 1).

    >>> [round(end, 3) for end in mean_interval([1.0, 2.0, 3.0])[:3]]
    [2.0, -0.484, 4.484]
    """
    from scipy.stats import t

    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie in (0, 1); got {confidence!r}")
    mean, sd = mean_sd(values)
    n = len(values)
    if math.isnan(sd):
        return Interval(mean, -math.inf, math.inf, n)
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(
    values_a: Sequence[float], values_b: Sequence[float], confidence: float = 0.95
) -> Interval:
    r"""Student-t interval of the mean of :math:`a_s - b_s` over shared seeds s.

    Pairing removes what the seeds do to both (data order, split); the interval speaks of the
    seeds run, not of other data sets.

    Args:
        values_a: n >= 1 numbers, one per seed.
        values_b: n numbers of the same seeds in the same order.
        confidence: coverage in (0, 1).

    Returns:
        The ``Interval`` of the difference; its ends are infinite for one seed. The mean is NaN
        where both are infinite for one seed.

    Raises:
        ValueError: if the lengths differ, are 0, a value is NaN, or ``confidence`` is outside
            (0, 1).

    >>> paired_difference([3.0, 4.0], [1.0, 2.0])
    Interval(mean=2.0, low=2.0, high=2.0, n=2)
    """
    a, b = _checked("values_a", values_a), _checked("values_b", values_b)
    if len(a) != len(b):
        raise ValueError(
            f"values_a and values_b must hold the same seeds; got {len(a)} and {len(b)} values"
        )
    if bool((np.isinf(a) & (a == b)).any()):  # inf - inf
        return Interval(math.nan, -math.inf, math.inf, len(a))
    return mean_interval((a - b).tolist(), confidence)


def _checked(name: str, values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a non-empty list of numbers; got shape {array.shape}")
    if bool(np.isnan(array).any()):
        raise ValueError(f"{name} must not hold NaN; got {values!r}")
    return array


def _mean(array: NDArray[np.float64]) -> float:
    if np.isposinf(array).any() and np.isneginf(array).any():
        return math.nan
    return float(array.mean())
