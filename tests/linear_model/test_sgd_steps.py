"""The steps of stochastic gradient descent: how far they come, and that they do not diverge."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from lastlayer.linear_model import LBFGSSoftmax, SGDSoftmax
from lastlayer.linear_model.rows.matrices import SparseMatrix
from lastlayer.linear_model.rows.memory import LocalRows
from lastlayer.linear_model.rows.protocol import Block
from lastlayer.linear_model.solvers.sgd import TailAverage, descend, safe_rate
from lastlayer.linear_model.solvers.step_size import SAMPLE, row_scale


def digits(case, noisy):
    X, y = load_digits(return_X_y=True)
    return case(X / 16, y)


def overlapping_classes(case, noisy):
    return noisy(count=2000, width=20, num_classes=5)


def weighted(case, noisy):
    return noisy(count=2000, width=20, num_classes=5, weighted=True)


def after(epochs):
    """A callback that ends a fit without a warning."""
    return lambda record: record.iteration == epochs


def carefully(problem, epochs):
    """The least F of steps of one over the mean squared norm, falling with the root of the epoch.

    These were the automatic steps once: good for any batch and any labels, and needlessly small.
    """
    theta = problem.start()
    velocity, source = torch.zeros_like(theta), torch.Generator().manual_seed(0)
    values = []
    for epoch in range(epochs):
        rate = safe_rate(problem) / math.sqrt(1 + epoch)
        theta, velocity, _ = descend(
            problem, theta, velocity, rate, 0.9, batch_size=256, generator=source
        )
        values.append(problem.evaluate(theta).value)
    return min(values)


@pytest.mark.parametrize(
    ("build", "epochs", "near", "far"),
    [
        (digits, 20, 3e-3, 0.3),
        (digits, 60, 3e-4, 0.15),
        (overlapping_classes, 20, 5e-3, 0.1),
        (weighted, 60, 3e-3, 0.2),
    ],
)
def test_it_comes_near_in_epochs_in_which_careful_steps_stay_far(
    make_case, noisy, build, epochs, near, far
):
    """Near and far are relative gaps; of the defaults, whatever the seed."""
    given = build(make_case, noisy)
    least = given.of(given.fit(LBFGSSoftmax, tol=1e-6))
    for seed in range(2):
        model = given.fit(SGDSoftmax, random_state=seed, tol=0, callback=after(epochs))
        assert given.of(model) / least - 1 < near
    assert carefully(given.problem(block_rows=len(given.y)), epochs) / least - 1 > far


def test_where_a_batch_holds_all_rows_it_goes_on_to_the_optimum(noisy):
    given = noisy(count=150)
    model = given.fit(SGDSoftmax, random_state=0, tol=0, callback=after(80))
    assert given.of(model) == pytest.approx(given.scikit_learn_minimum(), rel=1e-6)


def test_small_batches_come_nearer_the_longer_they_go_on(noisy):
    """Their noise averages out: F falls by more than half with twice the epochs."""
    given = noisy(count=300, weighted=True)
    least = given.scikit_learn_minimum()
    gaps = []
    for epochs in (8, 16, 32):
        fits = [
            given.fit(SGDSoftmax, batch_size=16, random_state=seed, tol=0, callback=after(epochs))
            for seed in range(2)
        ]
        gaps.append(np.mean([given.of(model) for model in fits]) / least - 1)
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]
    assert gaps[2] < 1e-3


def columns_over_six_decades(case, noisy):
    given = noisy(count=300, width=8)
    return given._replace(X=given.X * 10.0 ** np.linspace(-3, 3, 8))


def rows_over_ten_decades(case, noisy):
    given = noisy(count=300)
    scale = 10.0 ** np.random.default_rng(1).uniform(-5, 5, size=(300, 1))
    return given._replace(X=given.X * scale)


def one_huge_row(case, noisy):
    given = noisy(count=3000)
    given.X[1234] *= 1e6  # not of the sample
    return given


def one_huge_weight(case, noisy):
    given = noisy(count=300, weighted=True)
    given.weight[17] = 1e4
    return given


def far_from_zero(case, noisy):
    return noisy(count=300, shift=1e3)


def strong_penalty(case, noisy):
    return noisy(count=300, C=1e-6)


def zeros(case, noisy):
    return noisy(count=300)._replace(X=np.zeros((300, 2)))


def strong_smoothing(case, noisy):
    return noisy(count=300, C=1e-4, operator=10 * np.diff(np.eye(4), axis=0))


HARD = [
    columns_over_six_decades,
    rows_over_ten_decades,
    one_huge_row,
    one_huge_weight,
    far_from_zero,
    strong_penalty,
    strong_smoothing,
    zeros,
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("build", HARD, ids=lambda build: build.__name__)
@pytest.mark.parametrize("batch_size", [8, 256])
def test_no_epoch_of_badly_scaled_features_is_far_above_the_start(
    make_case, noisy, build, dtype, batch_size
):
    given = build(make_case, noisy)
    given = given._replace(X=given.X.astype(dtype))
    epochs = 2 if len(given.y) > 1000 else 8
    model = given.fit(
        SGDSoftmax, batch_size=batch_size, random_state=0, tol=0, callback=after(epochs)
    )
    values = np.array(model.history_["objective"])
    assert values.max() <= 3 * values[0]
    assert given.of(model) <= values[0] * (1 + 1e-5)


def test_the_unit_of_the_features_does_not_matter(noisy):
    given = noisy(count=300)
    values = []
    for unit in (1.0, 1e-4, 1e4):
        scaled = given._replace(X=unit * given.X, C=given.C / unit**2)
        model = scaled.fit(SGDSoftmax, batch_size=32, random_state=0, tol=0, callback=after(5))
        values.append(model.history_["objective"])
    np.testing.assert_allclose(values[1:], [values[0]] * 2, rtol=1e-6)


# -- too large a rate -----------------------------------------------------------------------------


def test_a_rate_beyond_all_bounds_is_an_error_that_names_it(noisy):
    with pytest.raises(FloatingPointError, match=r"learning_rate=1e\+200 is too large"):
        noisy().fit(SGDSoftmax, learning_rate=1e200, tol=0)


def test_a_rate_from_which_no_epoch_comes_down_is_named_in_the_warning(noisy):
    given = noisy()
    with pytest.warns(ConvergenceWarning, match=r"below the start: lower learning_rate=1e\+06"):
        model = given.fit(SGDSoftmax, learning_rate=1e6, tol=0, max_iter=5, random_state=0)
    start = given.problem().evaluate(given.problem().start()).value
    assert given.of(model) == pytest.approx(start)


def test_a_rate_that_is_too_large_is_halved_until_it_is_not(noisy):
    given = noisy(count=150)
    options = {"batch_size": 32, "random_state": 0, "tol": 0}
    model = given.fit(SGDSoftmax, learning_rate=1e3, callback=after(60), **options)
    assert given.of(model) < 1.01 * given.scikit_learn_minimum()


# -- the parts ------------------------------------------------------------------------------------


def test_the_scale_of_the_rows_is_numpys(noisy, variant):
    given = noisy(count=100, shift=2.0, **variant)
    problem = given.problem(block_rows=30)
    weight = np.ones(100) if given.weight is None else given.weight
    total = weight.sum()
    mean = np.average(given.X, axis=0, weights=weight) if given.fit_intercept else 0
    centered = given.X - mean
    squares = (centered**2).sum(1)
    second = centered.T @ (weight[:, None] * centered) / total
    operator = np.eye(4) if given.operator is None else given.operator
    found = row_scale(problem, problem.rows)
    assert found.largest == pytest.approx(np.linalg.eigvalsh(second)[-1], rel=0.02)
    relative = weight * 100 / total
    noise = (relative * squares) @ (relative * squares) / (relative @ squares)
    assert found.noise == pytest.approx(noise)
    assert found.intercept_noise == pytest.approx(relative @ relative / 100)
    pull = np.linalg.eigvalsh(operator.T @ operator)[-1] / given.C / total
    assert found.penalty == pytest.approx(pull, rel=0.02)


def test_the_scale_of_sparse_rows_is_that_of_dense_ones(noisy):
    given = noisy(weighted=True)
    given.X[np.abs(given.X) < 1] = 0
    problem = given.problem()
    block = problem.rows.blocks[0]
    matrix = SparseMatrix(sparse.csr_array(given.X))
    rows = LocalRows([Block(matrix, block.target, block.weight)], matrix.dtype, matrix.device)
    dense, loose = row_scale(problem, problem.rows), row_scale(problem, rows)
    for name in ("largest", "noise", "intercept_noise", "penalty"):
        assert getattr(loose, name) == pytest.approx(getattr(dense, name), rel=1e-10)


def test_a_sample_of_many_rows_tells_the_largest_eigenvalue(noisy):
    given = noisy(count=5 * SAMPLE, width=8)
    problem = given.problem()
    exact = float(torch.linalg.eigvalsh(problem.gram())[-1]) / len(given.y)
    assert row_scale(problem, problem.rows).largest == pytest.approx(exact, rel=0.15)


def test_steps_fall_with_noise_curvature_and_momentum(noisy):
    problem = noisy(count=150).problem()
    scale = row_scale(problem, problem.rows)
    whole = scale.rates(0.3, 0.0, 0.9)
    assert whole == pytest.approx((1 / (0.6 * scale.largest + scale.penalty), 1 / 0.6))
    for other in (scale.rates(0.4, 0.0, 0.9), scale.rates(0.3, 0.1, 0.9)):
        assert other < whole
    assert scale.rates(0.3, 0.1, 0.99) < scale.rates(0.3, 0.1, 0.9)
    assert scale.rates(0.3, 0.1, 0.0) == pytest.approx(scale.rates(0.3, 0.1, 0.9))


def test_the_gradients_of_an_epoch_sum_up_to_that_of_all_rows(noisy, random_theta):
    """Weights and all: 5 batches a block of 40, the last of 8 rows, make 15 small steps."""
    given = noisy(count=120, weighted=True, shift=1.0)
    problem = given.problem(block_rows=40)
    theta = random_theta(problem)
    tiny = 1e-7
    found = descend(problem, theta, torch.zeros_like(theta), tiny, 0.0, batch_size=8)
    gradient = problem.evaluate(theta).gradient / problem.total_weight
    torch.testing.assert_close((theta - found.theta) / tiny, 15 * gradient, rtol=1e-4, atol=1e-6)
    uneven = descend(problem, theta, torch.zeros_like(theta), tiny, 0.0, batch_size=30)
    expected = 120 / 30 * gradient
    torch.testing.assert_close((theta - uneven.theta) / tiny, expected, rtol=1e-4, atol=1e-6)


def test_the_mean_of_an_epoch_is_that_of_its_iterates(noisy):
    problem = noisy(count=20).problem()
    theta = problem.start()
    zero = torch.zeros_like(theta)
    end = descend(problem, theta, zero, 0.1, 0.0, batch_size=20)
    assert torch.equal(end.mean, end.theta)
    source = torch.Generator().manual_seed(3)
    end = descend(problem, theta, zero, 0.1, 0.5, batch_size=10, generator=source)
    before = end.theta - end.velocity
    torch.testing.assert_close(end.mean, (before + end.theta) / 2)


def test_the_tail_average_weighs_points_by_the_third_power_of_their_number():
    points = np.random.default_rng(0).normal(size=(30, 2))
    tail = TailAverage()
    for point in points:
        tail.add(torch.from_numpy(point))
    number = np.arange(1, 31)
    rising = number * (number + 1) * (number + 2)
    np.testing.assert_allclose(tail.value.numpy(), np.average(points, axis=0, weights=rising))
    assert tail.count == 30
