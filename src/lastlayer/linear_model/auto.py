"""One estimator for all solvers, and the rule that chooses among them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lastlayer._checks import check_choice
from lastlayer.linear_model.base import LinearSoftmax
from lastlayer.linear_model.coarse import coarse_problem
from lastlayer.linear_model.problem import SoftmaxProblem
from lastlayer.linear_model.solvers.admm import solve_admm
from lastlayer.linear_model.solvers.lbfgs import solve_lbfgs
from lastlayer.linear_model.solvers.newton_krylov import solve_newton_krylov
from lastlayer.linear_model.solvers.progress import Callback, Progress

CHOICES = ("auto", "lbfgs", "newton-krylov", "admm")
#: Up to so many products (rows x features x classes) a pass takes about a millisecond, no more than
#: what L-BFGS does between two passes: then few iterations count, not few passes.
SMALL = 3e6


class SoftmaxRegression(LinearSoftmax):
    r"""Multinomial logistic regression by the solver that suits the problem.

    ``"auto"`` takes Newton-Krylov where rows times features times classes are at most three
    million, and L-BFGS on whitened features otherwise.

    Args:
        C: inverse strength of the penalty, above 0; infinity for none.
        solver: ``"auto"``, ``"lbfgs"``, ``"newton-krylov"`` or ``"admm"``.
        penalty_operator: L of the penalty, (m, d); the identity if None.
        fit_intercept: whether there is an intercept; it has no penalty.
        class_weight: as in ``sklearn.linear_model.LogisticRegression``.
        tol: certified relative gap at which to stop, see :class:`LBFGSSoftmax`.
        max_iter: most iterations.
        warm_start: whether to start from the last fit.
        mixed_precision: whether large float64 problems are computed with in float32 as long as
            that is exact enough.
        device: where to compute; where the features are if None.
        callback: called with a record every iteration; returning True stops.

    Attributes: those of :class:`LBFGSSoftmax`, and ``solver_``, the solver taken.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> SoftmaxRegression(tol=1e-3).fit(X / 16, y).solver_
        'newton-krylov'
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        solver: str = "auto",
        penalty_operator: Any = None,
        fit_intercept: bool = True,
        class_weight: Any = None,
        tol: float = 1e-3,
        max_iter: int = 1000,
        warm_start: bool = False,
        mixed_precision: bool = True,
        device: Any = None,
        callback: Callback | None = None,
    ) -> None:
        self.C = C
        self.solver = solver
        self.penalty_operator = penalty_operator
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.mixed_precision = mixed_precision
        self.device = device
        self.callback = callback

    def _check_options(self) -> None:
        super()._check_options()
        check_choice("solver", self.solver, CHOICES)

    def _solve(self, problem: SoftmaxProblem, theta: Tensor, progress: Progress) -> Tensor:
        self.solver_ = choose_solver(problem) if self.solver == "auto" else self.solver
        if self.solver_ == "admm":
            return solve_admm(problem, theta, progress, max_iter=int(self.max_iter))
        solve = solve_lbfgs if self.solver_ == "lbfgs" else solve_newton_krylov
        coarse = coarse_problem(problem) if self.mixed_precision else None
        return solve(problem, theta, progress, max_iter=int(self.max_iter), coarse=coarse)


def choose_solver(problem: SoftmaxProblem) -> str:
    """Return the solver that suits a problem, by the cost of a pass over its rows."""
    products = problem.num_rows * problem.rows.num_features * problem.num_classes
    return "newton-krylov" if products <= SMALL else "lbfgs"
