"""The objective: autograd, NumPy, blocks of any size, sparse and single precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import sparse

from lastlayer.linear_model import float32_problem
from lastlayer.linear_model import problem as linear_problem
from lastlayer.linear_model.class_weights import ClassWeightedRows
from lastlayer.linear_model.prepared_data import SharedRows
from lastlayer.linear_model.problem import SoftmaxProblem
from lastlayer.linear_model.rows import DistributedRows, rows_from_files
from lastlayer.linear_model.rows.dask import ClusterRows
from lastlayer.linear_model.rows.matrices import SparseMatrix
from lastlayer.linear_model.rows.memory import LocalRows
from lastlayer.linear_model.rows.protocol import Block


def direct(case, problem):
    """F of theta by autograd's operations, from the definition."""
    X, y = torch.from_numpy(case.X), torch.from_numpy(case.y)
    weight = torch.ones(len(y)) if case.weight is None else torch.from_numpy(case.weight)
    operator = torch.eye(X.shape[1]) if case.operator is None else torch.from_numpy(case.operator)

    def value(theta):
        weights, intercept = problem.split(theta)
        losses = torch.nn.functional.cross_entropy(X @ weights + intercept, y, reduction="none")
        return weight.double() @ losses + (operator.double() @ weights).square().sum() / 2 / case.C

    return value


def test_value_and_gradient_are_those_of_autograd(noisy, random_theta, variant):
    case = noisy(shift=2.0, **variant)
    problem = case.problem()
    theta = random_theta(problem).requires_grad_()
    value = direct(case, problem)(theta)
    (gradient,) = torch.autograd.grad(value, theta)
    value = value.detach()
    found = problem.evaluate(theta.detach())
    assert found.value == pytest.approx(float(value), rel=1e-13)
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-11, atol=1e-11)
    weights, intercept = problem.split(theta.detach())
    by_numpy = case.objective(weights.T.numpy(), intercept.numpy())
    assert found.value == pytest.approx(by_numpy, rel=1e-13)


def test_hessian_products_are_those_of_autograd(noisy, random_theta, variant):
    case = noisy(shift=2.0, **variant)
    problem = case.problem(block_rows=17)
    theta, direction = random_theta(problem), random_theta(problem, seed=1)
    _, expected = torch.autograd.functional.hvp(direct(case, problem), theta, direction)
    problem.evaluate(theta, keep=True)
    torch.testing.assert_close(
        problem.hessian_times(direction), expected, rtol=1e-11, atol=1e-10
    )  # fmt: skip


@pytest.mark.parametrize("scale", [0.3, 30.0])
def test_the_curvature_is_the_larger_trace_of_hessians_and_squared_gradients(
    noisy, random_theta, variant, scale
):
    """By autograd, in the rows' logits; far from zero most rows are wrong for certain."""
    case = noisy(**variant)
    problem = case.problem()
    theta = random_theta(problem, scale=scale)
    weights, intercept = problem.split(theta)
    logits = torch.from_numpy(case.X) @ weights + intercept
    hessian, fisher = [], []
    for z, y in zip(logits, torch.from_numpy(case.y), strict=True):
        own = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(own, y), own)
        fisher.append(float(gradient.square().sum()))
        full = torch.autograd.functional.hessian(lambda z: z.logsumexp(0), z)
        hessian.append(float(full.trace()))
    means = [np.average(traces, weights=case.weight) for traces in (hessian, fisher)]
    found = problem.evaluate(theta).curvature
    assert found == pytest.approx(max(means) / (case.num_classes - 1), rel=1e-10)
    assert scale < 1 or means[1] > 2 * means[0]


def test_where_probabilities_are_right_both_curvatures_are_one(noisy):
    """At the classes' shares, which the start has."""
    problem = noisy(weighted=True).problem()
    share = problem.class_weight / problem.total_weight
    expected = float(1 - share.square().sum()) / 2
    assert problem.evaluate(problem.start()).curvature == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("block_rows", [1, 7, 60, 1000])
