"""The objective in plain NumPy, its minimum by others, and problems to solve."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from sklearn.linear_model import LogisticRegression

from lastlayer.linear_model import discrete_laplacian
from lastlayer.linear_model.penalties import Smoothing, Tikhonov
from lastlayer.linear_model.problem import SoftmaxProblem
from lastlayer.linear_model.rows import rows_in_memory


class Case(NamedTuple):
    """A problem: (n, d) features, (n,) labels 0 to K-1, (n,) weights or None, and options."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None = None
    C: float = 1.0
    fit_intercept: bool = True
    operator: np.ndarray | None = None

    @property
    def num_classes(self) -> int:
        return int(self.y.max()) + 1

    def objective(self, coef, intercept) -> float:
        """F of (K, d) weights and (K,) intercepts, in float64."""
        coef, intercept = np.asarray(coef, np.float64), np.asarray(intercept, np.float64)
        z = np.asarray(self.X, np.float64) @ coef.T + intercept
        losses = logsumexp(z, axis=1) - z[np.arange(len(z)), self.y]
        weight = np.ones(len(z)) if self.weight is None else self.weight
        smoothed = coef if self.operator is None else coef @ self.operator.T
        return float(weight @ losses + (smoothed**2).sum() / (2 * self.C))

    def of(self, model) -> float:
        """F of a fitted estimator."""
        return self.objective(model.coef_, model.intercept_)

    def options(self) -> dict:
        return {
            "C": self.C,
            "fit_intercept": self.fit_intercept,
            "penalty_operator": self.operator,
        }

    def fit(self, estimator, **options):
        return estimator(**self.options(), **options).fit(self.X, self.y, self.weight)

    def scikit_learn_minimum(self) -> float:
        """F at scikit-learn's optimum; for two classes that of its binary model at 2 C."""
        binary = self.num_classes == 2
        model = LogisticRegression(
            C=2 * self.C if binary else self.C,
            fit_intercept=self.fit_intercept,
            solver="newton-cholesky",
            tol=1e-10,
            max_iter=10_000,
        )
        with warnings.catch_warnings():  # scikit-learn 1.8 tells C=inf that it ignores C
            warnings.filterwarnings("ignore", "Setting penalty=None")
            model.fit(self.X, self.y, self.weight)
        coef, intercept = model.coef_, np.broadcast_to(model.intercept_, len(model.coef_))
        if binary:
            coef = np.concatenate([-coef, coef]) / 2
            intercept = np.concatenate([-intercept, intercept]) / 2
        return self.objective(coef, intercept)

    def scipy_minimum(self) -> float:
        """F at the optimum of SciPy's BFGS, with gradients from the definition."""
        count, width = self.X.shape
        weight = np.ones(count) if self.weight is None else self.weight
        columns = np.hstack([self.X, np.full((count, 1), float(self.fit_intercept))])
        operator = np.eye(width) if self.operator is None else self.operator
        pull = operator.T @ operator / self.C
        one_hot = np.eye(self.num_classes)[self.y]

        def both(flat):
            theta = flat.reshape(self.num_classes, width + 1)
            residual = weight[:, None] * (softmax(columns @ theta.T, axis=1) - one_hot)
            gradient = residual.T @ columns
            gradient[:, :-1] += theta[:, :-1] @ pull
            return self.objective(
                theta[:, :-1], theta[:, -1] * self.fit_intercept
            ), gradient.ravel()

        start = np.zeros(self.num_classes * (width + 1))
        return float(minimize(both, start, jac=True, method="BFGS", options={"gtol": 1e-6}).fun)

    def problem(self, *, block_rows=None, dtype=torch.float64) -> SoftmaxProblem:
        """What the solvers are handed."""
        features = torch.from_numpy(self.X).to(dtype)
        weight = None if self.weight is None else torch.from_numpy(self.weight).to(dtype)
        rows = rows_in_memory(features, torch.from_numpy(self.y), weight, block_rows=block_rows)
        penalty = Tikhonov(1 / self.C)
        if self.operator is not None:
            penalty = Smoothing(1 / self.C, torch.from_numpy(self.operator).to(dtype))
        return SoftmaxProblem(rows, self.num_classes, penalty, fit_intercept=self.fit_intercept)


def _noisy(
    count=60, width=4, num_classes=3, *, seed=0, weighted=False, shift=0.0, **options
) -> Case:
    """Features about class means that overlap; every class occurs."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(num_classes), rng.integers(num_classes, size=count)])[:count]
    means = rng.normal(size=(num_classes, width))
    X = means[y] + 1.5 * rng.normal(size=(count, width)) + shift
    weight = rng.exponential(size=count) if weighted else None
    return Case(X, y, weight, **options)


@pytest.fixture(scope="session")
def make_case():
    """The class of cases."""
    return Case


@pytest.fixture(scope="session")
def noisy():
    """Random problems whose classes overlap."""
    return _noisy


def _random_theta(problem, seed=0, scale=1.0):
    source = torch.Generator().manual_seed(seed)
    start = problem.start()
    return scale * torch.randn(start.shape, dtype=start.dtype, generator=source)


@pytest.fixture(scope="session")
def random_theta():
    """Normal parameters of a problem."""
    return _random_theta


def _name(variant):
    words = ("weighted", variant["weighted"]), ("intercept", variant["fit_intercept"])
    kept = [word for word, there in words if there]
    return "-".join([*kept, "plain" if variant["operator"] is None else "laplacian"])


@pytest.fixture(
    scope="session",
    ids=_name,
    params=[
        {"weighted": weighted, "fit_intercept": intercept, "C": 0.7, "operator": operator}
        for weighted in (False, True)
        for intercept in (False, True)
        for operator in (None, discrete_laplacian((2, 2), identity=0.3).numpy())
    ],
)
def variant(request):
    """Options of a random problem: with and without weights, intercept, and a Laplacian."""
    return request.param
