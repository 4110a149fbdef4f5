"""The proximal step of the softmax loss: SciPy row by row, stationarity, descent from anywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax

from lastlayer.functional.softmax_prox import _damped, _newton_step, softmax_prox

PENALTIES = [1e-4, 1e-2, 1.0, 1e2, 1e4]


def objective(z, point, label, penalty):
    return logsumexp(z) - z[label] + penalty / 2 * ((z - point) ** 2).sum()


def slope(z, point, label, penalty):
    return softmax(z) - np.eye(len(z))[label] + penalty * (z - point)


def slopes(z, point, target, penalty):
    """The gradient, row by row, of tensors."""
    rows = zip(z.numpy(), point.numpy(), target.tolist(), strict=True)
    return np.stack([slope(*row, penalty) for row in rows])


def draw(count, num_classes, *, scale=1.0, seed=0):
    source = torch.Generator().manual_seed(seed)
    point = scale * torch.randn(count, num_classes, dtype=torch.float64, generator=source)
    return point, torch.randint(num_classes, (count,), generator=source)


@pytest.mark.parametrize("penalty", [1e-2, 0.3, 1.0, 10.0, 1e3])
def test_every_row_is_the_minimizer_that_scipy_finds(penalty):
    point, target = draw(6, 4, scale=3.0)
    found = softmax_prox(point, target, penalty)
    for z, v, label in zip(found.numpy(), point.numpy(), target.tolist(), strict=True):
        best = minimize(
            objective, v, (v, label, penalty), jac=slope, method="BFGS", options={"gtol": 1e-9}
        )
        np.testing.assert_allclose(z, best.x, atol=1e-6 / min(penalty, 1.0))
        assert objective(z, v, label, penalty) <= best.fun + 1e-12 * abs(best.fun)


@pytest.mark.parametrize("penalty", [1e-8, *PENALTIES])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("num_classes", [2, 5, 1000])
def test_the_gradient_vanishes_wherever_the_point_is(penalty, scale, num_classes):
    point, target = draw(8, num_classes, scale=scale)
    found = softmax_prox(point, target, penalty)
    # Probabilities and z - v are known to a rounding error of v only.
    rounding = 100 * torch.finfo(point.dtype).eps * max(1.0, penalty) * max(1.0, scale)
    assert abs(slopes(found, point, target, penalty)).max() <= rounding


@pytest.mark.parametrize("penalty", PENALTIES)
def test_two_far_classes_meet_where_the_penalty_is_small(penalty):
    """The label's class starts 5000 behind; a penalty of 1e-4 lets it catch up, 1e4 does not."""
    point, target = torch.tensor([[0.0, 5000.0]], dtype=torch.float64), torch.tensor([0])
    found = softmax_prox(point, target, penalty)[0].numpy()
    difference = found[1] - found[0]
    assert difference == pytest.approx(5000 - 2 * softmax(found)[1] / penalty, rel=1e-9, abs=1e-6)
    assert (abs(difference) < 2) == (penalty < 2 / 5000)


def test_one_class_is_not_moved():
    point = torch.tensor([[3.0], [-1e6]], dtype=torch.float64)
    assert torch.equal(softmax_prox(point, torch.tensor([0, 0]), 0.5), point)


def test_no_rows_give_no_rows():
    assert softmax_prox(torch.empty(0, 3), torch.empty(0, dtype=torch.int64), 1.0).shape == (0, 3)


@given(
    arrays.arrays(np.float64, 5, elements=st.floats(-1e3, 1e3)),
    arrays.arrays(np.float64, 5, elements=st.floats(-1e3, 1e3)),
    st.integers(0, 4),
    st.floats(-4, 4).map(lambda power: 10.0**power),
)
@settings(max_examples=50)
def test_a_damped_step_never_raises_the_objective(point, start, label, penalty):
    """The third derivative along a step is at most its range times the second."""
    values = [objective(start, point, label, penalty)]
    for steps in range(1, 6):
        found = softmax_prox(
            torch.from_numpy(point)[None],
            torch.tensor([label]),
            penalty,
            start=torch.from_numpy(start)[None],
            steps=steps,
            tol=0.0,
        )
        values.append(objective(found[0].numpy(), point, label, penalty))
    # The objective is a difference of numbers as large as penalty / 2 |z - v|^2.
    rounding = 1e-13 * (1 + abs(values[0]) + np.abs(start).max())
    assert (np.diff(values) <= rounding).all()


