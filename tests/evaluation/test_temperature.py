import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.evaluation import apply_temperature, evaluate, fit_temperature


def calibrated(num_rows=20_000, num_classes=5, seed=0):
    """Logits whose softmax is the true distribution of the labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return logits, target


def held_out_nll(scores, target, temperature):
    return float(torch.nn.functional.cross_entropy(scores / temperature, target))


@pytest.mark.parametrize("true_temperature", [0.3, 1.0, 2.5, 8.0])
def test_recovers_a_known_temperature(true_temperature):
    logits, target = calibrated()
    fitted = fit_temperature(logits * true_temperature, target)
    # log T is asymptotically normal; its standard error is the inverse root Fisher information of
    # log beta, sum_i Var_p(logit): 5 standard errors bound the deviation.
    prob = logits.softmax(1)
    variance = (prob * logits.square()).sum(1) - (prob * logits).sum(1).square()
    standard_error = 1 / math.sqrt(float(variance.sum()))
    assert abs(math.log(fitted / true_temperature)) < 5 * standard_error


@given(
    seed=st.integers(0, 10_000),
    num_rows=st.integers(2, 40),
    num_classes=st.integers(2, 5),
)
@settings(max_examples=40)
def test_no_temperature_on_a_fine_grid_has_lower_nll(seed, num_rows, num_classes):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64)
    target = torch.randint(num_classes, (num_rows,), generator=generator)
    best = held_out_nll(scores, target, fit_temperature(scores, target))
    grid = np.geomspace(0.05, 20, 400).tolist()
    assert best <= min(held_out_nll(scores, target, t) for t in grid) + 1e-12


def test_scaling_keeps_the_error_and_does_not_raise_the_fitted_nll():
    logits, target = calibrated(2_000)
    overconfident = (3 * logits).log_softmax(1)
    scaled = apply_temperature(overconfident, fit_temperature(overconfident, target))
    before, after = evaluate(overconfident, target), evaluate(scaled, target)
    assert after.error == before.error
    assert after.nll < before.nll
    assert after.ece < before.ece / 4


def test_log_probabilities_and_logits_give_one_temperature():
    logits, target = calibrated(500)
    shifted = logits * 2 + 7 * torch.randn(500, 1, dtype=torch.float64)
    assert fit_temperature(shifted, target) == pytest.approx(
        fit_temperature(shifted.log_softmax(1), target), rel=1e-9
    )


def test_fitting_twice_gives_temperature_one():
    logits, target = calibrated(500)
    scaled = apply_temperature(logits, fit_temperature(logits, target))
    assert fit_temperature(scaled, target) == pytest.approx(1.0, rel=1e-6)


def test_hopeless_scores_reach_the_upper_bound_and_perfect_ones_the_lower():
    scores = 5 * torch.eye(3, dtype=torch.float64)
    assert fit_temperature(scores, torch.tensor([1, 2, 0])) == 20.0
    assert fit_temperature(scores, torch.tensor([0, 1, 2])) == 0.05


def test_scores_that_tell_nothing_leave_temperature_one():
    assert fit_temperature(torch.zeros(3, 4), torch.tensor([0, 1, 2])) == 1.0


def test_zero_probability_of_other_classes_stays_zero():
    scores = torch.tensor([[0.0, 1.0, -math.inf], [1.0, 0.0, -math.inf]] * 3).double()
    target = torch.tensor([1, 0, 1, 0, 1, 1])
    fitted = fit_temperature(scores, target)
    assert fitted == pytest.approx(fit_temperature(scores[:, :2], target), rel=1e-12)
    assert apply_temperature(scores, fitted).exp()[:, 2].tolist() == [0.0] * 6


def test_a_label_with_probability_zero_is_refused_with_the_way_out():
    scores = torch.tensor([[0.0, -1.0], [0.0, -math.inf]])
    with pytest.raises(ValueError, match=r"row 1: fit on the head's logits"):
        fit_temperature(scores, torch.tensor([0, 1]))


def test_apply_temperature_equals_softmax_of_scaled_scores():
    from scipy.special import log_softmax

    scores = torch.randn(4, 3, 5, dtype=torch.float64)
    np.testing.assert_allclose(
        apply_temperature(scores, 0.7).numpy(),
        log_softmax(scores.numpy() / 0.7, axis=-1),
        atol=1e-13,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_scores_near_the_largest_number_of_their_dtype_have_finite_probabilities(dtype):
    from scipy.special import log_softmax

    largest = torch.finfo(dtype).max
    scores = torch.tensor([largest, largest / 4, -1.0, -largest, -math.inf], dtype=dtype)
    assert apply_temperature(scores, 0.05).exp().tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    # Far above 0 the temperature still tells near scores apart.
    near = torch.tensor([2048.0, 2032.0], dtype=dtype)
    expected = log_softmax(near.double().numpy() / 40.0)
    np.testing.assert_allclose(apply_temperature(near, 40.0).double().numpy(), expected, rtol=1e-6)
    assert apply_temperature(near, 1.0).dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_bad_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        apply_temperature(torch.zeros(1, 2), temperature)


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="scores must be finite"):
        fit_temperature(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]))
    with pytest.raises(TypeError, match="scores"):
        apply_temperature(torch.zeros(1, 2).long(), 1.0)
