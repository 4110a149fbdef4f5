"""The estimators whose solvers take whole passes: one objective, three ways to its minimum."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lastlayer._checks import check_choice, check_count
from lastlayer.linear_model.base import LinearSoftmax
from lastlayer.linear_model.coarse import coarse_problem
from lastlayer.linear_model.options import check_positive_or_auto, check_share
from lastlayer.linear_model.problem import SoftmaxProblem
from lastlayer.linear_model.sgd import SGDSoftmax
from lastlayer.linear_model.solvers.admm import solve_admm
from lastlayer.linear_model.solvers.lbfgs import solve_lbfgs
from lastlayer.linear_model.solvers.newton_krylov import solve_newton_krylov
from lastlayer.linear_model.solvers.progress import Callback, Progress

# SGDSoftmax stays here too: pickles name a class by its module.
__all__ = ["ADMMSoftmax", "LBFGSSoftmax", "NewtonKrylovSoftmax", "SGDSoftmax"]

PRECONDITIONERS = ("auto", "gram", "diagonal", "none")


class LBFGSSoftmax(LinearSoftmax):
    r"""Softmax classifier by limited-memory BFGS on implicitly whitened features.

    The quasi-Newton matrix starts from the inverse of :math:`c A^\top S A + Q`, c being the mean
    curvature of the loss: the matrix that ADMM-Softmax factorises, and a far better start than a
    multiple of the identity. Where that matrix costs more than it saves, its diagonal is taken.

    Args:
        C: inverse strength of the penalty, above 0; infinity for none.
        penalty_operator: L of the penalty, (m, d), such as
            :func:`lastlayer.linear_model.discrete_laplacian`; the identity if None.
        fit_intercept: whether there is an intercept; it has no penalty.
        class_weight: as in ``sklearn.linear_model.LogisticRegression``.
        tol: relative gap to the minimum, certified by a dual bound, at which to stop. Without such
            a bound (no penalty or a singular one) the largest entry of the gradient
            relative to that at zero weights.
        max_iter: most iterations.
        warm_start: whether to start from the last fit, if its weights are better than zero.
        memory: pairs of steps and gradients that are kept.
        preconditioner: ``"gram"``, ``"diagonal"``, ``"none"``, or ``"auto"``: the Gram matrix
            where it costs at most 24 passes over the rows.
        mixed_precision: whether large float64 problems are computed with in float32 as long as
            that is exact enough; costs a copy of the features. ``tol`` is met in float64.
        device: where to compute, such as ``"cuda"``; where the features are if None.
        callback: called with a :class:`lastlayer.linear_model.Record` every iteration; returning
            True stops.

    Attributes:
        classes_: (K,) labels, sorted.
        coef_: (K, d) weights; two rows for two classes.
        intercept_: (K,).
        n_iter_: iterations taken.
        converged_: whether ``tol`` was reached.
        gap_: the certified relative gap; infinity where there is no bound.
        history_: lists by quantity, see :class:`lastlayer.linear_model.Record`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> round(LBFGSSoftmax().fit(X, y).score(X, y), 3)
        0.973

    Source: Liu and Nocedal, Mathematical Programming 1989; the start matrix is ADMM-Softmax's,
    Fung et al., arXiv 1901.09450.
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        penalty_operator: Any = None,
        fit_intercept: bool = True,
        class_weight: Any = None,
        tol: float = 1e-3,
        max_iter: int = 1000,
        warm_start: bool = False,
        memory: int = 10,
        preconditioner: str = "auto",
        mixed_precision: bool = True,
        device: Any = None,
        callback: Callback | None = None,
    ) -> None:
        self.C = C
        self.penalty_operator = penalty_operator
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.memory = memory
        self.preconditioner = preconditioner
        self.mixed_precision = mixed_precision
        self.device = device
        self.callback = callback

    def _check_options(self) -> None:
        super()._check_options()
        check_count("memory", self.memory)
        check_choice("preconditioner", self.preconditioner, PRECONDITIONERS)

    def _solve(self, problem: SoftmaxProblem, theta: Tensor, progress: Progress) -> Tensor:
        return solve_lbfgs(
            problem,
            theta,
            progress,
            max_iter=int(self.max_iter),
            memory=int(self.memory),
            preconditioner=self.preconditioner,
            coarse=coarse_problem(problem) if self.mixed_precision else None,
        )