def test_an_undamped_step_may_raise_it():
    point, label, penalty = np.array([0.0, 6.0]), 0, 1e-3
    start = torch.from_numpy(point)[None]
    gradient = torch.from_numpy(slope(point, point, label, penalty))[None]
    full = _newton_step(torch.softmax(start, 1), gradient, penalty)
    before = objective(point, point, label, penalty)
    assert objective((start - full)[0].numpy(), point, label, penalty) > 2 * before
    assert objective((start - _damped(full))[0].numpy(), point, label, penalty) < before


@given(arrays.arrays(np.float64, (3, 4), elements=st.floats(-50, 50)), st.floats(1e-3, 1e3))
@settings(max_examples=50)
def test_a_newton_step_solves_with_the_dense_hessian(point, penalty):
    z = torch.from_numpy(point)
    probability = torch.softmax(z, 1)
    gradient = z.flip(0) / 50
    step = _newton_step(probability, gradient.clone(), penalty)
    for p, g, s in zip(probability.numpy(), gradient.numpy(), step.numpy(), strict=True):
        hessian = np.diag(p) - np.outer(p, p) + penalty * np.eye(4)
        np.testing.assert_allclose(hessian @ s, g, atol=1e-11)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_single_precision_is_near_double(penalty):
    point, target = draw(50, 6, scale=4.0)
    exact = softmax_prox(point, target, penalty)
    single = softmax_prox(point.float(), target, penalty)
    assert single.dtype == torch.float32
    # The minimizer is as well conditioned as the penalty is large.
    error = (single.double() - exact).abs().max()
    assert float(error) <= 2e-5 / min(penalty, 1.0) * 10


def test_a_start_at_the_solution_stays_there():
    point, target = draw(5, 3)
    found = softmax_prox(point, target, 0.7)
    assert torch.equal(softmax_prox(point, target, 0.7, start=found), found)


def test_any_start_leads_to_the_same_minimizer():
    point, target = draw(5, 3)
    far = 30 * draw(5, 3, seed=1)[0]
    found = softmax_prox(point, target, 0.7)
    torch.testing.assert_close(
        softmax_prox(point, target, 0.7, start=far), found, atol=1e-11, rtol=0
    )


def test_no_argument_is_written_to():
    point, target = draw(5, 3)
    start = draw(5, 3, seed=2)[0]
    kept = point.clone(), target.clone(), start.clone()
    softmax_prox(point, target, 0.7)
    softmax_prox(point, target, 0.7, start=start)
    assert all(torch.equal(*pair) for pair in zip(kept, (point, target, start), strict=True))


def test_a_constant_added_to_the_point_is_added_to_the_minimizer():
    point, target = draw(5, 3)
    moved = softmax_prox(point + 7.0, target, 0.7)
    torch.testing.assert_close(moved, softmax_prox(point, target, 0.7) + 7.0, atol=1e-11, rtol=0)


def test_the_minimizer_is_the_fixed_point_of_the_loss_at_itself():
    """z = v + (e_y - p(z)) / penalty, and the label has gained."""
    point, target = draw(20, 4, scale=2.0)
    found = softmax_prox(point, target, 0.3).numpy()
    rows, labels = np.arange(20), target.numpy()
    pulled = point.numpy() + (np.eye(4)[labels] - softmax(found, 1)) / 0.3
    np.testing.assert_allclose(found, pulled, atol=1e-10)
    gained = log_softmax(found, 1) - log_softmax(point.numpy(), 1)
    assert (gained[rows, labels] > 0).all()


@pytest.mark.parametrize("penalty", [0.0, -1.0, float("inf"), float("nan")])
def test_a_penalty_must_be_above_zero(penalty):
    with pytest.raises(ValueError, match="penalty must be a finite number above 0"):
        softmax_prox(torch.zeros(1, 2), torch.tensor([0]), penalty)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_steps_must_be_a_count(steps):
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1"):
        softmax_prox(torch.zeros(1, 2), torch.tensor([0]), 1.0, steps=steps)


@pytest.mark.parametrize(
    ("point", "target"), [((2, 3), (3,)), ((3,), (3,)), ((2, 3), (2, 1)), ((2, 3, 1), (2,))]
)
def test_shapes_must_fit(point, target):
    with pytest.raises(ValueError, match=r"point must be \(N, K\) and target \(N,\)"):
        softmax_prox(torch.zeros(point), torch.zeros(target, dtype=torch.int64), 1.0)
