"""Where blocks lie, how often each cell is covered, and that both samplers draw that law."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chi2

from lastlayer.functional.blocks import (
    BlockGrid,
    block_grid,
    cover_probability,
    replace_blocks,
    seed_rate,
)
from lastlayer.functional.blocks.grid import cover_counts
from lastlayer.functional.blocks.replace import cover_mask
from lastlayer.functional.blocks.sparse import draw_places

#: Height, width, block, p; the published rate, the share it covers, corner and center.
SHEET = [
    (8, 8, 6, 0.09, 0.017778, 0.08572, 0.01778, 0.14908),
    (8, 8, 5, 0.09, 0.014400, 0.08504, 0.01440, 0.20711),
    (8, 8, 7, 0.09, 0.029388, 0.08682, 0.02939, 0.11247),
    (14, 14, 7, 0.0175, 0.001094, 0.01727, 0.00109, 0.05221),
    (14, 14, 7, 0.07, 0.004375, 0.06648, 0.00438, 0.19333),
    (14, 14, 7, 0.30, 0.018750, 0.24329, 0.01875, 0.60445),
    (7, 7, 7, 0.07, 0.070000, 0.07000, 0.07000, 0.07000),
    (32, 32, 6, 0.09, 0.003512, 0.08543, 0.00351, 0.11895),
    (28, 20, 7, 0.10, 0.003711, 0.09368, 0.00371, 0.16653),
]
SAMPLERS = ["sparse", "dense"]


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def covered(
    shape: tuple[int, ...], p: float, sampler: str, seed: int = 5, **kwargs
) -> torch.Tensor:
    """What is covered shows as zeros among ones."""
    ones = torch.ones(shape)
    return replace_blocks(ones, p, sampler=sampler, generator=generator(seed), **kwargs) == 0


def published_seed_rate(p: float, grid: BlockGrid) -> float:
    """DropBlock's and Disout's: p over the mean number of places that cover a cell."""
    return p / float(cover_counts(grid).double().mean())


@pytest.mark.parametrize(("h", "w", "b", "p", "rate", "share", "corner", "center"), SHEET)
def test_published_rate_covers_what_the_sheet_says(h, w, b, p, rate, share, corner, center):
    grid = block_grid((1, 1, h, w), b)
    assert published_seed_rate(p, grid) == pytest.approx(rate, abs=6e-7)
    probability = cover_probability(grid, published_seed_rate(p, grid))[0]
    assert float(probability.mean()) == pytest.approx(share, abs=6e-6)
    assert float(probability[0, 0]) == pytest.approx(corner, abs=6e-6)
    assert float(probability[h // 2, w // 2]) == pytest.approx(center, abs=6e-6)


@settings(max_examples=200)
@given(
    size=st.lists(st.integers(1, 12), min_size=0, max_size=3),
    block=st.integers(1, 14),
    p=st.floats(0, 1),
    share=st.booleans(),
)
def test_seed_rate_covers_exactly_the_share_asked_for(size, block, p, share):
    grid = block_grid((2, 3, *size), block, share_channels=share)
    rate = seed_rate(p, grid)
    assert 0 <= rate <= 1
    assert float(cover_probability(grid, rate).mean()) == pytest.approx(p, abs=1e-9)


@pytest.mark.parametrize("p", [0.0, 1e-6, 0.09, 0.5, 0.9])
@pytest.mark.parametrize("block", [1, 6, 7, 14])
def test_seed_rate_of_a_tensor_is_that_of_the_number(p, block):
    grid = block_grid((1, 1, 14, 14), block)
    found = seed_rate(torch.tensor(p, dtype=torch.float64), grid)
    assert float(found) == pytest.approx(seed_rate(p, grid), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 3, 6), (1, 2, 3, 4, 5), (4, 6)])
@pytest.mark.parametrize("block", [1, 2, 3, 9])
def test_cover_counts_are_those_of_brute_force(shape, block):
    grid = block_grid(shape, block)
    counts = np.zeros(grid.size, dtype=int)
    for corner in itertools.product(*map(range, grid.corners)):
        counts[tuple(slice(c, c + b) for c, b in zip(corner, grid.block, strict=True))] += 1
    np.testing.assert_array_equal(cover_counts(grid), counts)


@pytest.mark.parametrize("rate", [1e-3, 0.03, 0.4, 0.9, 1.0])
def test_places_are_independent_with_one_probability(rate):
    draws, places = 4000, 40
    source = generator()
    chosen = np.zeros((draws, places))
    for row in chosen:
        found = draw_places(places, rate, generator=source)
        assert bool((found[1:] > found[:-1]).all())
        row[found] = 1
    if rate == 1.0:
        assert chosen.all()
        return
    spread = math.sqrt(rate * (1 - rate) / draws)
    assert np.abs(chosen.mean(0) - rate).max() < 5 * spread
    pairs = (chosen[:, :-1] * chosen[:, 1:]).mean()
    assert abs(pairs - rate**2) < 6 * rate / math.sqrt(draws * places)
    totals = np.bincount(chosen.sum(1).astype(int), minlength=places + 1)
    expected = draws * binom.pmf(np.arange(places + 1), places, rate)
    often = expected > 8
    statistic = ((totals - expected) ** 2 / np.maximum(expected, 1e-9))[often].sum()
    assert statistic < chi2.ppf(1 - 1e-6, often.sum())


def test_places_beyond_the_first_draw_are_not_lost(monkeypatch):
    """Gaps are drawn again until the end is passed; with few at a time the law is the same."""
    monkeypatch.setattr("lastlayer.functional.blocks.sparse.math.sqrt", lambda x: -0.2 * x)
    source = generator()
    counts = [len(draw_places(3000, 0.02, generator=source)) for _ in range(300)]
    assert abs(np.mean(counts) - 60) < 5 * (60 * 0.98 / 300) ** 0.5


@pytest.mark.parametrize("places", [0, 1])
def test_no_place_and_one_place(places):
    assert len(draw_places(places, 1.0)) == places
    assert len(draw_places(places, 0.0)) == 0


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("shape", "block", "p"),
    [
        ((8, 8), 6, 0.09),
        ((8, 8), 5, 0.2),
        ((7, 7), 7, 0.3),
        ((14, 14), 7, 0.07),
        ((5, 9), 4, 0.3),
        ((3, 11), 6, 0.25),
        ((10,), 4, 0.2),
        ((3, 4, 5), 2, 0.2),
        ((), 3, 0.3),
    ],
)
def test_every_cell_is_covered_with_its_closed_form_probability(sampler, shape, block, p):
    examples, channels = 300, 20
    planes = examples * channels
    full = (examples, channels, *shape)
    grid = block_grid(full, block)
    found = covered(full, p, sampler, block_size=block).double()
    expected = cover_probability(grid, seed_rate(p, grid))[:1]
    rates = found.flatten(0, 1).mean(0)
    error = (rates - expected[0]).abs() / (expected[0] * (1 - expected[0]) / planes).sqrt()
    assert float(error.max()) < 5
    by_plane = found.flatten(0, 1).reshape(planes, -1).mean(1)
    assert abs(float(by_plane.mean()) - p) < 5 * float(by_plane.std()) / planes**0.5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_covered_cells_are_a_union_of_whole_blocks(sampler):
    for block in (2, 3, 6):
        mask = covered((20, 4, 8, 9), 0.2, sampler, block_size=block).float()
        whole = -torch.nn.functional.max_pool2d(-mask, block, stride=1)
        grown = torch.nn.functional.max_pool2d(
            torch.nn.functional.pad(whole, [block - 1] * 4), block, stride=1
        )
        assert torch.equal(grown, mask)
        assert 0 < float(mask.mean()) < 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_even_blocks_reach_all_corners_alike(sampler):
    mask = covered((500, 16, 8, 8), 0.3, sampler, block_size=6).double()
    corners = mask.flatten(0, 1)[:, [0, 0, 7, 7], [0, 7, 0, 7]].mean(0)
    grid = block_grid((1, 1, 8, 8), 6)
    expected = seed_rate(0.3, grid)
    assert float((corners - expected).abs().max()) < 5 * math.sqrt(expected / 8000)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_channels_and_examples_are_independent_unless_shared(sampler):
    mask = covered((4000, 2, 4, 4), 0.3, sampler, block_size=4)[..., 0, 0].double()
    correlation = np.corrcoef(np.stack([mask[:, 0], mask[:, 1], mask[:, 0].roll(1)]))
    assert np.abs(correlation[0, 1:]).max() < 5 / math.sqrt(4000)
    shared = covered((50, 6, 8, 8), 0.3, sampler, block_size=3, share_channels=True)
    assert torch.equal(shared, shared[:, :1].expand_as(shared))
    assert len(shared[:, 0].flatten(1).unique(dim=0)) > 40


def test_cover_mask_is_what_the_dense_sampler_replaces():
    features = torch.ones(3, 4, 6, 6)
    grid = block_grid(features.shape, 3)
    mask = cover_mask(features, grid, seed_rate(0.2, grid), generator=generator())
    assert torch.equal(mask, covered((3, 4, 6, 6), 0.2, "dense", block_size=3))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("spread", [None, torch.tensor([0.5]), torch.tensor([0.1, 1.0, 0.0])])
def test_kept_cells_and_gradients_are_exact(sampler, spread):
    features = torch.randn(4, 3, 8, 8, generator=generator(), dtype=torch.float64)
    features.requires_grad_()
    out = replace_blocks(
        features, 0.2, block_size=3, spread=spread, sampler=sampler, generator=generator(1)
    )
    mask = covered((4, 3, 8, 8), 0.2, sampler, seed=1, block_size=3)
    kept = 1 - float(mask.double().mean())
    kept_cells = features.detach()[~mask] / kept
    torch.testing.assert_close(out[~mask], kept_cells, rtol=1e-7, atol=0)
    upstream = torch.randn(out.shape, generator=generator(2), dtype=torch.float64)
    upstream[mask] = float("nan")
    (gradient,) = torch.autograd.grad(out, features, upstream)
    assert bool((gradient[mask] == 0).all())
    torch.testing.assert_close(gradient[~mask], upstream[~mask] / kept, rtol=1e-7, atol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_gradcheck_and_a_vanishing_second_derivative(sampler):
    features = torch.randn(2, 2, 4, 4, dtype=torch.float64, generator=generator())

    def replaced(x):
        return replace_blocks(
            x, 0.3, block_size=2, spread=torch.ones(1), sampler=sampler, generator=generator(3)
        )

    features.requires_grad_()
    # The share kept is a float32 mean in the dense way: compare with its own linear map.
    torch.autograd.gradcheck(replaced, features)
    torch.autograd.gradgradcheck(replaced, features)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise_has_the_spread_of_its_channel(sampler):
    spread = torch.tensor([0.5, 2.0, 0.0])
    out = replace_blocks(
        torch.zeros(2000, 3, 6, 6),
        0.3,
        block_size=3,
        spread=spread,
        sampler=sampler,
        generator=generator(),
    )
    zero = covered((2000, 3, 6, 6), 0.3, sampler, block_size=3)
    kept = 1 - float(zero.float().mean())
    for channel in range(3):
        noise = out[:, channel][zero[:, channel]] * kept
        assert len(noise) > 10000
        assert float(noise.std()) == pytest.approx(float(spread[channel]), rel=0.03, abs=0)
        assert abs(float(noise.mean())) <= 5 * float(spread[channel]) / len(noise) ** 0.5
    shared = replace_blocks(
        torch.zeros(800, 3, 6, 6),
        0.3,
        block_size=3,
        spread=spread,
        share_channels=True,
        sampler=sampler,
        generator=generator(),
    )
    widths = [float(shared[:, c][shared[:, c] != 0].std()) * 0.7 for c in (0, 1)]
    assert widths == pytest.approx([0.5, 2.0], rel=0.05)
    assert bool((shared[:, 2] == 0).all())


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    "layout", ["contiguous", "channels_last", "transposed", "sliced", "expanded"]
)
def test_memory_formats_are_kept_and_change_nothing(sampler, layout):
    plain = torch.randn(6, 5, 8, 8, generator=generator())
    features = {
        "contiguous": lambda: plain,
        "channels_last": lambda: plain.contiguous(memory_format=torch.channels_last),
        "transposed": lambda: plain.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        "sliced": lambda: torch.cat([plain, plain], dim=1)[:, :5],
        "expanded": lambda: plain[:, :1].expand(6, 5, 8, 8),
    }[layout]()
    before = features.clone()

    def call(x):
        x = x.detach().requires_grad_()
        out = replace_blocks(
            x,
            0.2,
            block_size=3,
            spread=torch.rand(5, generator=generator(8)),
            sampler=sampler,
            generator=generator(4),
        )
        out.backward(torch.ones_like(plain))
        return out, x.grad

    out, gradient = call(features)
    expected, expected_gradient = call(before.contiguous())
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=0)
    assert torch.equal(features, before)
    if layout in ("contiguous", "channels_last", "transposed"):
        assert out.stride() == features.stride()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_are_kept_and_low_precision_agrees_with_float64(sampler, dtype):
    features = torch.randn(4, 3, 8, 8, generator=generator(), dtype=torch.float64).to(dtype)

    def call(x):
        return replace_blocks(
            x, 0.2, block_size=3, spread=torch.ones(3), sampler=sampler, generator=generator(4)
        )

    out, truth = call(features), call(features.double())
    assert out.dtype == dtype
    torch.testing.assert_close(
        out.double(), truth, rtol=2 * torch.finfo(dtype).eps + 2e-7, atol=1e-6
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_all_covered_gives_noise_of_the_plain_width(sampler):
    out = replace_blocks(
        torch.full((50, 2, 8, 8), 7.0),
        1.0,
        block_size=3,
        spread=torch.ones(1),
        sampler=sampler,
        generator=generator(),
    )
    assert float(out.std()) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (3, 0, 4, 4), (1, 1, 1, 1), (1, 1), (2, 3, 0)])
def test_empty_and_single_cell_features(sampler, shape):
    out = replace_blocks(torch.ones(shape), 0.0, block_size=3, sampler=sampler)
    assert torch.equal(out, torch.ones(shape))
    out = replace_blocks(torch.ones(shape), 1.0, block_size=3, sampler=sampler)
    assert torch.equal(out, torch.zeros(shape))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nan_and_infinity_stay_in_their_cells(sampler):
    features = torch.randn(3, 2, 6, 6, generator=generator())
    features[0, 0, 0, 0], features[1, 1, 2, 2] = float("inf"), float("nan")
    out = replace_blocks(
        features, 0.0, block_size=2, spread=torch.ones(1), sampler=sampler, generator=generator()
    )
    assert torch.equal(out.isfinite(), features.isfinite())
    finite = features.isfinite()
    assert torch.equal(out[finite], features[finite])


def test_auto_is_sparse_where_few_are_covered_and_dense_else():
    for p, expected in ((0.1, "sparse"), (0.8, "dense")):
        outs = {
            sampler: replace_blocks(
                torch.ones(4, 4, 8, 8), p, block_size=2, sampler=sampler, generator=generator()
            )
            for sampler in ("auto", "sparse", "dense")
        }
        assert torch.equal(outs["auto"], outs[expected])


def test_under_vmap_the_dense_sampler_draws_for_each():
    def one(x):
        return replace_blocks(x, 0.5, block_size=2, sampler="dense")

    out = torch.func.vmap(one, randomness="different")(torch.ones(3, 2, 2, 6, 6))
    assert len((out == 0).flatten(1).unique(dim=0)) == 3


def test_compiled_code_does_not_depend_on_the_rate():
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()

    @torch.compile(fullgraph=True, backend=counter)
    def compiled(x, p):
        return replace_blocks(x, p, block_size=3, spread=torch.ones(1))

    for p in (0.0, 0.1, 0.5):
        out = compiled(torch.ones(8, 4, 8, 8), torch.tensor(p))
        assert (p == 0.0) == torch.equal(out, torch.ones(8, 4, 8, 8))
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"block_size": 0}, "block_size must be a whole number of at least 1"),
        ({"block_size": (2, 2, 2)}, "one per spatial axis"),
        ({"block_size": 2, "p": 1.5}, "p must lie in"),
        ({"block_size": 2, "spread": torch.ones(2)}, r"spread must have shape \(1,\) or \(3,\)"),
        ({"block_size": 2, "sampler": "fast"}, "sampler must be one of"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    arguments = {"p": 0.1} | kwargs
    with pytest.raises(ValueError, match=message):
        replace_blocks(torch.ones(2, 3, 4, 4), arguments.pop("p"), **arguments)


def test_features_without_channels_and_of_integers_are_refused():
    with pytest.raises(ValueError, match="shape"):
        block_grid((3,), 2)
    with pytest.raises(TypeError, match="floating"):
        replace_blocks(torch.ones(2, 3, 4, 4, dtype=torch.int64), 0.1, block_size=2)


def test_block_is_clipped_along_each_axis():
    assert block_grid((1, 5, 3, 9), 7) == BlockGrid((5, 3, 9), (1, 3, 7))
    assert block_grid((1, 5, 3, 9), 7, share_channels=True).block == (5, 3, 7)
    assert block_grid((1, 5, 3, 9), (2, 4)).block == (1, 2, 4)


@pytest.mark.parametrize("num_cells", [1, 7, 8, 9, 64, 1000])
def test_distinct_cells_are_counted_in_words(num_cells):
    from lastlayer.functional.blocks.sparse import _count_distinct

    for count in (0, 1, num_cells // 2, 3 * num_cells):
        cells = torch.randint(num_cells, (count,), generator=generator(count))
        assert _count_distinct(cells, num_cells) == len(cells.unique())
    assert _count_distinct(torch.arange(num_cells), num_cells) == num_cells
