"""Long-tailed subsets: exact counts, the same in every stage; counts that fit."""

from __future__ import annotations

import pytest
import torch

from lastlayer.data import Split
from lastlayer.longtail import (
    class_counts,
    exponential_counts,
    long_tail_counts,
    long_tail_indices,
    long_tail_subset,
)

LABELS = torch.arange(10).repeat(50)[
    torch.randperm(500, generator=torch.Generator().manual_seed(0))
]
INPUTS = torch.arange(500.0)[:, None]
SPLIT = Split(INPUTS, LABELS)


def test_the_subset_has_the_profiles_counts_in_label_order():
    part = long_tail_subset(SPLIT, 10)
    assert class_counts(part).tolist() == exponential_counts(10, 50, 10)
    rows = part.inputs[:, 0].long()
    assert torch.equal(LABELS[rows], part.target)
    assert (rows.diff() > 0).all()


def test_a_random_order_permutes_the_same_counts_by_the_seed():
    counts = [long_tail_counts([50] * 10, 10, order="random", seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(counts[0], counts[1])
    assert not torch.equal(counts[0], counts[2])
    assert sorted(counts[0].tolist(), reverse=True) == exponential_counts(10, 50, 10)


def test_every_stage_draws_the_same_examples_and_other_seeds_draw_others():
    first = long_tail_subset(SPLIT, 10, seed=3).inputs
    torch.manual_seed(99)
    torch.rand(1000)  # what happens in between does not matter
    assert torch.equal(first, long_tail_subset(SPLIT, 10, seed=3).inputs)
    assert not torch.equal(first, long_tail_subset(SPLIT, 10, seed=4).inputs)


def test_a_fuller_tail_holds_the_examples_of_a_thinner_one():
    thin, full = (
        set(long_tail_indices(LABELS, long_tail_counts([50] * 10, r), seed=1).tolist())
        for r in (50, 5)
    )
    assert thin < full


def test_draws_are_uniform_over_a_classs_examples():
    labels = torch.zeros(20, dtype=torch.int64)
    chosen = torch.zeros(20)
    trials = 2000
    for seed in range(trials):
        chosen[long_tail_indices(labels, torch.tensor([5]), seed=seed)] += 1
    z = (chosen - trials / 4) / (trials * 0.25 * 0.75) ** 0.5
    assert z.abs().max() < 5


def test_an_imbalance_of_one_leaves_the_data_as_they_are():
    uneven = Split(torch.zeros(5, 1), torch.tensor([0, 0, 0, 1, 1]))
    part = long_tail_subset(uneven, 1)
    assert torch.equal(part.target, uneven.target)
    assert class_counts(long_tail_subset(uneven, 1, n_max=2)).tolist() == [2, 2]


def test_more_than_there_is_is_an_error():
    with pytest.raises(ValueError, match="n_max=51 asks for 51 examples of class 0, which has 50"):
        long_tail_subset(SPLIT, 10, n_max=51)
    with pytest.raises(ValueError, match="keeps none"):
        long_tail_subset(SPLIT, 100)
    assert class_counts(long_tail_subset(SPLIT, 100, small="clamp")).min() == 1
    with pytest.raises(ValueError, match="counts ask for 3 examples of class 1; it has 1"):
        long_tail_indices(torch.tensor([0, 1]), torch.tensor([1, 3]))
    with pytest.raises(TypeError, match=r"split must be a .*Split; got list.* long_tail_indices"):
        long_tail_subset([(0.0, 1)], 10)
    with pytest.raises(ValueError, match="order must be one of"):
        long_tail_subset(SPLIT, 10, order="size")
