"""The estimators: one objective, ways to its minimum, and the class that chooses one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from torch import Tensor

from lastlayer._checks import check_choice, check_count
from lastlayer.linear_model.base import LinearSoftmax
from lastlayer.linear_model.float32_problem import float32_problem
from lastlayer.linear_model.inputs import Examples, check_positive_or_auto, check_share
from lastlayer.linear_model.problem import SoftmaxProblem
from lastlayer.linear_model.rows.memory import LocalRows
from lastlayer.linear_model.sgd import SGDSoftmax
from lastlayer.linear_model.shared_arguments import DEFAULTS, SharedArguments
from lastlayer.linear_model.solvers.admm import solve_admm
from lastlayer.linear_model.solvers.lbfgs import solve_lbfgs
from lastlayer.linear_model.solvers.newton_krylov import solve_newton_krylov
from lastlayer.linear_model.solvers.progress import Progress
from lastlayer.registry import Registry

# SGDSoftmax stays here too: pickles name a class by its module.
__all__ = ["ADMMSoftmax", "LBFGSSoftmax", "NewtonKrylovSoftmax", "SGDSoftmax", "SoftmaxRegression"]

PRECONDITIONERS = ("auto", "gram", "diagonal", "none")
#: Up to so many products (rows x features x classes) a pass takes about a millisecond, no more than
#: what L-BFGS does between two passes: then few iterations count, not few passes.
NEWTON_PRODUCTS = 3e6


class LBFGSSoftmax(LinearSoftmax):
    r"""Softmax classifier by limited-memory BFGS on implicitly whitened features.

    The quasi-Newton matrix starts from the inverse of :math:`c A^\top S A + Q`, c being the mean
    curvature of the loss: the matrix that ADMM-Softmax factorizes, and a far better start than a
    multiple of the identity. Where that matrix costs more than it saves, its diagonal is taken.

    Args:
        memory: pairs of steps and gradients that are kept.
        preconditioner: ``"gram"``, ``"diagonal"``, ``"none"``, or ``"auto"``: the Gram matrix
            where it costs at most 24 passes over the rows.
        mixed_precision: whether large float64 problems are computed with in float32 as long as
            that is exact enough; costs a copy of the features. ``tol`` is met in float64.

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
        memory: int = 10,
        preconditioner: str = "auto",
        mixed_precision: bool = True,
        **shared: Unpack[SharedArguments],
    ) -> None:
        super().__init__(C, **shared)
        self.memory = memory
        self.preconditioner = preconditioner
        self.mixed_precision = mixed_precision

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
            float32=float32_problem(problem) if self.mixed_precision else None,
        )


class NewtonKrylovSoftmax(LinearSoftmax, max_iter=100):
    r"""Softmax classifier by Newton's method, its systems solved by conjugate gradients.

    Products with the Hessian cost a pass over the rows each; the systems are preconditioned by
    :math:`c A^\top S A + Q` and solved only as exactly as the distance to the minimum deserves.
    Takes few iterations to any accuracy, also where features are ill-conditioned.

    Args:
        max_iter: most Newton steps.
        max_products: most Hessian products for one step.
        preconditioner: ``"gram"``, ``"diagonal"``, ``"none"``, or ``"auto"`` by cost.
        mixed_precision: whether products with the Hessian of large float64 problems are computed
            in float32; costs a copy of the features. Gradients stay in float64.

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
        max_products: int = 200,
        preconditioner: str = "auto",
        mixed_precision: bool = True,
        **shared: Unpack[SharedArguments],
    ) -> None:
        super().__init__(C, **shared)
        self.max_products = max_products
        self.preconditioner = preconditioner
        self.mixed_precision = mixed_precision

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
            float32=float32_problem(problem) if self.mixed_precision else None,
        )


class ADMMSoftmax(LinearSoftmax):
    r"""Softmax classifier by the alternating direction method of multipliers.

    Alternates one least-squares problem, whose matrix is factorized once for all classes and
    iterations, with one small convex problem per row, solved for all rows at once. Good at medium
    accuracy; where it becomes slow, L-BFGS goes on with the same matrix unless ``polish`` is off.

    Args:
        max_iter: most iterations, L-BFGS's included.
        rho: penalty of the constraint, above 0; ``"auto"`` is twice the mean curvature of the loss,
            followed while it drifts by more than 1.5 times.
        over_relaxation: in [1, 2).
        prox_steps: Newton steps of a row's problem, from its last solution.
        polish: whether L-BFGS takes over where the last iterations brought little.

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
        rho: float | str = "auto",
        over_relaxation: float = 1.6,
        prox_steps: int = 2,
        polish: bool = True,
        **shared: Unpack[SharedArguments],
    ) -> None:
        super().__init__(C, **shared)
        self.rho = rho
        self.over_relaxation = over_relaxation
        self.prox_steps = prox_steps
        self.polish = polish

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


