"""Standout: keep probabilities, rates per unit, gradients, hostile values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import expit

from lastlayer.functional.feature_noise import standout, standout_keep_probability


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.0, 0.0), (2.0, -1.0), (-0.5, 3.0)])
def test_the_keep_probability_is_the_formula(alpha, beta):
    activation = torch.randn(4, 5, dtype=torch.float64)
    keep = standout_keep_probability(activation, alpha=alpha, beta=beta)
    np.testing.assert_allclose(keep.numpy(), expit(alpha * activation.numpy() + beta), rtol=1e-14)


def test_every_unit_is_kept_at_its_own_rate_and_unscaled():
    count = 40_000
    activation = torch.tensor([-2.0, -0.5, 0.0, 1.0, 3.0])
    features = torch.arange(1.0, 6.0)
    keep = standout_keep_probability(activation).expand(count, 5)
    out = standout(features.expand(count, 5), keep, generator=generator())
    assert torch.equal(out.amax(0), features)
    rate, probability = (out != 0).double().mean(0), keep[0].double()
    z = (rate - probability) / (probability * (1 - probability) / count).sqrt()
    assert z.abs().max() < 5


def test_the_expectation_is_the_product():
    keep = torch.rand(6, generator=generator(), dtype=torch.float64)
    features = torch.randn(6, dtype=torch.float64)
    # Midpoints of the unit interval in place of chance.
    noise = ((torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000)[:, None].expand(-1, 6)
    out = standout(features.expand(10_000, 6), keep.expand(10_000, 6), noise=noise)
    torch.testing.assert_close(out.mean(0), keep * features, rtol=0, atol=1e-3)


def test_gradients_pass_kept_units_only_and_do_not_reach_the_probability():
    features = torch.randn(50, requires_grad=True)
    keep = torch.rand(50, generator=generator()).requires_grad_()
    out = standout(features, keep, generator=generator(4))
    kept = out != 0
    assert 0 < kept.sum() < 50
    gradient = torch.autograd.grad(out.sum(), features)[0]
    assert torch.equal(gradient, kept.float())
    assert torch.autograd.grad(standout(features, keep).sum(), keep, allow_unused=True) == (None,)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_zero_when_dropped(bad):
    out = standout(torch.full((2,), bad), torch.tensor([0.0, 1.0]), noise=torch.tensor([0.5, 0.5]))
    assert out[0] == 0
    assert not out[1].isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_decides_in_float32(dtype):
    activation = torch.randn(3, 4).to(dtype)
    keep = standout_keep_probability(activation)
    assert torch.equal(keep, standout_keep_probability(activation.float()))
    assert standout(activation, keep).dtype == dtype


def test_the_memory_format_is_kept():
    features = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert standout(features, features.sigmoid()).stride() == features.stride()


def test_a_probability_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"keep_probability must have the features' shape \(2, 3"):
        standout(torch.ones(2, 3), torch.ones(3))
