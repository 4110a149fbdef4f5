"""Noise per unit: shapes, distributions, memory format, reproducibility, errors."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from lastlayer.functional.feature_noise.units import (
    DISTRIBUTIONS,
    UNITS,
    draw_noise,
    multiply,
    per_channel,
    unit_shape,
)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("unit", "features", "expected"),
    [
        ("element", (), ()),
        ("element", (5,), (5,)),
        ("element", (2, 3, 4), (2, 3, 4)),
        ("channel", (2, 3), (2, 3)),
        ("channel", (2, 3, 4, 5, 6), (2, 3, 1, 1, 1)),
        ("example", (2,), (2,)),
        ("example", (2, 3, 4), (2, 1, 1)),
    ],
)
def test_a_unit_has_its_own_leading_dimensions(unit, features, expected):
    assert unit_shape(torch.empty(features), unit) == expected


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_noise_has_its_distribution(distribution):
    noise = draw_noise(torch.empty(20_000), "element", distribution, generator=generator())
    law = {"uniform": stats.uniform(), "normal": stats.norm(), "logistic": stats.logistic()}
    assert stats.kstest(noise.numpy(), law[distribution].cdf).pvalue > 1e-6


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_generator_repeats_its_noise_and_given_noise_is_taken(unit, distribution):
    features = torch.empty(2, 3, 4, 4)
    first, second = (
        draw_noise(features, unit, distribution, generator=generator()) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(draw_noise(features, unit, distribution, noise=first), first)


@pytest.mark.parametrize(
    ("dtype", "drawn"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_noise_is_at_least_float32(dtype, drawn, distribution):
    features = torch.ones(4, 3, dtype=dtype, requires_grad=True)
    noise = draw_noise(features, "element", distribution)
    assert noise.dtype == drawn
    assert not noise.requires_grad


def test_element_noise_takes_the_memory_format():
    features = torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last)
    noise = draw_noise(features, "element", "uniform")
    assert noise.is_contiguous(memory_format=torch.channels_last)


def test_a_product_with_half_precision_is_rounded_once():
    features = torch.randn(1000, generator=generator()).bfloat16()
    factor = torch.randn(1000, generator=generator(4))
    expected = (features.double() * factor.double()).bfloat16()
    assert torch.equal(multiply(features, factor), expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: unit_shape(torch.empty(2), "pixel"), ValueError, "unit must be one of"),
        (lambda: unit_shape(torch.empty(2), "channel"), ValueError, "at least 2 dimensions"),
        (lambda: unit_shape(torch.empty(()), "example"), ValueError, "at least 1 dimensions"),
        (
            lambda: draw_noise(torch.ones(2).long(), "element", "normal"),
            TypeError,
            "features must have a floating-point dtype",
        ),
        (
            lambda: draw_noise(torch.ones(2), "element", "cauchy"),
            ValueError,
            "distribution must be one of",
        ),
        (
            lambda: draw_noise(torch.ones(2, 3), "example", "normal", noise=torch.ones(2)),
            ValueError,
            r"noise must have shape \(2, 1\); got \(2,\)",
        ),
        (
            lambda: per_channel(torch.ones(3), torch.ones(2, 4)),
            ValueError,
            r"features must have shape \(N, 3, ...\); got \(2, 4\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
