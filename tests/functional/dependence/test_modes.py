"""Tables, canonical dependence matrix, modes, alternating conditional expectations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from lastlayer.functional.dependence import (
    ace,
    ace_regression,
    class_mean_regressor,
    dependence_matrix,
    dependence_modes,
    joint_table,
    maximal_correlation,
)
from lastlayer.functional.dependence.ace import ace_sweep
from lastlayer.functional.dependence.modes import reduced_dependence


def chi_square_divergence(joint: torch.Tensor) -> torch.Tensor:
    return dependence_matrix(joint).square().sum()


def random_joint(rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    joint = torch.rand(rows, columns, generator=generator, dtype=torch.float64)
    return joint / joint.sum()


def symmetric_channel(num_values: int, error: float) -> torch.Tensor:
    off = error / (num_values - 1)
    channel = torch.full((num_values, num_values), off, dtype=torch.float64)
    return channel.fill_diagonal_(1 - error) / num_values


def erasure_channel(num_values: int, prob: float) -> torch.Tensor:
    kept = (1 - prob) * torch.eye(num_values, dtype=torch.float64)
    return torch.cat([kept, torch.full((num_values, 1), prob)], dim=1) / num_values


def normal_bins(rho: float, bins: int) -> torch.Tensor:
    """Two normal variables of correlation rho, each cut into equiprobable bins."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    u = (np.arange(bins)[:, None] + (nodes + 1) / 2) / bins
    x = stats.norm.ppf(u)
    edges = stats.norm.ppf(np.arange(bins + 1) / bins)
    given = stats.norm.cdf((edges - rho * x[..., None]) / math.sqrt(1 - rho**2))
    return torch.tensor((np.diff(given) * weights[:, None] / 2).sum(1) / bins)


@pytest.mark.parametrize(
    ("joint", "sigma"),
    [
        (symmetric_channel(2, 0.11), [1 - 0.11 * 2]),
        (symmetric_channel(4, 0.2), [1 - 0.2 * 4 / 3] * 3),
        (symmetric_channel(10, 0.3), [1 - 0.3 * 10 / 9] * 9),
        (erasure_channel(2, 0.3), [math.sqrt(0.7)]),
        (erasure_channel(5, 0.25), [math.sqrt(0.75)] * 4),
        (torch.eye(6), [1.0] * 5),
        (torch.ones(3, 5), [0.0] * 2),
    ],
    ids=["bsc", "4-ary", "10-ary", "bec", "5-ary erasure", "bijection", "independent"],
)
def test_correlations_of_channels_are_the_closed_forms(joint, sigma):
    modes = dependence_modes(joint)
    np.testing.assert_allclose(modes.sigma, sigma, atol=1e-14)
    np.testing.assert_allclose(chi_square_divergence(joint), np.square(sigma).sum(), atol=1e-13)
    np.testing.assert_allclose(maximal_correlation(joint), sigma[0], atol=1e-14)


@pytest.mark.parametrize(("classes", "error", "h1"), [(2, 0.11, 0.6084), (4, 0.2, 1.613333)])
def test_sum_of_squares_of_the_symmetric_channel_is_the_printed_value(classes, error, h1):
    joint = symmetric_channel(classes, error)
    assert float(chi_square_divergence(joint)) == pytest.approx(h1, abs=5e-7)


def test_correlations_of_binned_normals_are_the_measured_ones():
    sigma = dependence_modes(normal_bins(0.8, 64)).sigma[:4]
    np.testing.assert_allclose(sigma, [0.79792, 0.62095, 0.44838, 0.28680], atol=6e-6)


def test_finer_bins_of_normals_approach_the_powers_of_the_correlation():
    coarse, fine = (dependence_modes(normal_bins(0.5, n)).sigma[:3].numpy() for n in (16, 128))
    exact = 0.5 ** np.arange(1, 4)
    assert (np.abs(fine - exact) < np.abs(coarse - exact)).all()
    np.testing.assert_allclose(fine[0], 0.5, atol=1e-3)


@pytest.mark.parametrize(("mean", "total"), [(0.5, 0.204054), (1.0, 0.550400), (2.0, 0.931403)])
def test_correlation_of_two_normal_classes_is_the_printed_value(mean, total):
    x = np.linspace(-12, 12, 4001)
    density = np.stack([stats.norm.pdf(x, mean), stats.norm.pdf(x, -mean)], axis=1)
    assert float(chi_square_divergence(torch.tensor(density))) == pytest.approx(total, abs=1e-6)


