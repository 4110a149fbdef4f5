"""What softmax does not see, a constant added to all classes, stays zero in every solver."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression

from lastlayer.linear_model import (
    ADMMSoftmax,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
    SGDSoftmax,
    SoftmaxRegression,
    discrete_laplacian,
)

SOLVERS = [LBFGSSoftmax, NewtonKrylovSoftmax, ADMMSoftmax, SoftmaxRegression]
solvers = pytest.mark.parametrize("solver", SOLVERS)


def iris(noisy):
    return noisy()._replace(**dict(zip("Xy", load_iris(return_X_y=True), strict=True)))


def without_signal(noisy):
    rng = np.random.default_rng(0)
    return noisy(C=np.inf)._replace(X=rng.normal(size=(200, 4)), y=rng.integers(3, size=200))


def without_signal_far_from_zero(noisy):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 6)) + 20
    return noisy(C=np.inf)._replace(X=X, y=rng.integers(4, size=200))


def digits(noisy):
    X, y = load_digits(return_X_y=True)
    return noisy()._replace(X=X[:500] / 16, y=y[:500])


# scikit-learn 1.8 says so of its own C = inf.
@pytest.mark.filterwarnings("ignore:Setting penalty=None will ignore the C:UserWarning")
@solvers
@pytest.mark.parametrize("build", [iris, without_signal, without_signal_far_from_zero, digits])
@pytest.mark.parametrize(("dtype", "tol", "atol"), [("f4", 1e-6, 2e-3), ("f8", 1e-12, 1e-6)])
def test_weights_and_intercepts_are_scikit_learns(noisy, solver, build, dtype, tol, atol):
    given = build(noisy)
    theirs = LogisticRegression(C=given.C, tol=1e-10, max_iter=1000, solver="newton-cholesky")
    theirs.fit(given.X, given.y)
    model = solver(C=given.C, tol=tol).fit(given.X.astype(dtype), given.y)
    np.testing.assert_allclose(model.coef_, theirs.coef_, atol=atol)
    wanted = theirs.intercept_ - theirs.intercept_.mean()
    np.testing.assert_allclose(model.intercept_, wanted, atol=30 * atol)


@pytest.mark.parametrize("solver", [*SOLVERS, SGDSoftmax])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_weights_and_intercepts_sum_to_zero_over_the_classes(noisy, solver, dtype, C):
    """Also where the start is far along that direction, and under a penalty that is singular."""
    given = noisy(count=100, shift=10.0)
    for operator in (None, discrete_laplacian((2, 2)).numpy()):
        model = solver(C=C, penalty_operator=operator, warm_start=True, max_iter=20)
        model.coef_, model.intercept_ = np.full((3, 4), 5.0), np.full(3, -700.0)
        model.fit(given.X.astype(dtype), given.y)
        small = 8 * np.finfo(dtype).eps
        for part in (model.coef_, model.intercept_):
            assert np.abs(part.sum(0)).max() <= small * np.abs(part).max()


def test_a_stream_has_none_of_it_either(noisy):
    given = noisy(num_classes=3)
    model = SGDSoftmax(random_state=0)
    for _ in range(20):
        model.partial_fit(given.X.astype("f"), given.y, [0, 1, 2])
    assert np.abs(model.coef_.sum(0)).max() < 1e-6
    assert abs(model.intercept_.sum()) < 1e-6
