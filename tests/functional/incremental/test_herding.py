"""Herding against brute force, and what its order promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.functional.incremental import herding_order, unit_rows


def brute_force(features, size):
    """Try every remaining example in every place, in NumPy's float64."""
    rows = features.double().numpy()
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    mean, chosen = rows.mean(axis=0), []
    for k in range(1, min(size, len(rows)) + 1):
        distances = {
            i: np.linalg.norm(mean - rows[[*chosen, i]].sum(axis=0) / k)
            for i in range(len(rows))
            if i not in chosen
        }
        least = min(distances.values())
        chosen.append(min(i for i, d in distances.items() if d <= least + 1e-11))
    return chosen


def memoryless_twin(features, size):
    """The mistake: examples by their own distance to the mean, whatever was chosen before."""
    rows = unit_rows(features.double())
    return (rows - rows.mean(dim=0)).norm(dim=1).argsort()[:size].tolist()


def random_features(seed, num=23, dim=5):
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
def test_the_order_is_brute_forces_and_the_memoryless_twin_is_not(seed):
    features = random_features(seed) + 0.5
    expected = brute_force(features, 23)
    assert herding_order(features, 23).tolist() == expected
    assert memoryless_twin(features, 23) != expected


@given(
    st.lists(st.lists(st.integers(-2, 2), min_size=2, max_size=2), min_size=1, max_size=8),
    st.integers(0, 9),
)
@settings(max_examples=100)
def test_duplicates_zeros_and_ties_come_out_as_brute_force_has_them(rows, size):
    features = torch.tensor(rows, dtype=torch.float64)
    assert herding_order(features, size).tolist() == brute_force(features, size)


def test_a_smaller_selection_is_the_beginning_of_a_larger_one():
    features = random_features(0)
    whole = herding_order(features, 23)
    assert all(herding_order(features, m).equal(whole[:m]) for m in range(24))
    assert whole.sort().values.equal(torch.arange(23))
    assert herding_order(features, 1000).equal(whole)


def test_equal_examples_come_in_their_own_order():
    assert herding_order(torch.ones(37, 3), 37).equal(torch.arange(37))
    assert herding_order(torch.zeros(4, 3), 4).equal(torch.arange(4))


def test_lengths_do_not_matter_and_extreme_ones_do_not_overflow():
    features = random_features(1).double()
    expected = herding_order(features, 23)
    scale = torch.logspace(-30, 30, 23, dtype=torch.float64).unsqueeze(1)
    assert herding_order(features * scale, 23).equal(expected)
    assert herding_order((features * 1e200), 23).equal(expected)


def test_the_mean_of_a_selection_is_nearer_than_that_of_random_ones():
    rows = unit_rows(random_features(2, num=200).double())
    mean = rows.mean(dim=0)
    chosen = rows[herding_order(rows, 10)].mean(dim=0)
    generator = torch.Generator().manual_seed(0)
    distances = [
        float((rows[torch.randperm(200, generator=generator)[:10]].mean(dim=0) - mean).norm())
        for _ in range(200)
    ]
    assert float((chosen - mean).norm()) < min(distances)


def test_half_precision_and_one_example_and_none():
    features = random_features(3).bfloat16()
    assert herding_order(features, 5).equal(herding_order(features.double(), 5))
    assert herding_order(torch.randn(1, 4), 3).tolist() == [0]
    assert herding_order(torch.empty(0, 4), 3).tolist() == []
    assert herding_order(torch.randn(3, 4), 0).dtype == torch.int64


@pytest.mark.parametrize(
    ("features", "size", "error", "named"),
    [
        (torch.zeros(3, 2, dtype=torch.int64), 1, TypeError, "features"),
        (torch.zeros(3), 1, ValueError, "features"),
        (torch.zeros(3, 0), 1, ValueError, "features"),
        (torch.full((3, 2), torch.nan), 1, ValueError, "features"),
        (torch.zeros(3, 2), -1, ValueError, "size"),
        (torch.zeros(3, 2), 1.0, ValueError, "size"),
    ],
)
def test_bad_input_is_named(features, size, error, named):
    with pytest.raises(error, match=named):
        herding_order(features, size)
