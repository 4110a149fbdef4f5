"""The solvers agree with scikit-learn on the optimum: data of all shapes."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris

from lastlayer.linear_model import ADMMSoftmax, LBFGSSoftmax, NewtonKrylovSoftmax


def digits(case):
    X, y = load_digits(return_X_y=True)
    return case(X[:200] / 16, y[:200])


def digits_of_weak_penalty(case):
    return digits(case)._replace(C=100.0)


def iris_as_it_is(case):
    return case(*load_iris(return_X_y=True))


def fewer_rows_than_features(case):
    rng = np.random.default_rng(0)
    return case(rng.normal(size=(20, 50)), np.arange(20) % 4)


def many_more_rows_than_features(case):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 2))
    return case(X, (X[:, 0] + rng.normal(size=1500) > 0) + (X[:, 1] > 1).astype(int))


def spoiled_columns(noisy):
    """Twice the same, a constant, zeros, and a large constant."""
    given = noisy()
    extra = [given.X[:, :1], np.ones((60, 1)), np.zeros((60, 1)), np.full((60, 1), 1e3)]
    return given._replace(X=np.hstack([given.X, *extra]))


def spoiled_columns_without_intercept(noisy):
    return spoiled_columns(noisy)._replace(fit_intercept=False)


def only_zeros(noisy):
    return noisy()._replace(X=np.zeros((60, 3)))


def features_far_from_zero(noisy):
    return noisy(shift=1e3)


def weights(noisy):
    return noisy(weighted=True)


def zero_and_huge_weights(noisy):
    given = noisy(weighted=True)
    given.weight[::3] = 0
    given.weight[1::7] = 1e6
    return given


def two_classes(noisy):
    return noisy(num_classes=2)


def two_classes_weighted_without_intercept(noisy):
    return noisy(num_classes=2, weighted=True, fit_intercept=False)


def no_penalty(noisy):
    return noisy(C=np.inf, count=100)


def strong_penalty(noisy):
    return noisy(C=1e-6)


def one_feature(noisy):
    return noisy(width=1)


def many_classes(noisy):
    return noisy(count=120, num_classes=30)


#: Cases of thousands of iterations.
SLOW_ALONE = (
    digits_of_weak_penalty,
    zero_and_huge_weights,
    many_more_rows_than_features,
    iris_as_it_is,
)
CASES = {
    "case": [
        digits,
        digits_of_weak_penalty,
        iris_as_it_is,
        fewer_rows_than_features,
        many_more_rows_than_features,
    ],
    "noisy": [
        spoiled_columns,
        spoiled_columns_without_intercept,
        only_zeros,
        features_far_from_zero,
        weights,
        zero_and_huge_weights,
        two_classes,
        two_classes_weighted_without_intercept,
        no_penalty,
        strong_penalty,
        one_feature,
        many_classes,
    ],
}
ALL = [(kind, build) for kind, builders in CASES.items() for build in builders]


NAMES = [build.__name__ for _, build in ALL]
QUICK_ALONE = [pair for pair in ALL if pair[1] not in SLOW_ALONE]


@pytest.fixture(scope="module")
def solve(make_case, noisy):
    """Return a case and scikit-learn's minimum, found once."""
    makers = {"case": make_case, "noisy": noisy}

    @functools.cache
    def found(kind, build):
        given = build(makers[kind])
        return given, given.scikit_learn_minimum()

    return found


@pytest.mark.parametrize("solver", [LBFGSSoftmax, NewtonKrylovSoftmax, ADMMSoftmax])
@pytest.mark.parametrize("pair", ALL, ids=NAMES)
def test_the_optimum_is_scikit_learns(solve, pair, solver):
    given, least = solve(*pair)
    model = given.fit(solver, tol=1e-7)
    assert model.converged_
    assert given.of(model) == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("pair", QUICK_ALONE, ids=[build.__name__ for _, build in QUICK_ALONE])
def test_admm_alone_finds_the_optimum_too(solve, pair):
    given, least = solve(*pair)
    model = given.fit(ADMMSoftmax, tol=1e-7, polish=False)
    assert model.converged_
    assert given.of(model) == pytest.approx(least, rel=1e-6)
