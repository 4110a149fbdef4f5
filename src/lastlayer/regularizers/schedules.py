"""How a regularizer's rate moves over a run, as functions of the share of the run that is done."""

from __future__ import annotations

import math
from collections.abc import Callable

#: From the share of the run that is done, in [0, 1], to a factor in [0, 1] of the full rate.
Schedule = Callable[[float], float]


def constant(done: float) -> float:
    """Return 1: the full rate from the first step."""
    return 1.0


def linear(done: float) -> float:
    """Return ``done``: from 0 to the full rate over the whole run, as DropBlock and Disout have it.

    The mean rate of the run is half of the full one.
    """
    return done


def cosine(done: float) -> float:
    r"""Return :math:`(1 - \cos \pi d) / 2`: as linear, with a slow start and a slow end."""
    return (1 - math.cos(math.pi * done)) / 2


SCHEDULES: dict[str, Schedule] = {"constant": constant, "linear": linear, "cosine": cosine}


def share_done(step: int, total_steps: int) -> float:
    """Return the share of a run that is done before a step, 0 at the first and 1 at the last.

    Args:
        step: number of the step, from 0.
        total_steps: length of the ramp in steps; beyond it the share is 1.

    Example:
        >>> [share_done(step, 3) for step in range(4)]
        [0.0, 0.5, 1.0, 1.0]
    """
    return min(1.0, step / (total_steps - 1)) if total_steps > 1 else 1.0
