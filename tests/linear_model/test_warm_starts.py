"""A warm start helps or does no harm: from saturated weights, at the optimum, without a bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris, load_wine

from lastlayer.linear_model import (
    ADMMSoftmax,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
    SGDSoftmax,
)

SOLVERS = [LBFGSSoftmax, NewtonKrylovSoftmax, ADMMSoftmax]
solvers = pytest.mark.parametrize("solver", SOLVERS)


def iris():
    return load_iris(return_X_y=True)


def wine():
    return load_wine(return_X_y=True)


def digits():
    X, y = load_digits(return_X_y=True)
    return X[:200] / 16, y[:200]


def outlier(X):
    """One row at a scale of its own."""
    return X * np.where(np.arange(len(X)) == 3, 1e4, 1.0)[:, None]


#: The features of the first fit and of the second.
CHANGES = {
    "times 100": lambda X: (X, 100 * X),
    "by 100": lambda X: (100 * X, X),
    "times 1e4": lambda X: (X, 1e4 * X),
    "by 1e4": lambda X: (1e4 * X, X),
    "an outlier comes": lambda X: (X, outlier(X)),
    "an outlier goes": lambda X: (outlier(X), X),
}


@pytest.fixture(scope="module")
def minimum():
    """Return scikit-learn's minimum of a case, found once."""
    found = {}

    def find(case):
        key = case.X.tobytes(), case.C
        if key not in found:
            found[key] = case.scikit_learn_minimum()
        return found[key]

    return find


@solvers
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("data", [iris, wine, digits])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # of a tiny minimum
@pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning")  # of scikit-learn's Hessian
def test_features_at_another_scale_are_fitted_as_from_zero(
    make_case, minimum, data, change, solver
):
    """No worse than scikit-learn's minimum; in float32 but for the rounding of every row's loss."""
    X, y = data()
    first, second = change(X)
    given = make_case(second, y)
    least = minimum(given)
    model = solver(warm_start=True).fit(first, y).fit(second, y)
    assert model.converged_
    assert given.of(model) <= 1.002 * least
    single = solver(warm_start=True).fit(first.astype("f"), y).fit(second.astype("f"), y)
    assert given.of(single) <= 1.2 * least + 1e-4 * len(y)


@solvers
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_weights_that_are_better_than_zero_but_wrong_for_certain_recover(
    make_case, solver, dtype, factor
):
    """Some rows are on the far side of every boundary, where the loss has no curvature left."""
    X, y = digits()
    y = np.where(np.arange(200) % 20 == 0, (y + 1) % 10, y)
    given = make_case(X, y)
    theta = 30 * given.fit(LBFGSSoftmax).coef_
    model = solver(warm_start=True, C=factor)
    model.coef_, model.intercept_ = theta.astype(dtype), np.zeros(10, dtype)
    model.fit(X.astype(dtype), y)
    assert model.converged_
    given = given._replace(C=factor)
    assert given.of(model) == pytest.approx(given.scikit_learn_minimum(), rel=2e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_stochastic_descent_from_saturated_weights_is_no_worse_than_from_zero(make_case, dtype):
    X, y = iris()
    given = make_case(100 * X, y)
    options = {"max_iter": 20, "random_state": 0}
    warm = SGDSoftmax(warm_start=True, **options).fit(X.astype(dtype), y)
    warm.fit(given.X.astype(dtype), y)
    cold = SGDSoftmax(**options).fit(given.X.astype(dtype), y)
    assert given.of(warm) == pytest.approx(given.of(cold), rel=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@solvers
def test_weights_that_are_not_finite_are_no_start(noisy, solver, value):
    given = noisy()
    model = solver(warm_start=True)
    model.coef_, model.intercept_ = np.full((3, 4), value), np.zeros(3)
    model.fit(given.X, given.y)
    assert given.of(model) == pytest.approx(given.scikit_learn_minimum(), rel=1e-3)


@pytest.mark.parametrize("start", ["better", "worse"])
def test_a_start_is_taken_where_its_objective_is_below_that_of_zero_weights(noisy, start):
    """Counted by the first record; the objective in NumPy."""
    given = noisy(weighted=True)
    zero = np.zeros((3, 4)), np.log(np.bincount(given.y, weights=given.weight))
    model = given.fit(LBFGSSoftmax, tol=0.1).set_params(warm_start=True, tol=1e-3)
    model.coef_ = model.coef_ * (1 if start == "better" else -30)
    own = given.of(model)
    wanted = (model.coef_, model.intercept_) if own < given.objective(*zero) else zero
    assert (wanted is zero) == (start == "worse")
    model.fit(given.X, given.y, given.weight)
    assert model.history_["objective"][0] == pytest.approx(given.objective(*wanted), rel=1e-12)


def test_value_and_gradient_at_the_start_need_no_pass(noisy, variant):
    problem = noisy(shift=2.0, **variant).problem()
    found = problem.evaluate(problem.start())
    assert problem.start_value() == pytest.approx(found.value, rel=1e-12)
    torch.testing.assert_close(problem.start_gradient(), found.gradient, rtol=1e-9, atol=1e-9)


# -- without a certificate ------------------------------------------------------------------------


@solvers
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("C", [1.0, np.inf])
def test_a_refit_at_the_optimum_stops_at_once(noisy, solver, dtype, C):
    """And in silence: warnings are errors here."""
    given = noisy(C=C, count=100)
    tol = 1e-4 if dtype == np.float32 else 1e-8
    model = solver(C=C, tol=tol, warm_start=True).fit(given.X.astype(dtype), given.y)
    for _ in range(3):
        model.fit(given.X.astype(dtype), given.y)
        assert model.converged_
        assert model.n_iter_ <= 2


@solvers
def test_tol_is_measured_from_zero_weights_wherever_a_fit_starts(noisy, solver):
    """The gradient there in NumPy: the classes' shares as probabilities."""
    given = noisy(C=np.inf, count=100)
    share = np.bincount(given.y) / 100
    residual = share - np.eye(3)[given.y]
    first = np.abs((given.X - given.X.mean(0)).T @ residual).max()
    model = solver(C=np.inf, tol=1e-3).fit(given.X, given.y)
    model.set_params(warm_start=True, tol=1e-6).fit(given.X, given.y)
    gradient = [value for value in model.history_["gradient"] if not np.isnan(value)]
    assert gradient[-1] <= 1e-6 * first < min(gradient[:-1])


@solvers
def test_tol_below_rounding_errors_ends_there_in_silence(noisy, solver):
    given = noisy(C=np.inf, count=100)
    model = given.fit(solver, tol=1e-30)
    assert model.converged_
    assert given.of(model) == pytest.approx(given.scikit_learn_minimum(), rel=1e-12)
