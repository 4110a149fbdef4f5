"""Disout and DropBlock: the released layer's golden rows, closed forms, invariances, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lastlayer.functional.blocks.disout import (
    check_next_weight,
    disout,
    drop_block,
    finite_std,
    next_layer_scale,
)
from lastlayer.functional.blocks.released import disout_released

SAMPLERS = ["sparse", "dense"]


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(*shape: int, seed: int = 11, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


WEIGHT_3 = torch.linspace(-0.1, 0.1, 4 * 3 * 9).reshape(4, 3, 3, 3)
WEIGHT_1 = torch.linspace(-0.1, 0.1, 4 * 3).reshape(4, 3, 1, 1)


@pytest.mark.parametrize(
    ("block", "weight", "kept", "total", "squares", "first"),
    [
        (3, None, 276, 15.62536, 171.35747, [-1.391304, -1.384039, -1.376774, 0.037720]),
        (3, WEIGHT_3, 276, 14.95865, 171.37839, [-1.391304, -1.384039, -1.376774, -0.037437]),
        (4, WEIGHT_3, 289, 32.14757, 170.71021, [-1.328720, -1.321781, -1.314843, -1.307904]),
        (1, WEIGHT_1, 260, 9.04318, 191.77626, [-1.476923, -1.469211, -0.041875, 0.008510]),
    ],
)
def test_released_layer_gives_the_golden_rows(block, weight, kept, total, squares, first):
    x = torch.linspace(-1, 1, 384).reshape(2, 3, 8, 8)
    y = disout_released(
        x, 0.3, block_size=block, alpha=5.0, next_weight=weight, generator=generator(0)
    )
    assert float(y.sum()) == pytest.approx(total, abs=2e-5)
    assert float(y.square().sum()) == pytest.approx(squares, abs=2e-5)
    np.testing.assert_allclose(y[0, 0, 0, :4], first, atol=6e-7)
    unchanged = (y * kept / 384 - x).abs() < 1e-6
    assert int(unchanged.sum()) == kept


def test_released_layer_never_distorts_the_first_row_of_even_blocks():
    """The fault that the corrected default is free of, see test_blocks."""
    y = disout_released(torch.ones(200, 16, 8, 8), 0.3, block_size=6, generator=generator())
    assert bool((y[:, :, 0] != 0).all())
    assert bool((y[:, :, :, 0] != 0).all())
    assert bool((y[:, :, -1] == 0).any())


def test_released_layer_distorts_whole_planes_where_the_block_is_the_map():
    y = disout_released(torch.ones(50, 8, 7, 7), 0.3, block_size=7, generator=generator())
    planes = (y == 0).flatten(2).double().mean(-1)
    assert set(planes.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("shape", "block"), [((1, 1, 6, 6), 6), ((1, 1, 4, 4), 5), ((1, 1, 4, 8), 6), ((1, 4), 1)]
)
def test_released_layer_refuses_what_it_cannot_take(shape, block):
    with pytest.raises(ValueError, match=r"cannot take|must have shape"):
        disout_released(torch.ones(shape), 0.1, block_size=block)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise_has_its_closed_form_variance_over_calls(sampler):
    r"""delta has variance alpha^2 s^2 V_c, V_c = sum_u K_cu^2 / |u|^2, signs averaged over."""
    weight = features(5, 3, 3, 3, seed=1)
    largest = weight.amax(0).flatten(1).double()
    expected = largest.square().sum(1) / 81
    source = generator()
    x = features(2, 3, 8, 8)
    s = float(x.std())
    found: list[list[torch.Tensor]] = [[], [], []]
    for _ in range(600):
        scale = next_layer_scale(weight, 3, generator=source)
        y = disout(x, 0.2, block_size=3, alpha=2.0, scale=scale, generator=source, sampler=sampler)
        kept_cells = _kept(x, y)
        kept = float(kept_cells.float().mean())
        for channel in range(3):
            found[channel].append((y * kept)[:, channel][~kept_cells[:, channel]])
    for channel in range(3):
        noise = torch.cat(found[channel]).double()
        variance = 4 * s**2 * float(expected[channel])
        # Calls differ in their signs, so calls, not cells, are the independent draws.
        by_call = torch.stack([n.square().mean() for n in found[channel] if len(n)])
        error = float(by_call.std()) / math.sqrt(len(by_call))
        assert abs(float(by_call.mean()) - variance) < 5 * error + 0.02 * variance
        assert abs(float(noise.mean())) < 5 * math.sqrt(variance / len(noise))


def _kept(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Which cells hold the input, divided by one common share."""
    ratio = y / x
    common = ratio.flatten().median()
    return (ratio - common).abs() < 1e-4 * common.abs()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_constant_features_have_no_noise_and_keep_their_mean(sampler):
    y = disout(
        torch.full((20, 3, 8, 8), 3.0),
        0.3,
        block_size=3,
        alpha=100.0,
        sampler=sampler,
        generator=generator(),
    )
    kept = 1 - float((y == 0).double().mean())
    assert 0.5 < kept < 0.9
    assert float(y.double().mean()) == pytest.approx(3.0, rel=1e-6)
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 3.0 / kept))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_output_scales_with_the_features(sampler):
    def call(x):
        return disout(x, 0.3, block_size=3, alpha=50.0, sampler=sampler, generator=generator(2))

    x = features(4, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(call(4 * x), 4 * call(x))  # a power of two rounds nothing
    shifted, plain = call(x + 1), call(x)
    changed = (shifted - plain).abs() > 1e-3
    kept = 1 / float((shifted - plain)[changed][0])
    assert float(changed.double().mean()) == pytest.approx(kept, rel=1e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_alpha_scales_the_noise_alone_and_zero_is_dropblock(sampler):
    x = features(4, 3, 8, 8)

    def call(alpha):
        return disout(x, 0.3, block_size=3, alpha=alpha, sampler=sampler, generator=generator(2))

    zero, one, seven = call(0.0), call(1.0), call(7.0)
    block = drop_block(x, 0.3, block_size=3, sampler=sampler, generator=generator(2))
    assert torch.equal(zero, block)
    torch.testing.assert_close(seven - zero, 7 * (one - zero), rtol=1e-5, atol=1e-6)
    assert torch.equal(one[zero != 0], zero[zero != 0])


def test_next_layer_scale_is_the_mean_of_signed_maxima():
    weight = features(6, 4, 3, 3)
    largest = weight.amax(0).flatten(1)
    draws = torch.rand(4, 9, generator=generator(3))
    expected = torch.where(draws < 0.5, -largest, largest).mean(1)
    torch.testing.assert_close(next_layer_scale(weight, 4, generator=generator(3)), expected)


def test_next_layer_scale_of_one_position_is_a_tenth_of_the_maximum():
    for weight in (features(6, 4, 1, 1), features(6, 4)):
        found = next_layer_scale(weight, 4, generator=generator(3))
        torch.testing.assert_close(found.abs(), 0.1 * weight.amax(0).flatten().abs())


def test_next_layer_scale_of_groups_uses_each_groups_own_outputs():
    grouped = torch.nn.Conv2d(6, 8, 3, groups=2)
    dense = torch.full((8, 6, 3, 3), -math.inf)
    dense[:4, :3], dense[4:, 3:] = grouped.weight.detach()[:4], grouped.weight.detach()[4:]
    torch.testing.assert_close(
        next_layer_scale(grouped.weight, 6, generator=generator(3)),
        next_layer_scale(dense, 6, generator=generator(3)),
    )
    depthwise = torch.nn.Conv2d(5, 5, 3, groups=5)
    largest = depthwise.weight.detach().flatten(1)
    scale = next_layer_scale(depthwise.weight, 5, generator=generator(3))
    draws = torch.rand(5, 9, generator=generator(3))
    torch.testing.assert_close(scale, torch.where(draws < 0.5, -largest, largest).mean(1))


def test_next_layer_scale_behind_a_flattened_map_has_one_position_a_cell():
    weight = features(10, 3 * 4)
    convolution = weight.reshape(10, 3, 2, 2)
    torch.testing.assert_close(
        next_layer_scale(weight, 3, generator=generator(3)),
        next_layer_scale(convolution, 3, generator=generator(3)),
    )


@pytest.mark.parametrize(
    ("shape", "channels"), [((4, 3, 3, 3), 5), ((4, 7), 3), ((4,), 4), ((5, 3, 3, 3), 6)]
)
def test_a_layer_that_cannot_follow_is_refused(shape, channels):
    with pytest.raises(ValueError, match="layer"):
        check_next_weight(torch.ones(shape), channels)


@pytest.mark.parametrize("shift", [0.0, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
def test_finite_std_agrees_with_float64_at_any_mean(shift, layout):
    x = features(8, 4, 6, 6) + shift
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "sliced":
        x = x[:, 1:3]
    truth = float(x.double().std())
    assert float(finite_std(x)) == pytest.approx(truth, rel=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_finite_std_in_other_precisions(dtype):
    x = (100 * features(32, 4, 16, 16)).to(dtype)
    assert float(finite_std(x)) == pytest.approx(float(x.double().std()), rel=2e-6)


def test_finite_std_leaves_out_nan_and_infinity():
    x = features(5, 40).double()
    x[0, 0], x[1, 3], x[2, 2] = math.nan, math.inf, -math.inf
    assert float(finite_std(x)) == pytest.approx(float(x[x.isfinite()].std()), rel=1e-12)


@pytest.mark.parametrize("values", [[], [2.0], [math.nan], [math.inf, 3.0]])
def test_finite_std_of_fewer_than_two_is_zero(values):
    assert float(finite_std(torch.tensor(values))) == 0.0


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_example_does_not_touch_the_others(sampler, bad):
    x = features(6, 3, 8, 8)
    clean_source, bad_source = generator(9), generator(9)
    clean = disout(x, 0.3, block_size=3, sampler=sampler, generator=clean_source)
    x[2, 1, 4, 4] = bad
    x.requires_grad_()
    y = disout(x, 0.3, block_size=3, sampler=sampler, generator=bad_source)
    others = [0, 1, 3, 4, 5]
    assert bool(y[others].isfinite().all())
    torch.testing.assert_close(y[others], clean[others], rtol=1e-2, atol=1e-3)
    y[others].sum().backward()
    assert bool(x.grad.isfinite().all())


def test_a_weight_gets_no_gradient_through_the_noise():
    weight = features(4, 3, 3, 3).requires_grad_()
    assert not next_layer_scale(weight, 3).requires_grad


@pytest.mark.parametrize("shape", [(30, 50), (30, 4, 20), (10, 4, 9, 9), (4, 3, 5, 6, 7)])
def test_all_numbers_of_spatial_axes(shape):
    y = disout(torch.ones(shape), 0.25, block_size=3, generator=generator())
    assert y.shape == shape
    assert 0.1 < float((y == 0).double().mean()) < 0.4


def test_negative_alpha_is_refused():
    with pytest.raises(ValueError, match="alpha must be"):
        disout(torch.ones(1, 1, 2, 2), 0.1, alpha=-1.0)
