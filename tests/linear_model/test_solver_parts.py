"""The parts of the solvers: least squares, preconditioners, ADMM's steps, the line search."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lastlayer.functional.softmax_prox import softmax_prox
from lastlayer.linear_model import ADMMSoftmax
from lastlayer.linear_model.problem import centered
from lastlayer.linear_model.solvers import least_squares
from lastlayer.linear_model.solvers.admm import solve_admm
from lastlayer.linear_model.solvers.lbfgs import line_search, objective_rounding
from lastlayer.linear_model.solvers.least_squares import (
    FactorizedLeastSquares,
    IterativeLeastSquares,
)
from lastlayer.linear_model.solvers.preconditioner import Preconditioner, cholesky, choose_kind
from lastlayer.linear_model.solvers.progress import Progress


@pytest.mark.parametrize("kind", [FactorizedLeastSquares, IterativeLeastSquares])
def test_least_squares_are_those_of_numpy(noisy, variant, kind):
    """On columns with a root of the penalty below and, for the intercept, ones beside."""
    given = noisy(shift=1.0, **variant)
    problem, rho = given.problem(block_rows=11), 0.4
    weight = np.ones(60) if given.weight is None else given.weight
    wanted = np.random.default_rng(3).normal(size=(60, 3))
    ones = np.full((60, 1), float(given.fit_intercept))
    root = (np.eye(4) if given.operator is None else given.operator) / np.sqrt(given.C)
    top = np.sqrt(rho * weight)[:, None] * np.hstack([given.X, ones])
    matrix = np.vstack([top, np.hstack([root, np.zeros((4, 1))])])
    right = np.vstack([np.sqrt(rho * weight)[:, None] * wanted, np.zeros((4, 3))])
    expected = np.linalg.lstsq(matrix, right, rcond=None)[0]
    target = torch.from_numpy(weight[:, None] * wanted)
    features = torch.from_numpy(given.X).T @ target
    found = kind(problem, rho).solve(features, target.sum(0), problem.start())
    weights, intercept = problem.split(found)
    np.testing.assert_allclose(weights.numpy(), expected[:4], atol=1e-6)
    np.testing.assert_allclose(intercept.numpy(), expected[4], atol=1e-6)


def test_many_features_are_solved_by_iterations_to_the_same_optimum(noisy, monkeypatch):
    given = noisy(weighted=True)
    monkeypatch.setattr(least_squares, "FACTORIZED", 3)
    assert isinstance(
        least_squares.build_least_squares(given.problem(), 1.0), IterativeLeastSquares
    )
    model = given.fit(ADMMSoftmax, tol=1e-6, polish=False)
    assert given.of(model) == pytest.approx(given.scikit_learn_minimum(), rel=1e-6)


@pytest.mark.parametrize("asked", [0.5, "auto"])
def test_the_first_iterations_of_admm_are_those_of_its_definition(noisy, variant, asked):
    """Every step in plain NumPy, with multipliers and over-relaxation; the prox to the end.

    ``"auto"`` is twice the loss's mean curvature, renewed where that is another by half and more.
    """
    given = noisy(**variant)
    given = given._replace(X=given.X + 5.0 * np.eye(3, 4)[given.y])  # curvature falls on the way
    problem = given.problem(block_rows=23)
    relax = 1.6
    weight = np.ones(60) if given.weight is None else given.weight
    columns = np.hstack([given.X, np.full((60, 1), float(given.fit_intercept))])
    operator = np.eye(4) if given.operator is None else given.operator
    pull = np.zeros((5, 5))
    pull[:4, :4] = operator.T @ operator / given.C
    pull[4, 4] = 0.0 if given.fit_intercept else 1.0
    theta = np.zeros((5, 3))
    if given.fit_intercept:
        share = np.log(np.bincount(given.y, weights=weight) / weight.sum())
        theta[4] = share - share.mean()
    one_hot = np.eye(3)[given.y]

    def softmax_of(z):
        return np.exp(z) / np.exp(z).sum(1, keepdims=True)

    def twice_curvature(p):
        seen = (1 - (p**2).sum(1), ((p - one_hot) ** 2).sum(1))
        return 2 * max(weight @ trace for trace in seen) / weight.sum() / 2  # of K - 1 = 2

    z = columns @ theta
    p = softmax_of(z)
    rho = twice_curvature(p) if asked == "auto" else asked
    renewed = 0
    u = (one_hot - p) / rho
    values = [given.objective(theta[:4].T, theta[4])]
    for _ in range(6):
        right = rho * columns.T @ (weight[:, None] * (z + u))
        theta = np.linalg.solve(rho * columns.T @ (weight[:, None] * columns) + pull, right)
        values.append(given.objective(theta[:4].T, theta[4]))
        h = relax * columns @ theta + (1 - relax) * z
        v = torch.from_numpy(h - u)
        z = softmax_prox(v, torch.from_numpy(given.y), rho).numpy()
        u = u + z - h
        wanted = twice_curvature(softmax_of(columns @ theta))
        if asked == "auto" and not rho / 1.5 <= wanted <= rho * 1.5:
            u, rho, renewed = u * rho / wanted, wanted, renewed + 1
    assert (renewed > 0) == (asked == "auto")
    progress = Progress(problem, 0.0)
    options = {"rho": asked, "over_relaxation": relax, "prox_steps": 30, "polish": False}
    solve_admm(problem, problem.start(), progress, max_iter=6, **options)
    np.testing.assert_allclose(progress.columns()["objective"], values, rtol=1e-10)


def test_the_preconditioner_inverts_the_mean_hessian(noisy, variant, random_theta):
    given = noisy(**variant)
    problem = given.problem()
    scale = Preconditioner(problem, "gram", problem.gram)
    assert scale.update(0.3)
    assert not scale.update(0.4)  # within the drift
    assert scale.update(0.5)
    gradient = centered(random_theta(problem))
    matrix = problem.penalty.add_to(0.5 * problem.gram())
    found = scale(gradient)
    torch.testing.assert_close(matrix @ found[:4], gradient[:4], rtol=1e-10, atol=1e-10)
    if given.fit_intercept:
        torch.testing.assert_close(found[4] * 0.5 * problem.total_weight, gradient[4])
    diagonal = Preconditioner(problem, "diagonal", problem.gram)
    diagonal.update(0.5)
    torch.testing.assert_close(
        diagonal(gradient)[:4], gradient[:4] / matrix.diagonal().unsqueeze(1)
    )
    plain = Preconditioner(problem, "none", problem.gram)
    plain.update(0.5)
    torch.testing.assert_close(plain(gradient), gradient)
    for one in (scale, diagonal, plain):  # what all classes share is not a direction
        torch.testing.assert_close(one(gradient + 2.0), one(gradient), rtol=1e-10, atol=1e-12)


def test_the_gram_matrix_is_taken_where_it_is_affordable(noisy):
    assert choose_kind(noisy(width=4).problem()) == "gram"
    assert choose_kind(noisy(width=145).problem()) == "diagonal"  # above 2 * 24 * 3
    assert choose_kind(noisy(width=145).problem(), "gram") == "gram"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_matrices_are_lifted_and_overflown_ones_refused(dtype):
    ones = torch.ones(3, 3, dtype=dtype)
    factor = cholesky(ones - 1e-8 * torch.eye(3, dtype=dtype))
    torch.testing.assert_close(factor @ factor.T, ones, atol=1e-4, rtol=0)
    assert bool(torch.isfinite(cholesky(0 * ones)).all())
    for value in (torch.nan, torch.inf):
        with pytest.raises(FloatingPointError, match="Gram matrix is not finite"):
            cholesky(value * ones)


@pytest.mark.parametrize("scale", [1e-30, 1e-20])
def test_a_step_too_small_to_lower_anything_is_not_taken(noisy, random_theta, scale):
    """Taking such steps, a solver at the rounding floor would go on until max_iter."""
    problem = noisy().problem()
    theta = random_theta(problem)
    here = problem.evaluate(theta)
    direction = -scale * here.gradient
    slope = float((here.gradient * direction).sum())
    noise = objective_rounding(problem, here)
    assert line_search(problem.evaluate, theta, here, direction, slope, noise=noise) is None


def test_a_step_lowers_the_objective_by_a_share_of_the_slope(noisy, random_theta):
    problem = noisy().problem()
    theta = random_theta(problem)
    here = problem.evaluate(theta)
    for scale in (1e-3, 1.0, 1e3):
        direction = -scale * here.gradient
        slope = float((here.gradient * direction).sum())
        step, there = line_search(problem.evaluate, theta, here, direction, slope, noise=0.0)
        length = float(step.norm() / direction.norm())
        assert there.value <= here.value + 1e-4 * length * slope
        assert there.value == problem.evaluate(theta + step).value
