"""The divergence from the log-uniform prior against integration and against an exact series."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from lastlayer.functional.feature_noise import KL_APPROXIMATIONS, log_uniform_kl

GRID = np.linspace(-7.5, 7.5, 61)


def by_integration(log_alpha: float) -> float:
    """E log|s| for s ~ N(1, alpha), in z = log|s| for either sign, where nothing is singular."""
    deviation = np.exp(0.5 * log_alpha)
    law = stats.norm(1, deviation)

    def integrand(z: float) -> float:
        s = np.exp(z)
        return z * s * (law.pdf(s) + law.pdf(-s))

    top = np.log(1 + 12 * deviation)
    center = np.log1p(deviation)
    mean, _ = integrate.quad(integrand, -60, top, points=[-2.0, 0.0, center], limit=2000)
    return mean - 0.5 * log_alpha + 0.5 * (np.euler_gamma + np.log(2))


def by_series(log_alpha: float) -> float:
    """s^2 / alpha is noncentral chi-square: a Poisson mixture of chi-squares with known E log."""
    rate = 0.5 * np.exp(-log_alpha)
    terms = np.arange(int(rate + 40 * np.sqrt(rate) + 60))
    weight = stats.poisson.pmf(terms, rate)
    return 0.5 * float(weight @ (special.digamma(0.5 + terms) - special.digamma(0.5)))


EXACT = np.array([by_series(value) for value in GRID])


def approximated(approximation: str) -> np.ndarray:
    return log_uniform_kl(torch.from_numpy(GRID), approximation=approximation).numpy()


def test_the_two_exact_values_agree():
    integrals = np.array([by_integration(value) for value in GRID[::4]])
    np.testing.assert_allclose(integrals, EXACT[::4], atol=1e-7)


def test_the_sigmoid_form_is_within_its_papers_accuracy_at_every_alpha():
    error = np.abs(approximated("molchanov") - EXACT)
    assert 0.009 < error.max() < 0.0095  # the paper says 0.009


def test_the_cubic_form_is_within_two_hundredths_up_to_a_constant_for_alpha_up_to_one():
    below = GRID <= 0
    error = (approximated("kingma") - EXACT)[below]
    assert error.min() > -0.041
    assert error.max() < 1e-5
    assert np.ptp(error) / 2 < 0.021


def test_the_cubic_form_is_of_no_use_above_one():
    assert abs(approximated("kingma")[-1] - EXACT[-1]) > 1e6


@pytest.mark.parametrize("approximation", KL_APPROXIMATIONS)
def test_small_alpha_costs_half_a_nat_per_unit_of_log_alpha(approximation):
    far = torch.tensor([-30.0, -40.0], dtype=torch.float64)
    kl = log_uniform_kl(far, approximation=approximation)
    assert (kl[1] - kl[0]).item() == pytest.approx(5.0, abs=1e-9)
    assert kl[0].item() == pytest.approx(by_series(-12.0) + 9.0, abs=2e-3)


def test_large_alpha_costs_nothing_and_never_less():
    kl = log_uniform_kl(torch.linspace(-50, 200, 501))
    assert (kl >= 0).all()
    assert (kl.diff() <= 0).all()
    assert kl[-1] == 0


@pytest.mark.parametrize("approximation", KL_APPROXIMATIONS)
def test_gradients_are_those_of_finite_differences(approximation):
    log_alpha = torch.linspace(-5, 0, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a: log_uniform_kl(a, approximation=approximation), log_alpha
    )


@pytest.mark.parametrize("approximation", KL_APPROXIMATIONS)
def test_the_slope_is_that_of_the_exact_divergence_within_a_tenth(approximation):
    grid = np.linspace(-6, 0, 25)
    log_alpha = torch.tensor(grid, requires_grad=True)
    kl = log_uniform_kl(log_alpha, approximation=approximation)
    slope = torch.autograd.grad(kl.sum(), log_alpha)[0].numpy()
    exact = [(by_series(v + 1e-4) - by_series(v - 1e-4)) / 2e-4 for v in grid]
    assert np.abs(slope - exact).max() < 0.1


def test_half_precision_is_computed_in_float32():
    kl = log_uniform_kl(torch.tensor([-1.0, 2.0], dtype=torch.bfloat16))
    torch.testing.assert_close(kl, log_uniform_kl(torch.tensor([-1.0, 2.0])), rtol=0, atol=0)


def test_an_unknown_approximation_is_refused():
    with pytest.raises(ValueError, match="approximation must be one of 'kingma', 'molchanov'"):
        log_uniform_kl(torch.zeros(1), approximation="taylor")