def test_blocks_of_any_size_give_the_same(noisy, random_theta, variant, block_rows):
    case = noisy(shift=1.0, **variant)
    whole, cut = case.problem(), case.problem(block_rows=block_rows)
    assert len(cut.rows.blocks) == math.ceil(60 / block_rows)
    theta, direction = random_theta(whole), random_theta(whole, seed=1)
    one, other = whole.evaluate(theta, keep=True), cut.evaluate(theta, keep=True)
    for field in ("value", "bound", "curvature"):
        assert getattr(one, field) == pytest.approx(getattr(other, field), rel=1e-12)
    for a, b in (
        (one.gradient, other.gradient),
        (whole.hessian_times(direction), cut.hessian_times(direction)),
        (whole.gram(), cut.gram()),
        (whole.start(), cut.start()),
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_a_sparse_matrix_gives_the_same(noisy, random_theta, variant):
    case = noisy(**variant)
    case.X[np.abs(case.X) < 1] = 0
    dense = case.problem()
    block = dense.rows.blocks[0]
    matrix = SparseMatrix(sparse.csr_array(case.X))
    rows = LocalRows([Block(matrix, block.target, block.weight)], matrix.dtype, matrix.device)
    loose = SoftmaxProblem(rows, 3, dense.penalty, fit_intercept=case.fit_intercept)
    theta, direction = random_theta(dense), random_theta(dense, seed=1)
    one, other = dense.evaluate(theta, keep=True), loose.evaluate(theta, keep=True)
    assert one.value == pytest.approx(other.value, rel=1e-13)
    assert one.bound == pytest.approx(other.bound, rel=1e-12)
    for a, b in (
        (one.gradient, other.gradient),
        (dense.hessian_times(direction), loose.hessian_times(direction)),
        (dense.gram(), loose.gram()),
        (dense.square_sums, loose.square_sums),
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_the_gram_matrix_is_that_of_centered_weighted_features(noisy, variant):
    case = noisy(shift=3.0, **variant)
    problem = case.problem(block_rows=13)
    weight = np.ones(60) if case.weight is None else case.weight
    mean = np.average(case.X, axis=0, weights=weight) if case.fit_intercept else 0
    centered = case.X - mean
    expected = centered.T @ (weight[:, None] * centered)
    np.testing.assert_allclose(problem.gram().numpy(), expected, rtol=1e-11, atol=1e-10)
    np.testing.assert_allclose(problem.square_sums.numpy(), np.diag(expected), rtol=1e-11)


def test_theta_is_weights_and_intercept_and_back(noisy, random_theta, variant):
    problem = noisy(shift=2.0, **variant).problem()
    theta = random_theta(problem)
    torch.testing.assert_close(problem.join(*problem.split(theta)), theta, rtol=0, atol=1e-14)


def test_centered_features_have_the_same_objective_bound_and_gradient(noisy, random_theta):
    case = noisy(shift=5.0, weighted=True)
    centered = case._replace(X=case.X - np.average(case.X, axis=0, weights=case.weight))
    one, other = case.problem(), centered.problem()
    theta = random_theta(one)
    first, second = one.evaluate(theta, keep=True), other.evaluate(theta, keep=True)
    assert first.value == pytest.approx(second.value, rel=1e-12)
    assert first.bound == pytest.approx(second.bound, rel=1e-12)
    torch.testing.assert_close(first.gradient, second.gradient, rtol=1e-11, atol=1e-10)
    direction = random_theta(one, seed=1)
    torch.testing.assert_close(
        one.hessian_times(direction), other.hessian_times(direction), rtol=1e-10, atol=1e-10
    )


def test_a_constant_added_to_the_logits_of_all_classes_changes_nothing(noisy, random_theta):
    problem = noisy(weighted=True).problem()
    theta = random_theta(problem)
    moved = theta.clone()
    moved[-1] += 3.0
    one, other = problem.evaluate(theta), problem.evaluate(moved)
    assert one.value == pytest.approx(other.value, rel=1e-13)
    assert one.bound == pytest.approx(other.bound, rel=1e-12)
    torch.testing.assert_close(one.gradient, other.gradient, rtol=0, atol=1e-11)
    # Weights shared by all classes cost their penalty alone.
    moved = theta.clone()
    moved[:-1] += 0.5
    other = problem.evaluate(moved)
    pull = problem.penalty.times
    cost = (moved[:-1] * pull(moved[:-1]) - theta[:-1] * pull(theta[:-1])).sum() / 2
    assert other.value - one.value == pytest.approx(float(cost), rel=1e-10)


def test_the_start_is_the_best_intercept_of_zero_weights(noisy):
    case = noisy(weighted=True)
    found = case.problem().evaluate(case.problem().start())
    share = np.bincount(case.y, weights=case.weight)
    entropy = -(share * np.log(share / share.sum())).sum()
    assert found.value == pytest.approx(entropy, rel=1e-13)
    assert float(found.gradient[-1].abs().max()) < 1e-12


@pytest.mark.parametrize("weighted", [False, True])
def test_single_precision_is_near_double(noisy, random_theta, weighted):
    case = noisy(weighted=weighted)
    exact, single = case.problem(), case.problem(dtype=torch.float32)
    theta = random_theta(exact)
    one, other = exact.evaluate(theta), single.evaluate(theta.float())
    assert other.gradient.dtype == torch.float32
    assert other.value == pytest.approx(one.value, rel=1e-5)
    assert other.bound == pytest.approx(one.bound, rel=1e-4)
    torch.testing.assert_close(other.gradient.double(), one.gradient, rtol=1e-4, atol=1e-3)


def test_far_weights_stay_finite(noisy, random_theta):
    problem = noisy(weighted=True).problem()
    found = problem.evaluate(1e6 * random_theta(problem), keep=True)
    assert math.isfinite(found.value)
    assert math.isfinite(found.bound)
    assert bool(torch.isfinite(found.gradient).all())
    assert bool(torch.isfinite(problem.hessian_times(found.gradient)).all())


def test_separation_is_seen(noisy, random_theta):
    case = noisy(C=math.inf)
    problem = case.problem()
    assert not problem.separates(random_theta(problem))
    apart = case._replace(X=np.eye(4)[case.y] - 0.5)
    problem = apart.problem()
    theta = problem.join(torch.eye(4, 3).double(), torch.zeros(3).double())
    assert problem.separates(theta)
    assert not problem.separates(problem.start() * 0)  # a tie wins nothing


def test_only_rows_in_memory_are_sampled_and_copied(noisy, monkeypatch, tmp_path):
    """A sample of files or of other processes' rows would depend on how they are cut."""
    monkeypatch.setattr(linear_problem, "SAMPLED_ABOVE", 0)
    monkeypatch.setattr(float32_problem, "MIN_PRODUCTS", 0)
    given = noisy(count=200)
    here = given.problem().rows
    np.save(tmp_path / "X.npy", given.X)
    there = {
        "shared": SharedRows(here),
        "files": rows_from_files(tmp_path / "X.npy", given.y),
        "weighted": ClassWeightedRows(here, torch.ones(3)),
    }
    problems = {
        name: SoftmaxProblem(rows, 3, given.problem().penalty) for name, rows in there.items()
    }
    every = given.problem().sampling
    assert every == 200 // (8 * 4)
    assert {name: p.sampling for name, p in problems.items()} == {
        "shared": every,
        "files": 1,
        "weighted": 1,
    }
    copied = {name for name, p in problems.items() if float32_problem.float32_problem(p)}
    assert copied == {"shared"}
    torch.testing.assert_close(problems["shared"].sampled_gram(), given.problem().sampled_gram())
    assert not any(kind.in_memory for kind in (DistributedRows, ClusterRows))


def test_sparse_features_are_not_rounded(noisy):
    block = noisy().problem().rows.blocks[0]
    matrix = SparseMatrix(sparse.csr_array(noisy().X))
    rows = LocalRows([Block(matrix, block.target)], matrix.dtype, matrix.device)
    with pytest.raises(TypeError, match="sparse"):
        rows.rounded(torch.zeros(4, dtype=torch.float64))
