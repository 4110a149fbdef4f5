"""Draws by class, against brute force and their own definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastlayer.data.subset import (
    balanced_subset,
    level_counts,
    proportional_counts,
    stratified_subset,
)

counts_and_size = st.lists(st.integers(0, 6), min_size=1, max_size=4).flatmap(
    lambda counts: st.tuples(st.just(np.array(counts)), st.integers(0, sum(counts)))
)


def all_counts(available, size):
    """Every way to take ``size`` examples."""
    ways = itertools.product(*(range(count + 1) for count in available))
    return [np.array(way) for way in ways if sum(way) == size]


@given(counts_and_size, st.randoms(use_true_random=False))
def test_level_counts_have_the_least_sum_of_squares_of_all_ways(case, random):
    available, size = case
    order = list(range(len(available)))
    random.shuffle(order)
    counts = level_counts(available, size, np.array(order))
    assert counts.sum() == size
    assert (counts <= available).all()
    assert (counts**2).sum() == min((way**2).sum() for way in all_counts(available, size))


@given(counts_and_size)
def test_proportional_counts_leave_one_of_each_class_and_differ_least_from_the_proportion(case):
    available, size = case
    limit = np.maximum(available - 1, 0)
    if size > limit.sum():
        with pytest.raises(ValueError, match="leave one of each class"):
            proportional_counts(available, size)
        return
    counts = proportional_counts(available, size)
    assert counts.sum() == size
    assert (counts <= limit).all()
    wanted = available * size / max(available.sum(), 1)
    if (wanted <= limit).all():  # then nothing hinders the proportion
        assert (np.abs(counts - wanted) < 1).all()


@given(st.lists(st.integers(3, 9), min_size=2, max_size=5), st.integers(0, 2**32), st.data())
def test_balanced_subset_is_balanced_distinct_and_nested(counts, seed, data):
    target = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    names = [f"class {label}" for label in range(len(counts))]
    largest = len(counts) * min(counts)
    sizes = sorted(data.draw(st.integers(len(counts), largest)) for _ in range(2))
    small, large = (
        balanced_subset(target, size, class_names=names, rng=np.random.default_rng(seed))
        for size in sizes
    )
    for size, subset in zip(sizes, (small, large), strict=True):
        taken = np.bincount(target[subset], minlength=len(counts))
        assert len(subset) == len(set(subset)) == size
        assert taken.max() - taken.min() <= 1
    assert set(small) <= set(large)


def test_a_class_with_too_few_examples_is_named():
    target = np.array([0] * 9 + [1] * 2 + [2] * 9)
    with pytest.raises(ValueError, match=r"at least 3 training examples .* class 'bee' has 2"):
        balanced_subset(target, 9, class_names=("ant", "bee", "cow"), rng=np.random.default_rng(0))


@pytest.mark.parametrize("size", [0, 2, -1])
def test_fewer_examples_than_classes_are_refused(size):
    with pytest.raises(ValueError, match="train_size must be at least 3"):
        balanced_subset(
            np.arange(3), size, class_names=("a", "b", "c"), rng=np.random.default_rng(0)
        )


def test_every_example_of_a_class_is_as_likely_as_another():
    target = np.array([0] * 5 + [1] * 5)
    rng = np.random.default_rng(0)
    draws = 2000
    hits = np.zeros(10)
    for _ in range(draws):
        hits[stratified_subset(target, 4, rng)] += 1
    # 2 of 5: binomial(2000, 0.4) for each; 5 standard deviations around the mean.
    assert np.abs(hits - 0.4 * draws).max() < 5 * np.sqrt(draws * 0.4 * 0.6)