class NewtonKrylovSoftmax(LinearSoftmax):
    r"""Softmax classifier by Newton's method, its systems solved by conjugate gradients.

    Products with the Hessian cost a pass over the rows each; the systems are preconditioned by
    :math:`c A^\top S A + Q` and solved only as exactly as the distance to the minimum deserves.
    Takes few iterations to any accuracy, also where features are ill-conditioned.

    Args:
        C: inverse strength of the penalty, above 0; infinity for none.
        penalty_operator: L of the penalty, (m, d); the identity if None.
        fit_intercept: whether there is an intercept; it has no penalty.
        class_weight: as in ``sklearn.linear_model.LogisticRegression``.
        tol: certified relative gap at which to stop, see :class:`LBFGSSoftmax`.
        max_iter: most Newton steps.
        warm_start: whether to start from the last fit.
        max_products: most Hessian products for one step.
        preconditioner: ``"gram"``, ``"diagonal"``, ``"none"``, or ``"auto"`` by cost.
        mixed_precision: whether products with the Hessian of large float64 problems are computed
            in float32; costs a copy of the features. Gradients stay in float64.
        device: where to compute; where the features are if None.
        callback: called with a record every iteration; returning True stops.

    Attributes: those of :class:`LBFGSSoftmax`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> NewtonKrylovSoftmax(tol=1e-12).fit(X, y).n_iter_ < 15
        True

    Source: the Newton-CG rival of Fung et al., "ADMM-Softmax", arXiv 1901.09450.
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        penalty_operator: Any = None,
        fit_intercept: bool = True,
        class_weight: Any = None,
        tol: float = 1e-3,
        max_iter: int = 100,
        warm_start: bool = False,
        max_products: int = 200,
        preconditioner: str = "auto",
        mixed_precision: bool = True,
        device: Any = None,
        callback: Callback | None = None,
    ) -> None:
        self.C = C
        self.penalty_operator = penalty_operator
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.max_products = max_products
        self.preconditioner = preconditioner
        self.mixed_precision = mixed_precision
        self.device = device
        self.callback = callback

    def _check_options(self) -> None:
        super()._check_options()
        check_count("max_products", self.max_products)
        check_choice("preconditioner", self.preconditioner, PRECONDITIONERS)

    def _solve(self, problem: SoftmaxProblem, theta: Tensor, progress: Progress) -> Tensor:
        return solve_newton_krylov(
            problem,
            theta,
            progress,
            max_iter=int(self.max_iter),
            max_products=int(self.max_products),
            preconditioner=self.preconditioner,
            coarse=coarse_problem(problem) if self.mixed_precision else None,
        )


class ADMMSoftmax(LinearSoftmax):
    r"""Softmax classifier by the alternating direction method of multipliers.

    Alternates one least-squares problem, whose matrix is factorised once for all classes and
    iterations, with one small convex problem per row, solved for all rows at once. Good at medium
    accuracy; where it becomes slow, L-BFGS goes on with the same matrix unless ``polish`` is off.

    Args:
        C: inverse strength of the penalty, above 0; infinity for none.
        penalty_operator: L of the penalty, (m, d); the identity if None.
        fit_intercept: whether there is an intercept; it has no penalty.
        class_weight: as in ``sklearn.linear_model.LogisticRegression``.
        tol: certified relative gap at which to stop, see :class:`LBFGSSoftmax`.
        max_iter: most iterations, L-BFGS's included.
        warm_start: whether to start from the last fit.
        rho: penalty of the constraint, above 0; ``"auto"`` is twice the mean curvature of the loss,
            followed while it drifts by more than 1.5 times.
        over_relaxation: in [1, 2).
        prox_steps: Newton steps of a row's problem, from its last solution.
        polish: whether L-BFGS takes over where the last iterations brought little.
        device: where to compute; where the features are if None.
        callback: called with a record every iteration; returning True stops.

    Attributes: those of :class:`LBFGSSoftmax`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> round(ADMMSoftmax().fit(X, y).score(X, y), 3)
        0.973

    Source: Fung, Tyrvainen, Ruthotto and Haber, "ADMM-Softmax", arXiv 1901.09450.
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        penalty_operator: Any = None,
        fit_intercept: bool = True,
        class_weight: Any = None,
        tol: float = 1e-3,
        max_iter: int = 1000,
        warm_start: bool = False,
        rho: float | str = "auto",
        over_relaxation: float = 1.6,
        prox_steps: int = 2,
        polish: bool = True,
        device: Any = None,
        callback: Callback | None = None,
    ) -> None:
        self.C = C
        self.penalty_operator = penalty_operator
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.rho = rho
        self.over_relaxation = over_relaxation
        self.prox_steps = prox_steps
        self.polish = polish
        self.device = device
        self.callback = callback

    def _check_options(self) -> None:
        super()._check_options()
        check_positive_or_auto("rho", self.rho)
        check_share("over_relaxation", self.over_relaxation, 1, 2)
        check_count("prox_steps", self.prox_steps)

    def _solve(self, problem: SoftmaxProblem, theta: Tensor, progress: Progress) -> Tensor:
        return solve_admm(
            problem,
            theta,
            progress,
            max_iter=int(self.max_iter),
            rho=self.rho,
            over_relaxation=float(self.over_relaxation),
            prox_steps=int(self.prox_steps),
            polish=self.polish,
        )
