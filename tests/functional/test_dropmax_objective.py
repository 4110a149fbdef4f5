"""The objective in one pass against the composition of its functions in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from lastlayer.functional.dropmax.objective import composed_rows, objective_rows

TARGET = torch.tensor([2, 0, 1])
TERMS = ("nll", "kl", "entropy", "auxiliary")


def example(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 4, generator=generator, dtype=torch.float64)


def gradients(rows, inputs) -> list[torch.Tensor]:
    weights = torch.arange(1.0, 13.0, dtype=torch.float64).reshape(4, 3).to(rows.nll.dtype)
    total = sum((weight * value).sum() for weight, value in zip(weights, rows, strict=True))
    return list(torch.autograd.grad(total, inputs))


@pytest.mark.parametrize("with_correction", [True, False])
def test_values_and_gradients_are_those_of_the_composition(with_correction):
    o, a, r = (example(seed).requires_grad_() for seed in (0, 1, 2))
    correction, inputs = (r, (o, a, r)) if with_correction else (None, (o, a))
    noise = 0.2 * example(3) - a.detach() - (r.detach() if with_correction else 0)
    one = objective_rows(o, a, correction, TARGET, noise)
    other = composed_rows(o, a, correction, TARGET, noise, 0.1, 1e-20)
    for value, expected in zip(one, other, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)
    for gradient, expected in zip(gradients(one, inputs), gradients(other, inputs), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("term", TERMS)
def test_first_and_second_derivatives_agree_with_finite_differences(term):
    o, a, r = (example(seed).requires_grad_() for seed in (0, 1, 2))
    noise = example(3)

    def of_class_and_correction(logits, correction):
        rows = objective_rows(logits, a.detach(), correction, TARGET, noise, temperature=0.5)
        return getattr(rows, term) + 0 * (logits.sum() + correction.sum())

    def of_class_and_prior(logits, retain_logits):
        rows = objective_rows(logits, retain_logits, None, TARGET, noise, temperature=0.5)
        return getattr(rows, term) + 0 * (logits.sum() + retain_logits.sum())

    for function, inputs in ((of_class_and_correction, (o, r)), (of_class_and_prior, (o, a))):
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("size", [20.0, 100.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_finite_at_extreme_logits_and_noise(size, dtype):
    extreme = torch.tensor([-size, 0.0, size], dtype=dtype)
    o, a, r = (
        part.clone().requires_grad_() for part in torch.cartesian_prod(extreme, extreme, extreme).T
    )
    rows = [part.reshape(-1, 1).expand(-1, 2) for part in (o, a, r)]
    for noise in (-math.inf, 0.0, math.inf):
        for label in (0, 1):
            target = torch.full((27,), label)
            out = objective_rows(*rows, target, torch.full((27, 2), noise, dtype=dtype))
            assert all(value.isfinite().all() for value in out)
            for gradient in torch.autograd.grad(sum(v.sum() for v in out), (o, a, r)):
                assert gradient.isfinite().all()


def test_float32_values_are_within_stated_bounds_of_float64():
    grid = torch.linspace(-60, 60, 121)
    a, r = (part.reshape(-1, 1) for part in torch.cartesian_prod(grid, grid).T)
    a, r = (torch.cat([torch.zeros_like(part), part], 1) for part in (a, r))
    target, noise = torch.zeros(len(a), dtype=torch.int64), torch.zeros_like(a)
    low = objective_rows(a, a, r, target, noise)
    truth = composed_rows(a.double(), a.double(), r.double(), target, noise.double(), 0.1, 1e-20)
    # The divergence is a difference of numbers as large as the logits: 1e-7 of 120.
    for name, bound in (("nll", 2e-5), ("kl", 1.2e-5), ("entropy", 2e-7), ("auxiliary", 8e-6)):
        gap = (getattr(low, name).double() - getattr(truth, name)).abs().max()
        assert gap < bound, name
