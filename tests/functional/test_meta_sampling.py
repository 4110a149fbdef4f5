import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lastlayer.functional.meta_sampling import (
    class_log_prob,
    draw_classes,
    draw_examples,
    group_by_class,
    gumbel_noise,
    initial_rate_logits,
    rate_weights,
)

COUNTS = torch.tensor([5000, 700, 70, 12, 1])
RATES = torch.tensor([-2.0, 0.0, 0.3, 4.0, 7.0], dtype=torch.float64)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def z_scores(observed, prob, total):
    return (observed - total * prob) / np.sqrt(total * prob * (1 - prob))


def marginal(rates, counts):
    """The published draw: every example by the rate of its class."""
    rate = 1 / (1 + np.exp(-rates.double().numpy()))
    per_example = np.repeat(rate, counts.numpy())
    owner = np.repeat(np.arange(len(rate)), counts.numpy())
    return np.bincount(owner, per_example / per_example.sum())


def test_class_probabilities_are_those_of_the_published_draw_over_examples():
    ours = class_log_prob(RATES, COUNTS).exp().numpy()
    np.testing.assert_allclose(ours, marginal(RATES, COUNTS), rtol=1e-12)


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0, 10.0])
def test_classes_are_drawn_at_their_probabilities_at_every_temperature(temperature):
    total = 200_000
    drawn = draw_classes(RATES, COUNTS, total, temperature=temperature, generator=generator(3))
    observed = torch.bincount(drawn.classes, minlength=5).numpy()
    assert np.abs(z_scores(observed, marginal(RATES, COUNTS), total)).max() < 5
    assert bool((drawn.weights == 1).all())


@settings(max_examples=60)
@given(
    logits=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=6),
    temperature=st.floats(1e-3, 1e3),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_weights_are_exactly_one_and_finite_whatever_the_rates(logits, temperature, dtype):
    rates = torch.tensor(logits, dtype=dtype, requires_grad=True)
    counts = torch.arange(1, len(logits) + 1) ** 3
    drawn = draw_classes(rates, counts, 7, temperature=temperature, generator=generator(0))
    assert drawn.weights.eq(1).all()
    (gradient,) = torch.autograd.grad(drawn.weights.sum(), rates)
    assert bool(gradient.isfinite().all())


def test_rates_too_small_for_their_exponential_still_draw():
    rates = torch.tensor([-300.0, -300.0])  # sigmoid is 0 in single precision
    torch.testing.assert_close(
        class_log_prob(rates, torch.tensor([3, 1])), torch.tensor([0.75, 0.25]).log()
    )


def test_the_weights_derivative_is_that_of_the_relaxed_pick():
    noise = gumbel_noise(torch.empty(6, 5, dtype=torch.float64), generator=generator(1))
    rates = RATES.clone().requires_grad_()

    def relaxed(logits):
        score = (class_log_prob(logits, COUNTS) + noise) / 0.7
        picked = score.softmax(-1)
        return picked.gather(-1, score.argmax(-1, keepdim=True)).squeeze(-1)

    def drawn(logits):
        return draw_classes(logits, COUNTS, 6, temperature=0.7, noise=noise).weights

    expected = torch.autograd.functional.jacobian(relaxed, rates)
    torch.testing.assert_close(torch.autograd.functional.jacobian(drawn, rates), expected)
    assert torch.autograd.gradcheck(relaxed, (rates,))


def test_the_default_noise_is_standard_gumbel():
    noise = gumbel_noise(torch.empty(20_000), generator=generator(2))
    assert stats.kstest(noise.numpy(), stats.gumbel_r.cdf).pvalue > 1e-6
    assert gumbel_noise(torch.empty(3, dtype=torch.bfloat16)).dtype == torch.float32


def test_the_same_noise_and_the_same_generator_give_the_same_draw():
    noise = gumbel_noise(torch.empty(9, 5), generator=generator(4))
    given_noise = draw_classes(RATES.float(), COUNTS, 9, noise=noise).classes
    assert given_noise.equal(draw_classes(RATES.float(), COUNTS, 9, generator=generator(4)).classes)
    scores = class_log_prob(RATES.float(), COUNTS).numpy() + noise.numpy()
    assert given_noise.tolist() == scores.argmax(-1).tolist()


def test_examples_are_uniform_within_their_class_and_of_that_class():
    target = torch.tensor([2, 0, 1, 2, 2, 0, 2])
    groups = group_by_class(target, 3)
    assert groups.counts.tolist() == [2, 1, 4]
    assert target[groups.order].tolist() == sorted(target.tolist())
    classes = torch.arange(3).repeat_interleave(torch.tensor([4000, 10, 8000]))
    drawn = draw_examples(groups, classes, generator=generator(5))
    assert target[drawn].equal(classes)
    observed = torch.bincount(drawn, minlength=7).numpy()
    for label, total in ((0, 4000), (2, 8000)):
        members = (target == label).numpy()
        assert np.abs(z_scores(observed[members], 1 / members.sum(), total)).max() < 5


def test_noise_next_to_one_takes_the_last_example():
    groups = group_by_class(torch.zeros(3, dtype=torch.int64), 1)
    noise = torch.tensor([0.0, 1.0 - 2.0**-53], dtype=torch.float64)
    assert draw_examples(groups, torch.tensor([0, 0]), noise=noise).tolist() == [0, 2]


@given(
    counts=st.lists(st.integers(1, 10**6), min_size=1, max_size=8), power=st.sampled_from([0.1, 1])
)
def test_initial_rates_are_the_formula_and_stay_between_zero_and_one(counts, power):
    ours = initial_rate_logits(torch.tensor(counts), power).sigmoid().numpy()
    raw = (np.array(counts) / sum(counts)) ** -power
    np.testing.assert_allclose(ours, raw / (raw.min() + raw.max()), rtol=1e-9)


def test_initial_rates_are_flat_at_power_zero_and_draw_classes_alike_at_one():
    assert initial_rate_logits(COUNTS).tolist() == [0.0] * 5
    level = class_log_prob(initial_rate_logits(COUNTS, 1.0), COUNTS).exp()
    torch.testing.assert_close(level, torch.full((5,), 0.2, dtype=torch.float64))


def test_weights_by_rate_have_the_batch_size_for_a_sum_and_the_rates_ratios():
    target = torch.tensor([0, 3, 3, 4])
    weights = rate_weights(RATES, target)
    assert math.isclose(float(weights.sum()), 4.0, rel_tol=1e-12)
    torch.testing.assert_close(weights / weights[0], (RATES.sigmoid() / RATES[0].sigmoid())[target])
    torch.testing.assert_close(
        rate_weights(RATES, target, normalize=False), RATES.sigmoid()[target]
    )
    assert rate_weights(torch.full((5,), -300.0), target).tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: draw_classes(RATES, COUNTS, 0), "num_draws"),
        (lambda: draw_classes(RATES, COUNTS, 2, temperature=0.0), "temperature"),
        (lambda: draw_classes(RATES, COUNTS, 2, noise=torch.zeros(3, 5)), "noise"),
        (lambda: draw_classes(RATES, COUNTS[:2], 2), "class_counts must have shape"),
        (lambda: draw_classes(RATES, torch.tensor([1, 1, 1, 1, 0]), 2), "class 4 never"),
        (lambda: initial_rate_logits(COUNTS, -1.0), "power"),
        (lambda: initial_rate_logits(torch.tensor([])), "class_counts"),
        (lambda: group_by_class(torch.tensor([0, 3]), 3), "target"),
        (lambda: draw_examples(group_by_class(torch.tensor([0]), 2), torch.tensor([1])), "class 1"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
