"""Multiplicative Gaussian noise: formula, moments, gradients, low precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lastlayer.functional.feature_noise import gaussian_dropout, unit_shape, variational_dropout
from lastlayer.functional.feature_noise.units import UNITS

SHAPE = (4, 3, 5, 2)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(unit: str) -> torch.Tensor:
    shape = unit_shape(torch.empty(SHAPE), unit)
    return torch.randn(shape, generator=generator(), dtype=torch.float64)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, torch.tensor(0.3, dtype=torch.float64)])
def test_gaussian_dropout_is_the_formula(unit, p):
    features, noise = torch.randn(SHAPE, dtype=torch.float64), normal(unit)
    out = gaussian_dropout(features, p, unit=unit, noise=noise)
    factor = 1 + math.sqrt(float(p) / (1 - float(p))) * noise.numpy()
    np.testing.assert_allclose(out.numpy(), features.numpy() * factor, rtol=1e-14)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.8])
def test_the_factor_is_normal_with_mean_one_and_dropouts_variance(p):
    factor = gaussian_dropout(torch.ones(20_000), p, generator=generator())
    law = stats.norm(1, math.sqrt(p / (1 - p)))
    assert stats.kstest(factor.numpy(), law.cdf).pvalue > 1e-6


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("log_alpha", [-3.0, 0.0, 1.5])
def test_variational_dropout_is_gaussian_dropout_at_its_rate(unit, log_alpha):
    features, noise = torch.randn(SHAPE, dtype=torch.float64), normal(unit)
    alpha = math.exp(log_alpha)
    learned = variational_dropout(
        features, torch.full((3,), log_alpha, dtype=torch.float64), unit=unit, noise=noise
    )
    fixed = gaussian_dropout(features, alpha / (1 + alpha), unit=unit, noise=noise)
    torch.testing.assert_close(learned, fixed, rtol=1e-13, atol=1e-14)


def test_every_channel_has_its_own_variance():
    log_alpha = torch.tensor([-4.0, -1.0, 1.0])
    out = variational_dropout(torch.ones(40_000, 3), log_alpha, generator=generator())
    # The variance of n normal numbers has standard error sqrt(2 / n), relatively.
    ratio = out.var(0) / log_alpha.exp()
    assert ((ratio - 1).abs() < 5 * math.sqrt(2 / 40_000)).all()
    assert ((out.mean(0) - 1).abs() < 5 * (log_alpha / 2).exp() / 200).all()


def test_channel_noise_is_noise_on_the_weights_that_read_the_channel():
    """One draw per channel and example is a linear layer whose weights are w(1 + sd e)."""
    weight = torch.randn(4, 3, dtype=torch.float64)
    features, log_alpha = torch.randn(1, 3, dtype=torch.float64), torch.randn(3).double()
    noise = torch.randn(1, 3, dtype=torch.float64)
    out = variational_dropout(features, log_alpha, noise=noise) @ weight.T
    noisy_weight = weight * (1 + (log_alpha / 2).exp() * noise)
    torch.testing.assert_close(out, features @ noisy_weight.T)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_gradients_are_those_of_finite_differences(unit, channels):
    features = torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
    log_alpha = torch.randn(channels, dtype=torch.float64, requires_grad=True)
    noise = normal(unit)
    assert torch.autograd.gradcheck(
        lambda x, a: variational_dropout(x, a, unit=unit, noise=noise), (features, log_alpha)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("unit", UNITS)
def test_half_precision_is_rounded_only_once(dtype, unit):
    features = torch.randn(SHAPE, generator=generator()).to(dtype)
    noise = normal(unit).float()
    out = gaussian_dropout(features, 0.3, unit=unit, noise=noise)
    exact = gaussian_dropout(features.double(), 0.3, unit=unit, noise=noise.double())
    assert out.dtype == dtype
    error = (out.double() - exact).abs()
    assert (error <= 0.51 * torch.finfo(dtype).eps * exact.abs() + torch.finfo(dtype).tiny).all()


@pytest.mark.parametrize("unit", UNITS)
def test_the_memory_format_is_kept(unit):
    features = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert gaussian_dropout(features, 0.5, unit=unit).stride() == features.stride()
    out = variational_dropout(features, torch.zeros(3), unit=unit)
    assert out.stride() == features.stride()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_stay_where_they_are(bad):
    features = torch.ones(3, 4)
    features[1, 2] = bad
    out = gaussian_dropout(features, 0.5, generator=generator())
    assert (~out.isfinite()).nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("p", [-0.1, 1.0, 2.0])
def test_a_rate_without_a_variance_is_refused(p):
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1"):
        gaussian_dropout(torch.ones(2), p)


def test_a_wrong_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"features must have shape \(N, 4, ...\)"):
        variational_dropout(torch.ones(2, 3), torch.zeros(4))