class SoftmaxRegression(LinearSoftmax):
    r"""Multinomial logistic regression by the solver that suits the problem, or any.

    .. math:: F(W, b) = \sum_i s_i \left[\mathrm{lse}(z_i) - z_{i, y_i}\right]
        + \frac{1}{2 C} \|L W\|^2, \qquad z_i = W^\top a_i + b

    ``"auto"`` takes Newton-Krylov where rows times features times classes are at most three
    million, and L-BFGS on whitened features otherwise.

    Args:
        solver: ``"auto"``, ``"lbfgs"``, ``"newton-krylov"``, ``"admm"`` or ``"sgd"``.
        solver_options: what the solver's own class takes besides, such as ``{"memory": 20}`` of
            :class:`LBFGSSoftmax`; of ``"auto"`` what both solvers take. See
            :class:`NewtonKrylovSoftmax`, :class:`ADMMSoftmax` and :class:`SGDSoftmax`.
        mixed_precision: whether large float64 problems are computed with in float32 as long as
            that is exact enough.

    Attributes:
        solver_: the solver taken.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> SoftmaxRegression(tol=1e-3).fit(X / 16, y).solver_
        'newton-krylov'
        >>> model = SoftmaxRegression(solver="lbfgs", solver_options={"memory": 20})
        >>> round(model.fit(X / 16, y).score(X / 16, y), 2)
        0.98
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        solver: str = "auto",
        solver_options: Mapping[str, Any] | None = None,
        mixed_precision: bool = True,
        **shared: Unpack[SharedArguments],
    ) -> None:
        super().__init__(C, **shared)
        self.solver = solver
        self.solver_options = solver_options
        self.mixed_precision = mixed_precision

    def _check_options(self) -> None:
        super()._check_options()
        check_choice("solver", self.solver, ("auto", *(n for n in SOLVERS.names() if n != "auto")))
        if not isinstance(self.solver_options, Mapping | None):
            raise ValueError(
                "solver_options must be None or a dictionary of the solver's own arguments; "
                f"got {self.solver_options!r}"
            )
        names = ("newton-krylov", "lbfgs") if self.solver == "auto" else (self.solver,)
        options = [set(_own_arguments(name)) - {"mixed_precision"} for name in names]
        known = set.intersection(*options)
        for option in self.solver_options or ():
            if option not in known:
                raise ValueError(
                    f"solver_options of solver {self.solver!r} must be among "
                    f"{', '.join(sorted(known))}; got {option!r}"
                )
        for name in names:
            self._by(name)._check_options()

    def _by(self, solver: str) -> LinearSoftmax:
        """Return the estimator of a solver, with this one's options."""
        options = {name: getattr(self, name) for name in ("C", *self._defaults)}
        if "mixed_precision" in _own_arguments(solver):
            options["mixed_precision"] = self.mixed_precision
        return SOLVERS.get(solver)(**options, **(self.solver_options or {}))

    def _rows(self, examples: Examples) -> LocalRows:
        if self.solver == "auto":
            return super()._rows(examples)
        return self._by(self.solver)._rows(examples)

    def _solve(self, problem: SoftmaxProblem, theta: Tensor, progress: Progress) -> Tensor:
        self.solver_ = choose_solver(problem) if self.solver == "auto" else self.solver
        return self._by(self.solver_)._solve(problem, theta, progress)

    def _advice(self, progress: Progress) -> str:
        return self._by(self.solver_)._advice(progress)


def choose_solver(problem: SoftmaxProblem) -> str:
    """Return the solver that suits a problem, by the cost of a pass over its rows."""
    products = problem.num_rows * problem.rows.num_features * problem.num_classes
    return "newton-krylov" if products <= NEWTON_PRODUCTS else "lbfgs"


SOLVERS: Registry[type[LinearSoftmax]] = Registry(kind="solver", group="lastlayer.linear_model")
SOLVERS.add("lbfgs", LBFGSSoftmax, description="limited-memory BFGS on whitened features")
SOLVERS.add("newton-krylov", NewtonKrylovSoftmax, description="Newton with conjugate gradients")
SOLVERS.add("admm", ADMMSoftmax, description="ADMM-Softmax: least squares and row problems in turn")
SOLVERS.add("sgd", SGDSoftmax, description="stochastic gradient descent with momentum")
SOLVERS.add("auto", SoftmaxRegression, description="one of these, by the problem's size")


def _own_arguments(solver: str) -> list[str]:
    """Return the arguments that a solver's class has and not every estimator."""
    names = SOLVERS.get(solver)._get_param_names()
    return [name for name in names if name not in ("C", *DEFAULTS)]
