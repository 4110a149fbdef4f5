"""When a solver is done, and what it keeps of its way there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from lastlayer.linear_model.problem import Evaluation, SoftmaxProblem


@dataclass(frozen=True)
class Record:
    """One iteration.

    Attributes:
        iteration: counted from 0, the start.
        objective: F at the weights.
        bound: the best lower bound of F's minimum so far; minus infinity if there is none.
        gradient: largest entry of F's gradient in absolute value; NaN where a solver has none.
        primal_residual: of ADMM's constraint, relative to the logits; NaN elsewhere.
        dual_residual: of ADMM's multipliers, relative to them; NaN elsewhere.
        seconds: since the solver began.
    """

    iteration: int
    objective: float
    bound: float
    gradient: float
    primal_residual: float = math.nan
    dual_residual: float = math.nan
    seconds: float = 0.0

    @property
    def gap(self) -> float:
        """Return how far F is above its minimum at most, relative to F."""
        if not math.isfinite(self.bound):
            return math.inf
        return max(0.0, self.objective - self.bound) / max(abs(self.objective), 1e-300)


Callback = Callable[[Record], object]


def asks_to_stop(answer: object) -> bool:
    """Return whether a callback returned True, Python's or NumPy's."""
    return isinstance(answer, bool | np.bool_) and bool(answer)


@dataclass
class Progress:
    r"""The history of a solver, and its stopping rule.

    Done is a certified gap :math:`(F - D) / F` of at most ``tol``, not counting what D was lowered
    by for rounding errors. Where there is no bound (no penalty, or a singular one, or a class
    without weight) the largest entry of the gradient must be at most ``tol`` times that at zero
    weights, wherever the solver started, or no more than rounding errors are.
    """

    problem: SoftmaxProblem
    tol: float
    callback: Callback | None = None
    records: list[Record] = field(default_factory=list)
    converged: bool = False
    stopped: bool = False

    def __post_init__(self) -> None:
        self._begin = time.perf_counter()
        self._certifies = self.problem.certifies
        self._goal = math.nan
        if not self._certifies:
            first = float(self.problem.start_gradient().abs().max())
            self._goal = max(self.tol * first, self.problem.gradient_noise())
        self._bound = self._exact = -math.inf

    def note(
        self,
        found: Evaluation,
        *,
        primal: float = math.nan,
        dual: float = math.nan,
        final: bool = True,
    ) -> bool:
        """Record an iteration; return whether the solver is to stop.

        What is not ``final`` is of a float32 problem: its bound certifies nothing and is forgotten.
        """
        if not math.isfinite(found.value):
            raise FloatingPointError(
                "the objective is no longer finite; scale the features, or use float64"
            )
        gradient = float(found.gradient.abs().max()) if found.gradient.numel() else math.nan
        bound = max(found.bound, self._bound)
        # Rounding's share of the gap is not held against tol: no further iteration would lower it.
        exact = max(found.bound + found.rounding_error, self._exact)
        if final:
            self._bound, self._exact = bound, exact
        record = Record(
            iteration=len(self.records),
            objective=found.value,
            bound=bound,
            gradient=gradient,
            primal_residual=primal,
            dual_residual=dual,
            seconds=time.perf_counter() - self._begin,
        )
        self.records.append(record)
        if self._certifies:
            self.converged = found.value - exact <= self.tol * abs(found.value)
        else:
            self.converged = gradient <= self._goal
        if self.callback is not None and asks_to_stop(self.callback(record)):
            self.stopped = True
        return self.converged or self.stopped

    @property
    def proven(self) -> bool:
        """Whether tol was reached, and by a bound that says more than that F is above 0.

        In low precision rounding's share of the gap may be all of F.
        """
        says = not self._certifies or self.records[-1].gap < max(1.0, self.tol)
        return self.converged and says

    def columns(self) -> dict[str, list[float]]:
        """Return the history as lists by quantity."""
        rows = [asdict(record) for record in self.records]
        return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}


def inner(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the inner product of two matrices."""
    return float(torch.dot(first.reshape(-1), second.reshape(-1)))
