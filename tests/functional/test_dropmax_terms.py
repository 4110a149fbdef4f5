"""DropMax's divergence, entropy and auxiliary loss against sums over probabilities."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from lastlayer.functional.dropmax import (
    auxiliary_loss,
    bernoulli_kl,
    concrete_log_mask,
    masked_log_prob,
    monte_carlo_log_prob,
    negative_entropy,
    plug_in_log_prob,
    retain_target,
    target_retention_loss,
)

EXTREMES = [-1e4, -100.0, -20.0, 20.0, 100.0, 1e4]
TARGET = torch.tensor([2, 0])

logit_rows = st.lists(st.floats(-12, 12), min_size=4, max_size=4)


def sigmoid(x) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x, dtype=np.float64)))


def naive_kl(g: np.ndarray, rho: np.ndarray, target: int) -> float:
    terms = g * np.log(g / rho) + (1 - g) * np.log((1 - g) / (1 - rho))
    terms[target] = -np.log(rho[target])
    return float(terms.sum())


def double(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def example(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- values ------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(a=logit_rows, r=logit_rows, target=st.integers(0, 3))
def test_divergence_in_logits_is_the_divergence_in_probabilities(a, r, target):
    kl = bernoulli_kl(double(r), double(a), torch.tensor(target)).item()
    expected = naive_kl(sigmoid(np.add(a, r)), sigmoid(a), target)
    # The naive sum loses digits of 1 - g near g = 1, up to exp(24) of them.
    assert kl == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert kl >= 0


@settings(max_examples=40)
@given(a=logit_rows, target=st.integers(0, 3))
def test_without_correction_the_divergence_is_that_of_the_target_alone(a, target):
    label = torch.tensor(target)
    kl = bernoulli_kl(torch.zeros(4, dtype=torch.float64), double(a), label).item()
    assert kl == pytest.approx(-math.log(sigmoid(a[target])), rel=1e-12)
    assert target_retention_loss(double(a), label).item() == pytest.approx(kl, rel=1e-12)


@pytest.mark.parametrize("r", [-3.0, -1e-3, 1e-3, 3.0])
def test_any_correction_of_a_non_target_costs_divergence_and_that_of_the_target_none(r):
    a, label = example(4), torch.tensor(1)
    plain = bernoulli_kl(torch.zeros(4, dtype=torch.float64), a, label)
    moved = double([0.0, 0.0, r, 0.0])
    assert bernoulli_kl(moved, a, label) > plain
    assert bernoulli_kl(moved, a, torch.tensor(2)) == target_retention_loss(a, torch.tensor(2))


@settings(max_examples=40)
@given(a=logit_rows, target=st.integers(0, 3))
def test_negative_entropy_is_its_sum_over_probabilities_and_bounded(a, target):
    rho = sigmoid(a)
    per_class = rho * np.log(rho) + (1 - rho) * np.log1p(-rho)
    value = negative_entropy(double(a)).item()
    assert value == pytest.approx(per_class.sum(), rel=1e-9)
    assert -4 * math.log(2) - 1e-12 <= value <= 0
    others = negative_entropy(double(a), torch.tensor(target), classes="non-target").item()
    assert others == pytest.approx(np.delete(per_class, target).sum(), rel=1e-9)


@settings(max_examples=40)
@given(r=logit_rows, target=st.integers(0, 3))
def test_auxiliary_loss_is_the_binary_cross_entropy_to_the_one_hot_label(r, target):
    p, y = sigmoid(r), np.eye(4)[target]
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum()
    assert auxiliary_loss(double(r), torch.tensor(target)).item() == pytest.approx(expected)


@pytest.mark.parametrize("num_classes", [1, 2, 10, 1000])
def test_with_zero_branches_the_terms_besides_the_cross_entropy_sum_to_log_2(num_classes):
    zero = torch.zeros(1, num_classes, dtype=torch.float64)
    label = torch.tensor([0])
    total = bernoulli_kl(zero, zero, label) + negative_entropy(zero) + auxiliary_loss(zero, label)
    assert total.item() == pytest.approx(math.log(2), abs=1e-10)


def test_the_objective_bounds_the_exact_marginal_likelihood_for_every_posterior():
    masks = np.array(list(itertools.product([0.0, 1.0], repeat=4)))
    rng = np.random.default_rng(0)
    slack = []
    for _ in range(100):
        o, a, r = rng.normal(0, 2, (3, 4))
        weight = (masks + 1e-20) * np.exp(o)
        likelihood = weight[:, 0] / weight.sum(1)
        marginal = np.where(masks == 1, sigmoid(a), 1 - sigmoid(a)).prod(1) @ likelihood
        q = np.where(masks == 1, sigmoid(a + r), 1 - sigmoid(a + r))[:, 1:].prod(1)
        kept = masks[:, 0] == 1
        expected_nll = q[kept] @ -np.log(likelihood[kept])
        kl = bernoulli_kl(double(r), double(a), torch.tensor(0)).item()
        slack.append(expected_nll + kl + np.log(marginal))
    assert min(slack) > -1e-12
    assert min(slack) < 0.5  # the bound is not idle


# --- extremes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("a", EXTREMES)
@pytest.mark.parametrize("r", [0.0, *EXTREMES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_terms_and_gradients_are_finite_at_extreme_logits(a, r, dtype):
    retain_logits = torch.full((1, 3), a, dtype=dtype, requires_grad=True)
    correction = torch.full((1, 3), r, dtype=dtype, requires_grad=True)
    label = torch.tensor([1])
    for value in (
        bernoulli_kl(correction, retain_logits, label),
        negative_entropy(retain_logits) + auxiliary_loss(correction, label),
    ):
        gradients = torch.autograd.grad(value.sum(), (retain_logits, correction), allow_unused=True)
        assert value.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("size", [20.0, 100.0, 1e4])
def test_a_target_sure_to_drop_costs_its_logit_and_a_sure_class_dropped_costs_its_own(size):
    zero = torch.zeros(1, 2)
    unlikely_target = torch.tensor([[-size, 0.0]])
    assert bernoulli_kl(zero, unlikely_target, torch.tensor([0])).item() == pytest.approx(size)
    # rho -> 1 on class 1, and its posterior g = sigmoid(a + r) -> 0; the sure target costs nothing.
    kl = bernoulli_kl(torch.tensor([[0.0, -3 * size]]), torch.full((1, 2), size), torch.tensor([0]))
    assert kl.item() == pytest.approx(size, rel=1e-6)


def test_float32_terms_keep_their_digits_over_the_whole_range_of_logits():
    a = torch.linspace(-60, 60, 241).expand(241, 241).reshape(-1, 1)
    r = torch.linspace(-60, 60, 241).repeat_interleave(241).reshape(-1, 1)
    pairs = [torch.cat([torch.zeros_like(a), a], 1), torch.cat([torch.zeros_like(a), r], 1)]
    label = torch.zeros(len(a), dtype=torch.int64)
    low = bernoulli_kl(pairs[1], pairs[0], label).double()
    truth = bernoulli_kl(pairs[1].double(), pairs[0].double(), label)
    torch.testing.assert_close(low, truth, rtol=3e-6, atol=3e-7)
    low, truth = negative_entropy(a).double(), negative_entropy(a.double())
    torch.testing.assert_close(low, truth, rtol=3e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_and_returned_in_float32(dtype):
    a, r = example(2, 5).to(dtype), example(2, 5, seed=1).to(dtype)
    for value, truth in (
        (bernoulli_kl(r, a, TARGET), bernoulli_kl(r.double(), a.double(), TARGET)),
        (negative_entropy(a), negative_entropy(a.double())),
        (auxiliary_loss(r, TARGET), auxiliary_loss(r.double(), TARGET)),
        (target_retention_loss(a, TARGET), target_retention_loss(a.double(), TARGET)),
        (plug_in_log_prob(r, a), plug_in_log_prob(r.double(), a.double())),
    ):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), truth, rtol=2e-6, atol=2e-6)


def test_entropy_of_the_non_targets_asks_for_the_target():
    with pytest.raises(ValueError, match="needs the target"):
        negative_entropy(torch.zeros(1, 3), classes="non-target")
    with pytest.raises(ValueError, match="classes must be one of"):
        negative_entropy(torch.zeros(1, 3), classes="target")


# --- derivatives -------------------------------------------------------------------------------

NOISE, PRIOR = example(2, 4, seed=5), example(2, 4, seed=6)
SMOOTH = {
    "kl by correction": lambda a, r: bernoulli_kl(r, PRIOR, TARGET) + 0 * a.sum(),
    "kl by both, nothing held": lambda a, r: bernoulli_kl(r, a, TARGET, held_prior=a),
    "target retention": lambda a, r: target_retention_loss(a, TARGET) + 0 * r.sum(),
    "entropy": lambda a, r: negative_entropy(a) + 0 * r.sum(),
    "entropy of non-targets": lambda a, r: (
        negative_entropy(a, TARGET, classes="non-target") + 0 * r.sum()
    ),
    "auxiliary": lambda a, r: auxiliary_loss(r, TARGET) + 0 * a.sum(),
    "nll, neurips": lambda a, r: masked_log_prob(
        r, retain_target(concrete_log_mask(a, temperature=0.5, noise=NOISE), TARGET)
    ),
    "nll, iclr": lambda a, r: masked_log_prob(
        r,
        retain_target(concrete_log_mask(a, temperature=0.5, noise=NOISE), TARGET),
        form="iclr",
        eps=1e-3,
    ),
    "plug-in": plug_in_log_prob,
    "monte carlo by logits": lambda a, r: (
        monte_carlo_log_prob(r, PRIOR, num_samples=2, noise=torch.stack([NOISE, -NOISE]))
        + 0 * a.sum()
    ),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_first_and_second_derivatives_agree_with_finite_differences(name):
    a, r = example(2, 4).requires_grad_(), example(2, 4, seed=1).requires_grad_()
    assert gradcheck(SMOOTH[name], (a, r))
    assert gradgradcheck(SMOOTH[name], (a, r))


def test_second_derivatives_at_a_retain_logit_of_exactly_zero_are_those_of_the_formula():
    a = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(negative_entropy(a).sum(), a, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), a)
    torch.testing.assert_close(slope, torch.zeros_like(a))
    # d/da of rho (1 - rho) a, at 0
    torch.testing.assert_close(curvature, torch.full_like(a, 0.25))


def test_the_prior_inside_the_posterior_is_held_constant_unless_it_is_given():
    a, r = example(2, 4).requires_grad_(), example(2, 4, seed=1)
    rho, g = a.detach().sigmoid(), (a.detach() + r).sigmoid()
    others = torch.ones_like(rho).scatter(1, TARGET[:, None], 0.0)
    pull = torch.where(others == 1, rho - g, rho - 1)
    through = others * g * (1 - g) * r
    held = torch.autograd.grad(bernoulli_kl(r, a, TARGET).sum(), a)[0]
    free = torch.autograd.grad(bernoulli_kl(r, a, TARGET, held_prior=a).sum(), a)[0]
    torch.testing.assert_close(held, pull)
    torch.testing.assert_close(free, pull + through)
