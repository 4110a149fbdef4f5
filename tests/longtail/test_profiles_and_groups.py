"""Class counts of the known long tails, exactly; groups of classes at their boundaries."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lastlayer.longtail import (
    PROFILES,
    class_groups,
    exponential_counts,
    pareto_counts,
    profile_counts,
    shot_groups,
    step_counts,
    tertile_groups,
)

CIFAR10 = {
    200: [5000, 2775, 1540, 854, 474, 263, 146, 81, 45, 25],
    100: [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
}


@pytest.mark.parametrize(("imbalance", "counts"), CIFAR10.items())
def test_cifar10_lt_has_its_counts(imbalance, counts):
    assert exponential_counts(10, 5000, imbalance) == counts


@pytest.mark.parametrize(
    ("imbalance", "ten", "hundred", "least", "groups"),
    [
        (200, 11203, 9502, 2, (30, 31, 39)),
        (100, 12406, 10847, 5, (35, 35, 30)),
        (50, 13996, 12608, 10, (41, 41, 18)),
        (10, 20431, 19573, 50, (69, 31, 0)),
    ],
)
def test_cifar_lt_has_its_totals_minima_and_groups(imbalance, ten, hundred, least, groups):
    counts = exponential_counts(100, 500, imbalance)
    assert sum(exponential_counts(10, 5000, imbalance)) == ten
    assert (sum(counts), min(counts)) == (hundred, least)
    members = shot_groups(counts).members
    assert tuple(int(mask.sum()) for mask in members.values()) == groups


def test_digits_lt_has_its_counts():
    assert exponential_counts(10, 140, 100) == [140, 83, 50, 30, 18, 10, 6, 3, 2, 1]
    assert exponential_counts(10, 140, 50) == [140, 90, 58, 38, 24, 15, 10, 6, 4, 2]


@given(
    st.sampled_from(sorted(PROFILES)),
    st.integers(1, 60),
    st.integers(1, 10**6),
    st.floats(1, 1000),
)
def test_every_profile_falls_from_the_largest_to_the_imbalance(name, k, n_max, imbalance):
    counts = profile_counts(name, k, n_max, imbalance, small="clamp")
    assert len(counts) == k
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == n_max
    assert min(counts) >= 1
    if k > 1:
        assert counts[-1] == pytest.approx(max(1, n_max / imbalance), abs=1)


@given(st.sampled_from(sorted(PROFILES)), st.integers(1, 60), st.integers(1, 10**6))
def test_an_imbalance_of_one_changes_nothing_and_whole_ratios_are_exact(name, k, n):
    assert profile_counts(name, k, n, 1) == [n] * k
    # 49 * (1 / 49) is below 1 in floating point.
    assert profile_counts(name, max(2, k), n, n)[-1] == 1


def test_a_single_class_keeps_everything():
    for name in PROFILES:
        assert profile_counts(name, 1, 7, 100) == [7]


def test_a_class_without_an_example_is_an_error_or_clamped():
    with pytest.raises(ValueError, match="the class of rank 7 keeps none"):
        exponential_counts(10, 25, 100)
    assert exponential_counts(10, 25, 100, small="clamp")[-4:] == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="imbalance must be"):
        exponential_counts(10, 100, 0.5)
    with pytest.raises(ValueError, match="n_max must be a whole number"):
        exponential_counts(10, 0, 10)
    with pytest.raises(ValueError, match="profile must be one of"):
        profile_counts("linear", 10, 100, 10)
    with pytest.raises(ValueError, match="small must be one of"):
        exponential_counts(10, 100, 10, small="drop")


def test_steps_and_powers():
    assert step_counts(4, 500, 100) == [500, 500, 5, 5]
    assert step_counts(3, 100, 10) == [100, 10, 10]
    assert pareto_counts(2, 1280, 256) == [1280, 5]
    steep, flat = pareto_counts(100, 1000, 100, alpha=1.0), pareto_counts(100, 1000, 100, alpha=1e6)
    assert sum(steep) < sum(flat)
    exponential = exponential_counts(100, 1000, 100)
    assert max(abs(a - b) for a, b in zip(flat, exponential, strict=True)) <= 1


def test_the_boundaries_100_and_20_are_medium():
    members = shot_groups([101, 100, 20, 19, 0]).members
    assert [mask.nonzero().flatten().tolist() for mask in members.values()] == [[0], [1, 2], [3, 4]]


def test_thirds_are_by_rank_with_the_remainder_in_the_middle():
    counts = torch.tensor([1, 50, 2, 40, 3, 30, 4, 20, 5, 10])
    members = tertile_groups(counts).members
    assert [int(mask.sum()) for mask in members.values()] == [3, 4, 3]
    assert members["head"].nonzero().flatten().tolist() == [1, 3, 5]
    assert members["tail"].nonzero().flatten().tolist() == [0, 2, 4]
    for k in range(1, 8):
        masks = torch.stack(list(tertile_groups([5] * k).members.values()))
        assert (masks.sum(0) == 1).all()
    assert [int(m.sum()) for m in tertile_groups([2, 1]).members.values()] == [1, 0, 1]


def test_thirds_stand_in_where_a_fixed_group_is_empty_and_say_so():
    assert class_groups(exponential_counts(100, 500, 100)).scheme == "shots"
    thirds = class_groups(exponential_counts(100, 500, 10))
    assert thirds.scheme == "tertiles"
    assert thirds.describe() == (
        "Thirds of the classes by training examples (head 33, mid 34, tail 33 classes)."
    )
    fixed = class_groups(exponential_counts(100, 500, 10), "shots")
    assert not fixed.members["few"].any()
    assert "few below 20 (many 69, medium 31, few 0 classes)" in fixed.describe()
    with pytest.raises(ValueError, match="scheme must be one of"):
        class_groups([1, 2], "quartiles")
