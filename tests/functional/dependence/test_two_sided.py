"""Two-sided and nested H-scores: bound, optimum, gradients, stopped gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from lastlayer.functional.dependence import (
    dependence_matrix,
    dependence_modes,
    h_score,
    joint_table,
    nested_h_score,
    two_sided_h_score,
)


def random_joint(rows: int = 8, columns: int = 6, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, columns, generator=generator, dtype=torch.float64)


def functions(rows: int, k: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, k, generator=generator, dtype=torch.float64)


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(0, 10_000), st.floats(0.1, 3.0))
def test_no_functions_score_above_half_the_squared_correlations(k, seed, scale):
    joint = random_joint(seed=seed)
    bound = 0.5 * dependence_modes(joint).sigma[:k].square().sum()
    f, g = scale * functions(8, k, seed), functions(6, k, seed + 1)
    assert float(two_sided_h_score(f, g, joint=joint)) <= float(bound) + 1e-12


def test_the_modes_reach_the_bound_in_every_basis():
    joint = random_joint()
    sigma, f, g = dependence_modes(joint, 3)
    bound = 0.5 * sigma.square().sum()
    torch.testing.assert_close(two_sided_h_score(f, sigma * g, joint=joint), bound)
    mixing = functions(3, 3, 5)
    mixed = two_sided_h_score(f @ mixing.T, sigma * g @ torch.linalg.inv(mixing), joint=joint)
    torch.testing.assert_close(mixed, bound)


def test_zero_mean_score_is_half_the_explained_norm():
    joint = random_joint()
    joint = joint / joint.sum()
    p_x, p_y = joint.sum(1), joint.sum(0)
    f, g = functions(8, 2, 3), functions(6, 2, 4)
    f, g = f - p_x @ f, g - p_y @ g
    matrix = dependence_matrix(joint)
    product = (p_x.sqrt()[:, None] * f) @ (p_y.sqrt()[:, None] * g).T
    expected = 0.5 * (matrix.square().sum() - (matrix - product).square().sum())
    torch.testing.assert_close(two_sided_h_score(f, g, joint=joint), expected)
    shifted = two_sided_h_score(f + 0.3, g, joint=joint)
    assert float(shifted) < float(expected)


def test_samples_score_as_their_table():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randint(4, (2, 200), generator=generator)
    f, g = functions(4, 2, 1), functions(4, 2, 2)
    joint = joint_table(x, y)
    for score in (two_sided_h_score, nested_h_score):
        torch.testing.assert_close(score(f[x], g[y]), score(f, g, joint=joint))


def test_best_partner_gives_half_the_one_sided_score():
    target = torch.arange(60) % 3
    features = functions(60, 4, 0) + torch.nn.functional.one_hot(target, 4)
    f = features - features.mean(0)
    means = torch.stack([f[target == y].mean(0) for y in range(3)])
    g = torch.linalg.solve(f.T @ f / 60, means.T).T
    torch.testing.assert_close(two_sided_h_score(f, g[target]), 0.5 * h_score(features, target))


def test_nested_score_is_the_sum_over_prefixes():
    joint, f, g = random_joint(), functions(8, 4, 1), functions(6, 4, 2)
    prefixes = sum(two_sided_h_score(f[:, :i], g[:, :i], joint=joint) for i in range(1, 5))
    torch.testing.assert_close(nested_h_score(f, g, joint=joint), prefixes)


def test_stopped_gradient_keeps_the_value_and_moves_each_last_pair_only():
    joint = random_joint()
    f = functions(8, 3, 1).requires_grad_()
    g = functions(6, 3, 2).requires_grad_()
    stopped = nested_h_score(f, g, joint=joint, stop_gradient=True)
    torch.testing.assert_close(stopped, nested_h_score(f, g, joint=joint))
    found = torch.autograd.grad(stopped, (f, g))
    for i in range(3):
        prefix = two_sided_h_score(f[:, : i + 1], g[:, : i + 1], joint=joint)
        expected = torch.autograd.grad(prefix, (f, g))
        for part, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(part[:, i], wanted[:, i])


@pytest.mark.parametrize("score", [two_sided_h_score, nested_h_score])
def test_gradients_are_those_of_finite_differences(score):
    joint = random_joint(5, 4)
    f, g = functions(5, 2, 1).requires_grad_(), functions(4, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, g: score(f, g, joint=joint), (f, g))
    paired = functions(5, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(score, (f, paired))


def climbed(joint: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    f = functions(joint.shape[0], k, 5).requires_grad_()
    g = functions(joint.shape[1], k, 6).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [f, g], max_iter=2000, tolerance_grad=1e-12, tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = -nested_h_score(f, g, joint=joint)
        loss.backward()
        return loss

    optimizer.step(closure)
    return f.detach(), g.detach(), nested_h_score(f, g, joint=joint).detach()


def test_optimum_of_the_nested_score_recovers_the_modes_in_order():
    """The joint of the published experiment, with its exact maximum."""
    np.random.seed(20230606)  # noqa: NPY002 - the published table's generator
    joint = torch.tensor(np.random.rand(8, 6))  # noqa: NPY002
    sigma, modes_f, modes_g = dependence_modes(joint)
    np.testing.assert_allclose(sigma, [0.400022, 0.317625, 0.290890, 0.156563, 0.023045], atol=6e-7)
    f, g, value = climbed(joint, 3)
    weights = torch.tensor([3.0, 2.0, 1.0])
    maximum = 0.5 * (weights * sigma[:3].square()).sum()
    assert float(maximum) == pytest.approx(0.383220, abs=6e-7)
    assert float(value) == pytest.approx(float(maximum), abs=1e-9)
    p_x, p_y = joint.sum(1) / joint.sum(), joint.sum(0) / joint.sum()
    spread_f, spread_g = (p_x @ f.square()).sqrt(), (p_y @ g.square()).sqrt()
    np.testing.assert_allclose(spread_f * spread_g, sigma[:3], atol=1e-4)
    for i in range(3):
        assert abs(float(p_x @ (f[:, i] * modes_f[:, i]))) / float(spread_f[i]) > 0.9999
        assert abs(float(p_y @ (g[:, i] * modes_g[:, i]))) / float(spread_g[i]) > 0.9999


def test_equal_correlations_are_recovered_as_a_span():
    """Of a symmetric channel's equal modes every rotation is an optimum."""
    joint = torch.full((4, 4), 0.1, dtype=torch.float64).fill_diagonal_(0.7) / 4
    f, g, value = climbed(joint, 3)
    assert float(value) == pytest.approx(0.5 * 6 * 0.6**2, abs=1e-8)
    angles = linalg.subspace_angles(f.numpy(), dependence_modes(joint).f.numpy())
    assert angles.max() < 1e-4
    np.testing.assert_allclose(f.std(0, correction=0) * g.std(0, correction=0), 0.6, atol=1e-4)


def test_half_precision_is_computed_in_single():
    f, g = functions(100, 2, 1), functions(100, 2, 2)
    value = nested_h_score(f.bfloat16(), g.bfloat16())
    assert value.dtype == torch.float32
    exact = nested_h_score(f.bfloat16().double(), g.bfloat16().double())
    assert float(value) == pytest.approx(float(exact), rel=1e-4)


def test_bad_functions_are_refused():
    joint = random_joint(3, 2)
    good = torch.ones(3, 1)
    with pytest.raises(ValueError, match=r"g must have shape \(3, 1\)"):
        two_sided_h_score(good, torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"f must have shape \(3, k\)"):
        two_sided_h_score(torch.ones(2, 1), torch.ones(2, 1), joint=joint)
    with pytest.raises(ValueError, match=r"g must have shape \(2, 1\)"):
        nested_h_score(good, torch.ones(2, 2), joint=joint)
    with pytest.raises(TypeError, match="floating"):
        nested_h_score(torch.ones(3, 1, dtype=torch.int64), good)
    assert math.isnan(float(two_sided_h_score(good * math.nan, good)))
