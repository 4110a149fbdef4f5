"""Concrete dropout: the mask, its limit and rate, its cost against the authors' formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from lastlayer.functional.feature_noise import (
    concrete_dropout,
    concrete_dropout_kl,
    unit_dropout,
    unit_shape,
)
from lastlayer.functional.feature_noise.units import UNITS

SHAPE = (4, 3, 5, 2)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def logistic(unit: str, seed: int = 3) -> torch.Tensor:
    shape = unit_shape(torch.empty(SHAPE), unit)
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64).logit()


def as_logit(p: float) -> torch.Tensor:
    return torch.tensor(logit(p), dtype=torch.float64)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_concrete_dropout_is_the_papers_formula(unit, p, temperature):
    features, noise = torch.randn(SHAPE, dtype=torch.float64), logistic(unit)
    out = concrete_dropout(features, as_logit(p), temperature=temperature, unit=unit, noise=noise)
    drop = expit((logit(p) + noise.numpy()) / temperature)
    expected = features.numpy() * (1 - drop) / (1 - p)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_more_than_half_of_a_unit_is_lost_at_the_rate(p):
    count = 50_000
    out = concrete_dropout(torch.ones(count, 1), as_logit(p), generator=generator())
    lost = (out.double() * (1 - p) < 0.5).double().mean().item()
    assert abs(lost - p) / math.sqrt(p * (1 - p) / count) < 5


def test_a_cold_mask_is_dropouts():
    features, noise = torch.randn(SHAPE, dtype=torch.float64), logistic("element")
    cold = concrete_dropout(features, as_logit(0.3), temperature=1e-6, unit="element", noise=noise)
    # The same mask by u' = 1 - u: large logistic numbers drop here, small uniform ones there.
    hard = unit_dropout(features, 0.3, noise=torch.sigmoid(-noise))
    torch.testing.assert_close(cold, hard)


def test_the_mean_mask_at_one_tenth_is_a_little_below_dropouts():
    # Midpoints of the unit interval in place of chance: an integral, not a sample.
    uniform = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    out = concrete_dropout(
        torch.ones(100_000, 1).double(), as_logit(0.1), noise=uniform.logit()[:, None]
    )
    assert out.mean().item() * 0.9 == pytest.approx(0.8988, abs=6e-5)


@pytest.mark.parametrize("unit", UNITS)
def test_gradients_are_those_of_finite_differences(unit):
    features = torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
    p_logit = torch.tensor(-0.7, dtype=torch.float64, requires_grad=True)
    noise = logistic(unit)
    assert torch.autograd.gradcheck(
        lambda x, a: concrete_dropout(x, a, temperature=0.5, unit=unit, noise=noise),
        (features, p_logit),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_dtype_and_accuracy(dtype):
    features, noise = torch.randn(SHAPE).to(dtype), logistic("element").float()
    p_logit = torch.tensor(-1.0)
    out = concrete_dropout(features, p_logit, unit="element", noise=noise)
    exact = concrete_dropout(
        features.double(), p_logit.double(), unit="element", noise=noise.double()
    )
    assert out.dtype == dtype
    error = (out.double() - exact).abs()
    assert (error <= 0.6 * torch.finfo(dtype).eps * exact.abs() + torch.finfo(dtype).tiny).all()


@pytest.mark.parametrize("unit", UNITS)
def test_the_memory_format_is_kept(unit):
    features = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    out = concrete_dropout(features, torch.tensor(0.0), unit=unit)
    assert out.stride() == features.stride()


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("precision", [1.0, 4.0])
def test_the_cost_is_that_of_the_authors_program_in_its_units(p, precision):
    """Theirs goes with a mean squared error, 2 / tau times the negative log-likelihood."""
    weight = torch.randn(5, 7, dtype=torch.float64)
    examples, length_scale, features = 50, 0.1, 7
    ours = concrete_dropout_kl(as_logit(p), features, weight=weight, length_scale=length_scale)
    weight_term = length_scale**2 / (precision * examples) * weight.square().sum().item() / (1 - p)
    entropy_term = p * math.log(p) + (1 - p) * math.log(1 - p)
    theirs = weight_term + 2 / (precision * examples) * features * entropy_term
    assert 2 / precision * ours.item() / examples == pytest.approx(theirs, rel=1e-12)


def test_without_a_weight_the_cost_is_the_entropy():
    kl = concrete_dropout_kl(torch.tensor(0.0, dtype=torch.float64), 10)
    assert kl.item() == pytest.approx(-10 * math.log(2), abs=1e-14)


@pytest.mark.parametrize("p_logit", [-80.0, 80.0])
def test_the_cost_of_an_extreme_rate_is_finite(p_logit):
    p_logit = torch.tensor(p_logit, requires_grad=True)
    kl = concrete_dropout_kl(p_logit, 10)
    assert kl.isfinite()
    assert torch.autograd.grad(kl, p_logit)[0].isfinite()


def test_gradients_of_the_cost_are_those_of_finite_differences():
    p_logit = torch.tensor(-0.7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, w: concrete_dropout_kl(a, 3, weight=w, length_scale=0.5), (p_logit, weight)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: concrete_dropout(torch.ones(2, 3), torch.zeros(3)), "p_logit must be a 0-d"),
        (
            lambda: concrete_dropout(torch.ones(2, 3), torch.tensor(0.0), temperature=0.0),
            "temperature must be a finite number above 0",
        ),
        (lambda: concrete_dropout_kl(torch.tensor(0.0), 0), "num_features must be a whole"),
        (
            lambda: concrete_dropout_kl(torch.tensor(0.0), 3, length_scale=-1.0),
            "length_scale must be a finite number above 0",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
