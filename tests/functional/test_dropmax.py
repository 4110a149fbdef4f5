"""DropMax's masks and probabilities against the formulas, written naively with exponentials."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from lastlayer.functional.dropmax import (
    bernoulli_log_mask,
    concrete_log_mask,
    logistic_noise,
    masked_log_prob,
    monte_carlo_log_prob,
    plug_in_log_prob,
    retain_target,
)

FORMS = ["neurips", "iclr"]
LOGITS = torch.tensor([1.2, -0.7, 0.4, 2.1, -1.5], dtype=torch.float64)
RETAIN_LOGITS = torch.tensor([0.3, -1.1, 2.0, -0.2, 0.8], dtype=torch.float64)

finite = st.lists(st.floats(-20, 20), min_size=4, max_size=4)
masks = st.lists(st.floats(0, 1), min_size=4, max_size=4)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def naive_prob(o, z, form: str, eps: float) -> np.ndarray:
    """Class probabilities as the papers write them."""
    o, z = np.asarray(o, dtype=np.float64), np.asarray(z, dtype=np.float64)
    weight = (z + eps) * np.exp(o) if form == "neurips" else z * np.exp(o) + eps
    return weight / weight.sum(-1, keepdims=True)


def all_masks(num_classes: int) -> np.ndarray:
    return np.array(list(itertools.product([0.0, 1.0], repeat=num_classes)))


def mask_probability(masks: np.ndarray, rho: np.ndarray) -> np.ndarray:
    return np.where(masks == 1, rho, 1 - rho).prod(-1)


def enumerated(form: str, eps: float = 1e-20) -> tuple[np.ndarray, np.ndarray]:
    """Probability of every mask of the example, and the class probabilities under it."""
    z = all_masks(5)
    rho = 1 / (1 + np.exp(-RETAIN_LOGITS.numpy()))
    return mask_probability(z, rho), naive_prob(LOGITS.numpy(), z, form, eps)


# --- probabilities under one mask --------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=50)
@given(o=finite, z=masks, eps=st.sampled_from([1e-20, 1e-3]))
def test_masked_probabilities_are_the_papers_formula_and_sum_to_one(form, o, z, eps):
    log_mask = torch.tensor(z, dtype=torch.float64).log()
    prob = masked_log_prob(torch.tensor(o, dtype=torch.float64), log_mask, form=form, eps=eps).exp()
    np.testing.assert_allclose(prob, naive_prob(o, z, form, eps), rtol=1e-11, atol=1e-300)
    assert abs(prob.sum().item() - 1) < 1e-13


@pytest.mark.parametrize("eps", [1e-20, 1e-3, 1.0])
@pytest.mark.parametrize("retain_logit", [-9.0, 0.0, 5.0])
def test_equal_retain_probabilities_leave_the_softmax_in_the_neurips_form(retain_logit, eps):
    constant = torch.full_like(LOGITS, retain_logit)
    log_prob = plug_in_log_prob(LOGITS, constant, form="neurips", eps=eps)
    torch.testing.assert_close(log_prob, LOGITS.log_softmax(-1), rtol=0, atol=1e-14)


def test_equal_retain_probabilities_leave_the_softmax_in_the_iclr_form_only_without_eps():
    constant = torch.full_like(LOGITS, -1.0)
    softmax = LOGITS.softmax(-1)
    gaps = [
        (plug_in_log_prob(LOGITS, constant, form="iclr", eps=eps).exp() - softmax).abs().max()
        for eps in (1e-1, 1e-3, 1e-20)
    ]
    assert gaps[0] > 1e-2
    assert 1e-5 < gaps[1] < 1e-3
    assert gaps[2] < 1e-15


def test_with_all_classes_dropped_neurips_is_the_softmax_and_iclr_is_uniform():
    dropped = torch.full_like(LOGITS, -math.inf)
    torch.testing.assert_close(masked_log_prob(LOGITS, dropped), LOGITS.log_softmax(-1))
    uniform = masked_log_prob(LOGITS, dropped, form="iclr").exp()
    torch.testing.assert_close(uniform, torch.full_like(LOGITS, 0.2))


def test_a_shift_of_the_logits_changes_only_the_iclr_form():
    log_mask = torch.tensor([0.0, -1.0, -3.0, -math.inf, -0.1], dtype=torch.float64)
    gap = {
        form: (
            masked_log_prob(LOGITS + 5.0, log_mask, form=form, eps=1e-3)
            - masked_log_prob(LOGITS, log_mask, form=form, eps=1e-3)
        )
        .abs()
        .max()
        for form in FORMS
    }
    assert gap["neurips"] < 1e-14
    assert gap["iclr"] > 1e-2


def test_a_dropped_class_far_above_the_others_comes_back_in_the_neurips_form_only():
    logits = torch.tensor([60.0, 0.0, 0.0])
    log_mask = torch.tensor([-math.inf, 0.0, 0.0])
    assert masked_log_prob(logits, log_mask, form="neurips").exp()[0] > 0.99
    assert masked_log_prob(logits, log_mask, form="iclr").exp()[0] < 1e-19


@pytest.mark.parametrize("o_gap", [-3.0, 0.5, 8.0])
def test_two_classes_have_the_closed_form_mean_over_masks(o_gap):
    r1, r2, sigmoid = 0.3, 0.85, 1 / (1 + math.exp(-o_gap))
    z = all_masks(2)
    weight = mask_probability(z, np.array([r1, r2]))
    logits = torch.tensor([o_gap, 0.0], dtype=torch.float64)
    log_masks = torch.from_numpy(z).log()
    mean = {
        form: float(weight @ masked_log_prob(logits, log_masks, form=form).exp()[:, 0].numpy())
        for form in FORMS
    }
    both_or_none = r1 * r2 + (1 - r1) * (1 - r2)
    assert mean["neurips"] == pytest.approx(both_or_none * sigmoid + r1 * (1 - r2), abs=1e-14)
    iclr = r1 * r2 * sigmoid + r1 * (1 - r2) + 0.5 * (1 - r1) * (1 - r2)
    assert mean["iclr"] == pytest.approx(iclr, abs=1e-14)


def test_dropping_other_classes_never_raises_the_cross_entropy():
    log_masks = retain_target(
        torch.from_numpy(all_masks(5)).log(), torch.full((32,), 2, dtype=torch.int64)
    )
    loss = -masked_log_prob(LOGITS, log_masks)[:, 2]
    softmax_loss = -LOGITS.log_softmax(-1)[2]
    assert (loss <= softmax_loss + 1e-14).all()
    kept = log_masks.exp().sum(-1)
    torch.testing.assert_close(loss[kept == 5], softmax_loss.expand(2))
    assert (loss[kept == 1].abs() < 1e-18).all()


# --- masks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("rho", [0.1, 0.5, 0.93])
def test_a_relaxed_mask_is_above_one_half_with_the_retain_probability(rho, temperature):
    trials = 100_000
    retain_logits = torch.full((trials,), math.log(rho / (1 - rho)))
    log_mask = concrete_log_mask(retain_logits, temperature=temperature, generator=generator())
    low, high = binom.interval(1 - 1e-6, trials, rho)
    assert low <= int((log_mask > math.log(0.5)).sum()) <= high


@pytest.mark.parametrize(
    ("rho", "mean", "variance"), [(0.1, 0.10118, None), (0.3, 0.30136, None), (0.5, 0.5, 0.2252)]
)
def test_mean_and_variance_of_relaxed_masks_at_temperature_one_tenth(rho, mean, variance):
    # The midpoints of the unit interval in place of chance: an integral, not a sample.
    uniform = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    retain_logits = torch.full_like(uniform, math.log(rho / (1 - rho)))
    z = concrete_log_mask(retain_logits, temperature=0.1, noise=uniform.logit()).exp()
    assert z.mean().item() == pytest.approx(mean, abs=6e-6)
    if variance is not None:
        assert z.var().item() == pytest.approx(variance, abs=6e-5)


def test_relaxed_masks_are_hard_when_cold_and_one_half_when_hot():
    noise = logistic_noise(RETAIN_LOGITS.expand(50, 5), generator=generator())
    rows = RETAIN_LOGITS.expand(50, 5)
    cold = concrete_log_mask(rows, temperature=1e-6, noise=noise)
    torch.testing.assert_close(cold.exp(), bernoulli_log_mask(rows, noise=noise).exp())
    hot = concrete_log_mask(rows, temperature=1e9, noise=noise)
    torch.testing.assert_close(hot.exp(), torch.full_like(hot, 0.5))
    softmax = LOGITS.log_softmax(-1).expand(50, 5)
    torch.testing.assert_close(masked_log_prob(LOGITS, hot), softmax, rtol=0, atol=1e-7)


def test_noise_is_logistic_finite_and_reproducible():
    noise = logistic_noise(torch.empty(100_000), generator=generator())
    assert noise.isfinite().all()
    # mean 0, variance pi^2 / 3, fourth moment 7 pi^4 / 15; six standard errors.
    assert abs(noise.mean()) < 6 * math.sqrt(math.pi**2 / 3 / 100_000)
    spread = math.sqrt((7 / 15 - 1 / 9) * math.pi**4 / 100_000)
    assert abs(noise.square().mean() - math.pi**2 / 3) < 6 * spread
    assert torch.equal(noise, logistic_noise(torch.empty(100_000), generator=generator()))
    assert not torch.equal(noise, logistic_noise(torch.empty(100_000), generator=generator(4)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_noise_for_half_precision_is_drawn_in_float32(dtype):
    assert logistic_noise(torch.empty(3, dtype=dtype)).dtype == torch.float32


def test_a_uniform_draw_of_exactly_zero_gives_finite_noise(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, **_: self.zero_())
    assert logistic_noise(torch.empty(4)).isfinite().all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("noise", [-math.inf, math.inf])
def test_infinite_noise_gives_finite_loss_and_gradient(noise, form):
    logits = LOGITS.float().requires_grad_()
    retain_logits = RETAIN_LOGITS.float().requires_grad_()
    log_mask = concrete_log_mask(retain_logits, noise=torch.full((5,), noise))
    loss = -masked_log_prob(logits, retain_target(log_mask, torch.tensor(1)), form=form)[1]
    gradients = torch.autograd.grad(loss, (logits, retain_logits))
    assert all(value.isfinite().all() for value in (loss, *gradients))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shift", [-60.0, 100.0, 1e4, -1e4])
def test_equal_logits_of_any_size_cost_log_k(shift, form):
    logits = torch.full((10,), shift, requires_grad=True)
    loss = -masked_log_prob(logits, torch.zeros(10), form=form)[3]
    loss.backward()
    assert loss.item() == pytest.approx(math.log(10), rel=1e-6)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_extreme_logits_and_retain_logits_stay_finite(form):
    o = torch.tensor([1e4, -1e4, 0.0, 100.0, -60.0], requires_grad=True)
    a = torch.tensor([-1e4, 1e4, 100.0, -20.0, 20.0], requires_grad=True)
    log_mask = retain_target(concrete_log_mask(a, noise=torch.zeros(5)), torch.tensor(2))
    loss = -masked_log_prob(o, log_mask, form=form)[2] - plug_in_log_prob(o, a, form=form)[2]
    loss.backward()
    assert loss.isfinite()
    assert o.grad.isfinite().all()
    assert a.grad.isfinite().all()


# --- averages over masks -----------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_samples", [4, 64])
def test_monte_carlo_error_is_the_spread_over_masks_divided_by_root_s(form, num_samples):
    weight, prob = enumerated(form)
    exact = weight @ prob
    variance = weight @ (prob - exact) ** 2
    repeats = 4000
    rows = RETAIN_LOGITS.expand(repeats, 5)
    estimate = monte_carlo_log_prob(
        LOGITS.expand(repeats, 5), rows, num_samples=num_samples, form=form, generator=generator()
    ).exp()
    standard_error = np.sqrt(variance / num_samples / repeats)
    assert (np.abs(estimate.mean(0).numpy() - exact) < 6 * standard_error).all()
    # A sample variance of near-normal values scatters by sqrt(2 / repeats); six of these.
    ratio = estimate.var(0).numpy() / (variance / num_samples)
    np.testing.assert_allclose(ratio, 1.0, atol=6 * math.sqrt(2 / repeats))


def test_monte_carlo_averages_probabilities_not_their_logarithms():
    noise = logistic_noise(RETAIN_LOGITS.expand(20, 5), generator=generator())
    mean = monte_carlo_log_prob(LOGITS, RETAIN_LOGITS, num_samples=20, noise=noise)
    z = (RETAIN_LOGITS + noise > 0).double()
    prob = naive_prob(LOGITS.numpy(), z.numpy(), "neurips", 1e-20)
    np.testing.assert_allclose(mean.exp(), prob.mean(0), rtol=1e-12)
    assert (-mean.numpy() < -np.log(prob).mean(0)).all()


def test_blocks_of_masks_do_not_change_the_monte_carlo_average(monkeypatch):
    noise = logistic_noise(RETAIN_LOGITS.expand(7, 5), generator=generator())
    whole = monte_carlo_log_prob(LOGITS, RETAIN_LOGITS, num_samples=7, noise=noise)
    monkeypatch.setattr("lastlayer.functional.dropmax.probability._MONTE_CARLO_BLOCK", 15)
    blocks = monte_carlo_log_prob(LOGITS, RETAIN_LOGITS, num_samples=7, noise=noise)
    torch.testing.assert_close(blocks, whole, rtol=1e-13, atol=0)


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: masked_log_prob(LOGITS, LOGITS, form="nips"), ValueError, "form must be one of"),
        (lambda: masked_log_prob(LOGITS, LOGITS, eps=0.0), ValueError, "eps must be"),
        (lambda: masked_log_prob(torch.arange(3), torch.zeros(3)), TypeError, "logits must have a"),
        (lambda: concrete_log_mask(LOGITS, temperature=0.0), ValueError, "temperature must be"),
        (lambda: monte_carlo_log_prob(LOGITS, LOGITS, num_samples=0), ValueError, "num_samples"),
        (
            lambda: monte_carlo_log_prob(LOGITS, LOGITS, num_samples=2, noise=torch.zeros(3, 5)),
            ValueError,
            r"noise must have shape \(2, 5\); got \(3, 5\)",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
