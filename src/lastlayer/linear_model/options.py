"""Options of the estimators: kept as they were given, checked when a fit begins."""

from __future__ import annotations

import math
from numbers import Real


def is_number(value: object) -> bool:
    """Return whether this is a real number of Python or NumPy, not NaN, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def check_positive_or_auto(name: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number above 0 or ``"auto"``."""
    if isinstance(value, str) and value == "auto":
        return
    if not (is_number(value) and 0.0 < float(value) < math.inf):  # type: ignore[arg-type]
        raise ValueError(f"{name} must be a finite number above 0, or 'auto'; got {value!r}")


def check_share(name: str, value: object, low: float, high: float) -> None:
    """Raise ``ValueError`` unless ``value`` is a number of [low, high)."""
    if not (is_number(value) and low <= float(value) < high):  # type: ignore[arg-type]
        raise ValueError(f"{name} must be in [{low:g}, {high:g}); got {value!r}")
