"""The dual bound: never above the minimum, tight at the optimum, corrected for the intercept."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lastlayer.linear_model import NewtonKrylovSoftmax, discrete_laplacian

MINIMA: dict[tuple[str, int], float] = {}


def reference(case):
    """SciPy or scikit-learn, not the package, says where the minimum is."""
    return case.scikit_learn_minimum() if case.operator is None else case.scipy_minimum()


def without_correction(problem, theta):
    """A broken twin of the bound: P as it is, whatever its column sums are."""
    found = problem.evaluate(theta)
    width = problem.rows.num_features
    loss_gradient = found.gradient[:width] - problem.penalty.times(theta[:width])
    weights, intercept = problem.split(theta)
    entropy = 0.0
    for block in problem.rows:
        log_p = torch.log_softmax(block.matrix.times(weights) + intercept, 1)
        entropy -= float((log_p.exp() * log_p).sum())
    return entropy - problem.penalty.conjugate(loss_gradient)


@given(
    theta=arrays.arrays(np.float64, (5, 3), elements=st.floats(-4, 4)),
    scale=st.sampled_from([1e-3, 0.1, 1.0, 100.0]),
    seed=st.integers(0, 2),
)
@settings(max_examples=15)
def test_the_bound_is_below_the_minimum_everywhere(noisy, variant, theta, scale, seed):
    case = noisy(seed=seed, **variant)
    key = (str(variant), seed)
    if key not in MINIMA:
        MINIMA[key] = reference(case)
    problem = case.problem()
    theta = scale * torch.from_numpy(theta[: len(problem.start())])
    found = problem.evaluate(theta)
    assert found.bound <= MINIMA[key] * (1 + 1e-9)
    assert found.value >= MINIMA[key] * (1 - 1e-9)


def test_the_bound_is_the_minimum_at_the_optimum(noisy, variant):
    case = noisy(**variant)
    model = case.fit(NewtonKrylovSoftmax, tol=1e-13)
    problem = case.problem()
    weights = torch.from_numpy(model.coef_.T.copy())
    theta = problem.join(weights, torch.from_numpy(model.intercept_))
    found = problem.evaluate(theta)
    assert found.bound == pytest.approx(reference(case), rel=1e-8)
    assert found.bound == pytest.approx(found.value, rel=1e-11)


def test_a_bound_without_its_correction_for_the_intercept_exceeds_the_minimum(noisy, random_theta):
    """A broken twin, where most rows are of one class, so that the tests are seen to notice."""
    case = noisy()
    case = case._replace(X=0.1 * case.X, y=np.where(np.arange(60) < 50, 0, case.y))
    problem, least = case.problem(), case.scikit_learn_minimum()
    for seed in range(20):
        theta = random_theta(problem, seed=seed, scale=0.1)  # not far from uniform probabilities
        assert without_correction(problem, theta) > 1.3 * least
        assert problem.evaluate(theta).bound <= least


def test_the_broken_twin_is_right_without_an_intercept(noisy, random_theta):
    problem = noisy(fit_intercept=False).problem()
    for seed in range(3):
        theta = random_theta(problem, seed=seed)
        right = problem.evaluate(theta).bound
        assert without_correction(problem, theta) == pytest.approx(right, rel=1e-12)


def test_a_wrong_intercept_alone_costs_the_bound_little(noisy):
    """Features say nothing: P may be any distribution, and mixing finds the classes' shares."""
    case = noisy()
    problem = case._replace(X=0 * case.X).problem()
    share = np.bincount(case.y) / 60
    least = -60 * (share * np.log(share)).sum()
    theta = problem.start()
    theta[-1] = 0.0
    # Uniform probabilities are themselves mixed to the shares at a loss of entropy only.
    assert 0.8 * least < problem.evaluate(theta).bound <= least


def test_a_class_without_weight_has_no_bound_with_an_intercept_and_one_without(noisy):
    case = noisy(weighted=True)
    case.weight[case.y == 2] = 0
    problem = case.problem()
    assert not problem.certifies
    assert problem.evaluate(problem.start()).bound == -math.inf
    free = case._replace(fit_intercept=False).problem()
    assert free.certifies
    assert math.isfinite(free.evaluate(free.start()).bound)


@pytest.mark.parametrize("operator", [discrete_laplacian((2, 2)), torch.ones(1, 4).double()])
def test_a_singular_penalty_has_no_bound(noisy, operator):
    problem = noisy(operator=operator.numpy()).problem()
    assert not problem.certifies
    assert problem.evaluate(problem.start()).bound == -math.inf


def test_no_penalty_has_no_bound(noisy):
    problem = noisy(C=math.inf).problem()
    assert not problem.certifies
    assert problem.evaluate(problem.start()).bound == -math.inf
