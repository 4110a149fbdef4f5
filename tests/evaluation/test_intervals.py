import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastlayer.evaluation import mean_interval, mean_sd, paired_difference

values = st.lists(st.floats(-100, 100), min_size=2, max_size=8)


def test_paired_difference_agrees_with_scipys_paired_t_test():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=6), rng.normal(size=6)
    expected = ttest_rel(a, b).confidence_interval(0.9)
    interval = paired_difference(a.tolist(), b.tolist(), confidence=0.9)
    assert interval.low == pytest.approx(expected.low)
    assert interval.high == pytest.approx(expected.high)
    assert interval.mean == pytest.approx((a - b).mean())
    assert interval.n == 6


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    trials, confidence = 2_000, 0.8
    hits = 0
    for row in rng.normal(loc=3.0, size=(trials, 4)):
        interval = mean_interval(row.tolist(), confidence)
        hits += interval.low <= 3.0 <= interval.high
    sd = math.sqrt(confidence * (1 - confidence) / trials)
    assert abs(hits / trials - confidence) < 4 * sd


@given(values)
def test_swapping_the_sides_mirrors_the_interval(a):
    b = [x / 2 + 1 for x in a]
    forward, backward = paired_difference(a, b), paired_difference(b, a)
    assert forward.mean == pytest.approx(-backward.mean, abs=1e-9)
    assert forward.low == pytest.approx(-backward.high, abs=1e-9)


@given(values)
def test_mean_and_sd_equal_numpy(a):
    mean, sd = mean_sd(a)
    assert mean == pytest.approx(np.mean(a), abs=1e-12)
    assert sd == pytest.approx(np.std(a, ddof=1), abs=1e-12)


def test_one_seed_gives_an_infinite_interval_and_no_sd():
    assert paired_difference([2.0], [1.5]) == (0.5, -math.inf, math.inf, 1)
    mean, sd = mean_sd([2.0])
    assert mean == 2.0
    assert math.isnan(sd)


def test_infinite_values_give_no_interval_and_no_warning():
    assert mean_interval([math.inf, 1.0]) == (math.inf, -math.inf, math.inf, 2)
    both = paired_difference([math.inf, 1.0], [math.inf, 2.0])
    assert math.isnan(both.mean)
    assert (both.low, both.high) == (-math.inf, math.inf)
    assert math.isnan(mean_sd([math.inf, -math.inf])[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_sd([]), "non-empty"),
        (lambda: mean_sd([math.nan]), "NaN"),
        (lambda: mean_interval([1.0, 2.0], confidence=95), "confidence"),
        (lambda: paired_difference([1.0], [1.0, 2.0]), "same seeds; got 1 and 2"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
