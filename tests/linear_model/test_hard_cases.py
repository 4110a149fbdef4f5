"""The solvers at the edge: separated classes, penalties of operators, odd scales, every option."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from lastlayer.linear_model import (
    ADMMSoftmax,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
    discrete_laplacian,
)

solvers = pytest.mark.parametrize("solver", [LBFGSSoftmax, NewtonKrylovSoftmax, ADMMSoftmax])


@solvers
@pytest.mark.parametrize("intercept", [True, False])
def test_row_norms_over_ten_decades(noisy, solver, intercept):
    given = noisy(fit_intercept=intercept)
    given.X[:] *= 10 ** np.linspace(-5, 5, 60)[:, None]
    model = given.fit(solver, tol=1e-7)
    assert given.of(model) == pytest.approx(given.scikit_learn_minimum(), rel=1e-6)


@solvers
def test_a_class_without_weight_fades(noisy, solver):
    given = noisy(weighted=True)
    given.weight[given.y == 1] = 0
    model = given.fit(solver, tol=1e-6)
    assert model.classes_.tolist() == [0, 1, 2]
    assert np.isfinite(model.coef_).all()
    assert model.predict_proba(given.X)[given.weight > 0, 1].max() < 1e-3
    kept = given._replace(y=given.y // 2)  # the class is gone, its rows weigh nothing
    pair = np.array([0, 2])
    least = kept.scikit_learn_minimum()
    assert given.of(model) == pytest.approx(least, rel=1e-3)
    assert kept.objective(model.coef_[pair], model.intercept_[pair]) <= given.of(model)


@solvers
@pytest.mark.parametrize("C", [1e8, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_separated_classes_warn_where_there_is_no_optimum_and_stay_finite(
    make_case, solver, C, dtype
):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = (rng.normal(size=(60, 3)) + 8 * np.eye(3)[y]).astype(dtype)
    given = make_case(X, y, C=C)
    if np.isinf(C):
        with pytest.warns(ConvergenceWarning, match="separates the classes: there is no optimum"):
            model = given.fit(solver)
        assert not model.converged_
    elif dtype == np.float32:
        with pytest.warns(ConvergenceWarning, match=r"use float64; .* can be separated .* lower C"):
            model = given.fit(solver)
    else:
        model = given.fit(solver)  # there is an optimum, and it is found
        assert 0.99 < given.of(model) / given.scikit_learn_minimum() < 1 + 1e-4
    assert np.isfinite(model.coef_).all()
    assert model.score(X, y) == 1
    assert given.of(model) < 0.1


@solvers
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_smoothing_penalties_find_the_optimum_of_scipy(noisy, solver, intercept, weighted):
    operator = discrete_laplacian((2, 3), identity=0.2).numpy()
    given = noisy(width=6, weighted=weighted, fit_intercept=intercept, operator=operator, C=0.5)
    model = given.fit(solver, tol=1e-7)
    assert model.gap_ <= 1e-7
    assert given.of(model) == pytest.approx(given.scipy_minimum(), rel=1e-6)


@solvers
def test_a_singular_laplacian_finds_the_optimum_of_scipy(noisy, solver):
    given = noisy(width=4, operator=discrete_laplacian((2, 2)).numpy(), C=0.01, count=100)
    model = given.fit(solver, tol=1e-5)
    assert model.gap_ == np.inf
    assert given.of(model) == pytest.approx(given.scipy_minimum(), rel=1e-6)
    # Constant weights are free of charge.
    assert np.ptp(model.coef_, axis=1).max() < 0.3 * np.abs(model.coef_.mean(1)).max()


@solvers
def test_an_operator_of_one_row_finds_the_optimum_of_scipy(noisy, solver):
    given = noisy(operator=np.array([[1.0, 2.0, 0.0, -1.0]]), count=100)
    assert given.of(given.fit(solver, tol=1e-5)) == pytest.approx(given.scipy_minimum(), rel=1e-6)


@pytest.mark.parametrize("preconditioner", ["gram", "diagonal", "none", "auto"])
@pytest.mark.parametrize("estimator", [LBFGSSoftmax, NewtonKrylovSoftmax])
def test_every_preconditioner_finds_the_optimum(noisy, estimator, preconditioner):
    given = noisy(weighted=True)
    model = given.fit(estimator, tol=1e-7, preconditioner=preconditioner)
    assert given.of(model) == pytest.approx(given.scikit_learn_minimum(), rel=1e-6)


@pytest.mark.parametrize("rho", [0.03, 0.5])
@pytest.mark.parametrize("over_relaxation", [1.0, 1.9])
def test_admm_finds_the_optimum_for_any_rho_and_relaxation(noisy, rho, over_relaxation):
    given = noisy(weighted=True)
    options = {"rho": rho, "over_relaxation": over_relaxation, "polish": False}
    model = given.fit(ADMMSoftmax, tol=1e-7, max_iter=5000, **options)
    assert given.of(model) == pytest.approx(given.scikit_learn_minimum(), rel=1e-6)


@pytest.mark.parametrize("prox_steps", [1, 5])
def test_admm_finds_the_optimum_for_any_number_of_prox_steps(noisy, prox_steps):
    given = noisy()
    model = given.fit(ADMMSoftmax, tol=1e-7, prox_steps=prox_steps, polish=False)
    assert given.of(model) == pytest.approx(given.scikit_learn_minimum(), rel=1e-6)
