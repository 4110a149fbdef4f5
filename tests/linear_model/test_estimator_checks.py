"""Scikit-learn's own checks of an estimator."""

from __future__ import annotations

import os

import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from lastlayer.linear_model import (
    ADMMSoftmax,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
    SGDSoftmax,
    SoftmaxRegression,
)

ESTIMATORS = [
    LBFGSSoftmax(max_iter=100),
    NewtonKrylovSoftmax(),
    ADMMSoftmax(max_iter=100),
    SGDSoftmax(tol=0.2, max_iter=20, random_state=0),
    SoftmaxRegression(),
]


@parametrize_with_checks(ESTIMATORS)
# Checks of few iterations warn that they are few, and the one of arrays beyond NumPy says that it
# is left out.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_accepts_the_estimator(estimator, check):
    if "array_api" in str(check) and "SCIPY_ARRAY_API" not in os.environ:
        pytest.skip("needs SCIPY_ARRAY_API")
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def test_options_survive_cloning(estimator):
    changed = clone(estimator).set_params(C=3.0, tol=0.5, fit_intercept=False)
    assert clone(changed).get_params() == changed.get_params()
    assert changed.get_params()["C"] == 3.0


def test_convergence_warnings_are_scikit_learns(noisy):
    with pytest.warns(ConvergenceWarning):
        noisy().fit(LBFGSSoftmax, max_iter=1, tol=0)
