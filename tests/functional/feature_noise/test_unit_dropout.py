"""Dropout by element, channel and example: rates, exactness, gradients, hostile values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.functional.feature_noise import unit_dropout, unit_shape
from lastlayer.functional.feature_noise.units import UNITS

SHAPE = (4, 3, 5, 2)
HALF = (torch.bfloat16, torch.float16)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(unit: str, shape: tuple[int, ...] = SHAPE, seed: int = 3) -> torch.Tensor:
    return torch.rand(
        unit_shape(torch.empty(shape), unit), generator=generator(seed), dtype=torch.float64
    )


def tensor_or_number(p: float, as_tensor: bool) -> float | torch.Tensor:
    return torch.tensor(p, dtype=torch.float64) if as_tensor else p


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("unit", UNITS)
@settings(max_examples=25)
@given(p=st.floats(0, 1), seed=st.integers(0, 1000))
def test_dropout_is_the_formula(unit, as_tensor, p, seed):
    features = torch.randn(SHAPE, generator=generator(seed), dtype=torch.float64)
    noise = uniform(unit, seed=seed)
    out = unit_dropout(features, tensor_or_number(p, as_tensor), unit=unit, noise=noise)
    kept = np.broadcast_to(noise.numpy() >= p, SHAPE)
    expected = np.where(kept, features.numpy() / (1 - p if p < 1 else 1), 0.0)
    np.testing.assert_array_equal(out.numpy(), expected)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("p", [0.03, 0.5, 0.9])
def test_units_are_dropped_at_the_rate_and_independently(unit, p):
    features = torch.ones(300, 60, 2)
    out = unit_dropout(features, p, unit=unit, generator=generator())
    dropped = (out == 0).float()
    of_units = {"element": dropped, "channel": dropped[..., 0], "example": dropped[:, 0, 0]}[unit]
    count = of_units.numel()
    z = (of_units.mean().item() - p) / math.sqrt(p * (1 - p) / count)
    assert abs(z) < 5
    # Neighboring units agree as often as independent ones.
    flat = of_units.flatten()
    agree = (flat[1:] == flat[:-1]).float().mean().item()
    expected = p**2 + (1 - p) ** 2
    spread = math.sqrt(3 * expected * (1 - expected) / count)  # neighbors overlap
    assert abs(agree - expected) < 5 * spread


@pytest.mark.parametrize("unit", ["channel", "example"])
def test_a_unit_is_kept_or_dropped_as_a_whole(unit):
    out = unit_dropout(torch.ones(50, 20, 3, 3), 0.5, unit=unit, generator=generator())
    dims = (2, 3) if unit == "channel" else (1, 2, 3)
    assert torch.equal(out.amin(dims), out.amax(dims))


def test_the_mean_over_draws_is_the_input():
    features = torch.randn(10, generator=generator(), dtype=torch.float64)
    draws, p = 40_000, 0.4
    out = unit_dropout(features.expand(draws, 10), p, generator=generator())
    spread = features.abs() * math.sqrt(p / (1 - p) / draws)
    assert ((out.mean(0) - features).abs() < 5 * spread).all()


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("unit", UNITS)
def test_everything_dropped_is_zero_and_so_is_its_gradient(unit, as_tensor):
    features = torch.randn(SHAPE, requires_grad=True)
    out = unit_dropout(features, tensor_or_number(1.0, as_tensor), unit=unit)
    assert (out == 0).all()
    assert (torch.autograd.grad(out.sum(), features)[0] == 0).all()


@pytest.mark.parametrize("as_tensor", [False, True])
def test_nothing_dropped_is_the_input_bit_for_bit(as_tensor):
    features = torch.tensor([-0.0, 0.0, math.inf, -math.inf, math.nan, 1e-45, 3.4e38])
    out = unit_dropout(features, tensor_or_number(0.0, as_tensor))
    assert torch.equal(out.view(torch.int32), features.view(torch.int32))


@pytest.mark.parametrize("unit", UNITS)
def test_gradients_are_those_of_finite_differences(unit):
    features = torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
    noise = uniform(unit)
    assert torch.autograd.gradcheck(
        lambda x: unit_dropout(x, 0.4, unit=unit, noise=noise), features
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("unit", UNITS)
def test_values_that_are_not_finite_stay_where_they_are_and_vanish_when_dropped(unit, bad):
    noise = uniform(unit)
    clean = torch.randn(SHAPE)
    features = clean.clone()
    features[1] = bad
    features.requires_grad_()
    out = unit_dropout(features, 0.5, unit=unit, noise=noise)
    others = [0, 2, 3]
    assert torch.equal(out[others], unit_dropout(clean, 0.5, unit=unit, noise=noise)[others])
    dropped = (noise < 0.5).expand(SHAPE)
    assert dropped[1].any()
    assert (out[dropped] == 0).all()
    upstream = torch.full(SHAPE, bad)
    gradient = torch.autograd.grad(out, features, upstream)[0]
    assert (gradient[dropped] == 0).all()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_half_precision_is_the_rounded_exact_value(dtype, as_tensor):
    features = torch.randn(SHAPE, generator=generator()).to(dtype)
    noise = uniform("element")
    out = unit_dropout(features, tensor_or_number(0.1, as_tensor), noise=noise)
    assert out.dtype == dtype
    exact = unit_dropout(features.double(), 0.1, noise=noise)
    error = (out.double() - exact).abs()
    assert (error <= 0.51 * torch.finfo(dtype).eps * exact.abs()).all()


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_is_kept(unit, memory_format):
    features = torch.randn(2, 3, 4, 5).to(memory_format=memory_format)
    out = unit_dropout(features, 0.5, unit=unit)
    assert out.stride() == features.stride()


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3), (1, 1, 1, 1), (2, 3, 4, 5, 6)])
def test_any_shape_goes_through(unit, shape):
    assert unit_dropout(torch.ones(shape), 0.5, unit=unit).shape == shape


def test_the_input_is_not_changed():
    features = torch.ones(100)
    unit_dropout(features, 0.5)
    assert (features == 1).all()


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_a_rate_that_is_no_probability_is_refused(p):
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]"):
        unit_dropout(torch.ones(2), p)


def test_a_rate_of_several_numbers_is_refused():
    with pytest.raises(ValueError, match=r"p must be a number or a 0-d tensor; got \(2,\)"):
        unit_dropout(torch.ones(2), torch.tensor([0.1, 0.2]))