@settings(max_examples=30)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 10_000))
def test_modes_are_the_svd_and_their_functions_obey_every_identity(rows, columns, seed):
    joint = random_joint(rows, columns, seed)
    p_x, p_y = joint.sum(1), joint.sum(0)
    sigma, f, g = dependence_modes(joint)
    k = min(rows, columns) - 1
    expected = linalg.svd(dependence_matrix(joint).numpy(), compute_uv=False)[:k]
    np.testing.assert_allclose(sigma, expected, atol=1e-13)
    eye = torch.eye(k, dtype=torch.float64)
    torch.testing.assert_close(p_x @ f, torch.zeros(k).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close((f.T * p_x) @ f, eye, atol=1e-12, rtol=0)
    torch.testing.assert_close((g.T * p_y) @ g, eye, atol=1e-12, rtol=0)
    torch.testing.assert_close(f.T @ joint @ g, torch.diag(sigma), atol=1e-12, rtol=0)
    torch.testing.assert_close(joint @ g / p_x[:, None], sigma * f, atol=1e-11, rtol=0)


def test_matrix_is_the_relative_excess_of_the_joint():
    joint = random_joint(4, 3, 1)
    p_x, p_y = joint.sum(1, keepdim=True), joint.sum(0, keepdim=True)
    excess = dependence_matrix(joint) / (p_x * p_y).sqrt()
    torch.testing.assert_close(excess, joint / (p_x * p_y) - 1)


def test_impossible_values_have_no_dependence_and_functions_zero():
    joint = random_joint(4, 3, 2)
    padded = torch.zeros(6, 5, dtype=torch.float64)
    rows, columns = torch.tensor([0, 2, 3, 5]), torch.tensor([1, 2, 4])
    padded[rows[:, None], columns] = joint
    matrix = dependence_matrix(padded)
    assert bool(matrix.isfinite().all())
    assert not matrix[[1, 4]].any()
    assert not matrix[:, [0, 3]].any()
    small, large = dependence_modes(joint), dependence_modes(padded)
    torch.testing.assert_close(large.sigma, small.sigma)
    torch.testing.assert_close(large.f[rows], small.f)
    torch.testing.assert_close(large.g[columns], small.g)
    assert not large.f[[1, 4]].any()


def test_one_possible_value_has_no_mode():
    for joint in (torch.ones(1, 4), torch.tensor([[0.0, 1.0], [0.0, 2.0]])):
        modes = dependence_modes(joint)
        assert modes.sigma.shape == (0,)
        assert modes.f.shape == (joint.shape[0], 0)
        assert float(maximal_correlation(joint)) == 0.0


def test_modes_without_correlation_are_still_zero_mean_functions():
    sigma, f, _ = dependence_modes(torch.ones(4, 6))
    np.testing.assert_allclose(sigma, 0.0, atol=1e-15)
    np.testing.assert_allclose(f.mean(0), 0.0, atol=1e-14)
    np.testing.assert_allclose(f.T @ f / 4, np.eye(3), atol=1e-14)


def test_chi_square_of_samples_is_pearsons_statistic_per_sample():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(5, (400,), generator=generator)
    y = (x + torch.randint(3, (400,), generator=generator)) % 4
    counts = joint_table(x, y) * 400
    statistic = stats.chi2_contingency(counts.numpy(), correction=False).statistic
    assert float(chi_square_divergence(joint_table(x, y))) == pytest.approx(statistic / 400)


def test_processing_never_raises_a_correlation():
    """Merging values of X, and a noisy channel behind Y, each lower every singular value."""
    joint = random_joint(6, 4, 3)
    merged = torch.stack([joint[0] + joint[1], joint[2], joint[3] + joint[4] + joint[5]])
    sigma = dependence_modes(joint).sigma
    assert bool((dependence_modes(merged).sigma[:2] <= sigma[:2] + 1e-14).all())
    channel = torch.softmax(random_joint(4, 4, 4) * 20, dim=1)
    assert bool((dependence_modes(joint @ channel).sigma <= sigma + 1e-14).all())


def test_label_noise_scales_the_correlations_of_a_uniform_label():
    joint = random_joint(6, 4, 5)
    joint = joint / joint.sum(0) / 4
    noise = symmetric_channel(4, 0.3) * 4
    factor = 1 - 0.3 * 4 / 3
    sigma = dependence_modes(joint).sigma
    torch.testing.assert_close(dependence_modes(joint @ noise).sigma, factor * sigma)


def test_ace_from_a_random_start_is_the_svd():
    joint = random_joint(8, 6, 1)
    sigma, f, g = dependence_modes(joint, 3)
    found = ace(joint, 3, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(found.sigma, sigma, atol=1e-12, rtol=0)
    torch.testing.assert_close(found.f, f, atol=1e-8, rtol=0)
    torch.testing.assert_close(found.g, g, atol=1e-8, rtol=0)


def test_ace_agrees_to_four_digits_after_five_sweeps():
    np.random.seed(20230606)  # noqa: NPY002 - the published table's generator
    joint = torch.tensor(np.random.rand(8, 6))  # noqa: NPY002
    found = ace(joint, 3, sweeps=5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.sigma, dependence_modes(joint, 3).sigma, atol=1e-4, rtol=0)


def test_ace_approaches_at_the_squared_ratio_of_correlations():
    matrix, _, _ = reduced_dependence(random_joint(8, 6, 1))
    left, sigma, _ = torch.linalg.svd(matrix)
    start = torch.randn(7, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    f, sines = torch.linalg.qr(start).Q, []
    for _ in range(12):
        f, _ = ace_sweep(matrix, f)
        sines.append(float(torch.linalg.matrix_norm(left[:, 2:].T @ f, 2)))
    rate = float((sigma[2] / sigma[1]) ** 2)
    assert sines[-1] / sines[-2] == pytest.approx(rate, rel=1e-2)


def test_ace_finds_the_span_of_equal_correlations():
    """A symmetric channel's modes are all equal: any orthonormal zero-mean functions are modes."""
    found = ace(symmetric_channel(5, 0.2), 2, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(found.sigma, 0.75, atol=1e-12)
    np.testing.assert_allclose(found.f.T @ found.f / 5, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(found.f, found.g, atol=1e-12)


def test_ace_of_independent_variables_ends():
    assert float(ace(torch.ones(4, 3), 2, sweeps=3).sigma.max()) == pytest.approx(0.0, abs=1e-15)


def polynomial_regressor(x: torch.Tensor, degree: int) -> object:
    basis = torch.linalg.qr(torch.stack([x**power for power in range(degree + 1)], dim=1)).Q
    return lambda responses: basis @ (basis.T @ responses)


def test_ace_with_regressors_finds_the_hermite_modes_of_normals():
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 40_000, generator=generator, dtype=torch.float64)
    y = 0.8 * x + 0.6 * noise
    found = ace_regression(
        polynomial_regressor(x, 4), polynomial_regressor(y, 4), len(x), 3, generator=generator
    )
    np.testing.assert_allclose(found.sigma, [0.8, 0.64, 0.512], atol=0.015)
    for values, variable in ((found.f, x), (found.g, y)):
        hermite = torch.stack([variable, variable**2 - 1, variable**3 - 3 * variable], dim=1)
        for column, wanted in zip(values.T, hermite.T, strict=True):
            cosine = torch.corrcoef(torch.stack([column, wanted]))[0, 1]
            assert abs(float(cosine)) > 0.99


def test_ace_on_samples_is_ace_on_their_table():
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(5, (500,), generator=generator)
    y = torch.where(torch.rand(500, generator=generator) < 0.5, x, x.flip(0)) % 4
    regress = class_mean_regressor
    found = ace_regression(regress(x), regress(y), 500, 2, sweeps=300, generator=generator)
    sigma, f, _ = dependence_modes(joint_table(x, y), 2)
    torch.testing.assert_close(found.sigma, sigma, atol=1e-10, rtol=0)
    correlation = (found.f.T @ f[x] / 500).abs()
    torch.testing.assert_close(correlation, torch.eye(2).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("joint", "match"),
    [
        (torch.ones(3), "shape"),
        (torch.ones(0, 3), "shape"),
        (torch.tensor([[1.0, math.nan]]), "finite"),
        (torch.tensor([[1.0, -1.0]]), "at least 0"),
        (torch.zeros(2, 2), "not all of them 0"),
    ],
)
def test_a_table_that_is_none_is_refused(joint, match):
    with pytest.raises(ValueError, match=match):
        dependence_modes(joint)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="num_modes must be at most 2"):
        dependence_modes(torch.ones(3, 4), 3)
    with pytest.raises(ValueError, match="num_modes"):
        ace(torch.ones(3, 4), 3)
    with pytest.raises(ValueError, match="sweeps"):
        ace(torch.ones(3, 4), sweeps=0)
    with pytest.raises(ValueError, match=r"x must lie in \[0, 1\]; got 2"):
        joint_table(torch.tensor([0, 2]), torch.tensor([0, 1]), num_x=2)
    with pytest.raises(ValueError, match="at least one sample"):
        joint_table(torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64))
    with pytest.raises(TypeError, match="integer"):
        joint_table(torch.tensor([0.5]), torch.tensor([0]))


def test_regressors_that_cannot_serve_are_refused():
    on_label = class_mean_regressor(torch.tensor([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="ask for fewer modes"):
        ace_regression(on_label, on_label, 4, 2)
    with pytest.raises(ValueError, match="regress_on_y must return finite"):
        ace_regression(on_label, lambda responses: responses * math.nan, 4)
    with pytest.raises(ValueError, match="num_examples must exceed"):
        ace_regression(on_label, on_label, 1)
