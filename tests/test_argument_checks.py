"""Numbers as arguments: what is one, what is not, and that the message names the argument."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from lastlayer import _checks
from lastlayer import losses as L
from lastlayer.data.augmentation import RandomCrop
from lastlayer.functional import (
    balanced_softmax_loss,
    ldam_margins,
    masked_cross_entropy,
    sampled_class_mask,
    sparsemax_loss,
)
from lastlayer.functional.class_priors import PriorCorrection, as_class_counts
from lastlayer.functional.dropmax import monte_carlo_log_prob
from lastlayer.heads import (
    LDAM,
    BalancedSoftmax,
    ClassBalanced,
    ClassDropout,
    DropMax,
    LogitAdjusted,
    PCSoftmax,
    SampledSoftmax,
    Softmax,
    grow,
)
from lastlayer.information import ClassMaps
from lastlayer.longtail import MetaSampler

NO_NUMBERS = ["2", True, None, torch.tensor(2.0), np.bool_(True), 1j]
REAL_CHECKS: dict[str, Callable[[object], None]] = {
    "positive": lambda value: _checks.check_positive("size", value),
    "at least": lambda value: _checks.check_at_least("size", value, 0.0),
    "probability": lambda value: _checks.check_probability("size", value),
    "inside": lambda value: _checks.check_inside("size", value, 0.0, 3.0),
}
WHOLE_CHECKS: dict[str, Callable[[object], None]] = {
    "count": lambda value: _checks.check_count("size", value),
    "whole": lambda value: _checks.check_whole("size", value, 0, 9),
}


@pytest.mark.parametrize(
    "check", (REAL_CHECKS | WHOLE_CHECKS).values(), ids=REAL_CHECKS | WHOLE_CHECKS
)
@pytest.mark.parametrize("value", [*NO_NUMBERS, math.nan, math.inf, -1, np.float32(-1)])
def test_what_is_no_number_of_the_range_is_refused_by_name(check, value):
    with pytest.raises((TypeError, ValueError), match=r"^size must "):
        check(value)


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("check", REAL_CHECKS.values(), ids=REAL_CHECKS)
def test_what_is_no_number_is_an_error_of_type(check, value):
    with pytest.raises(TypeError, match="size must be a number; got"):
        check(value)


@pytest.mark.parametrize("check", REAL_CHECKS.values(), ids=REAL_CHECKS)
@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.float64(0.5), np.int64(1)])
def test_numbers_of_python_and_numpy_pass(check, value):
    check(value)


@pytest.mark.parametrize("check", WHOLE_CHECKS.values(), ids=WHOLE_CHECKS)
def test_whole_numbers_of_python_and_numpy_pass_and_fractions_do_not(check):
    for value in (1, np.int32(1), np.uint8(1), np.int64(1)):
        check(value)
    for value in (1.5, 1.0, np.float64(1.0)):
        with pytest.raises(ValueError, match="size must be a whole number"):
            check(value)


LOGITS, Y = torch.zeros(2, 3), torch.tensor([0, 1])
COUNTS_WANTED: dict[str, Callable[[object], object]] = {
    "in_features": lambda n: Softmax(n, 3),
    "num_classes": lambda n: Softmax(3, n),
    "num_samples": lambda n: DropMax(3, 3, num_samples=n),
    "prediction_samples": lambda n: DropMax(3, 3, prediction_samples=n),
    "prediction_samples ": lambda n: ClassDropout(3, 3, prediction_samples=n),
    "num_samples ": lambda n: L.SampledSoftmaxLoss(n),
    "num_samples  ": lambda n: sampled_class_mask(Y, 3, n),
    "num_samples   ": lambda n: monte_carlo_log_prob(LOGITS, LOGITS, num_samples=n),
    "num_new": lambda n: grow(Softmax(3, 3), n),
    "padding": lambda n: RandomCrop(padding=n),
}


@pytest.mark.parametrize("name", COUNTS_WANTED)
@pytest.mark.parametrize("value", [1.5, "2", math.nan, True])
def test_counts_of_things_are_whole_numbers(name, value):
    with pytest.raises((TypeError, ValueError), match=f"{name.strip()} must be a whole number"):
        COUNTS_WANTED[name](value)


@pytest.mark.parametrize("value", ["2", True, math.nan, math.inf, 1.5, torch.tensor(2)])
def test_a_number_or_share_of_negatives_is_one_of_both(value):
    with pytest.raises((TypeError, ValueError), match=r"^num_samples must be a"):
        SampledSoftmax(3, 10, num_samples=value)


def test_numbers_of_numpy_build_a_head_of_plain_ones():
    head = Softmax(np.int64(4), np.int32(3))
    assert (type(head.in_features), type(head.num_classes)) == (int, int)
    assert head(torch.zeros(2, 4), Y).loss.isfinite()


COUNTS = [3, 2, 1]
PRIOR = torch.tensor([0.5, 0.25, 0.25])
ALL = torch.ones(2, 3, dtype=torch.bool)
TAKE_IGNORE_INDEX: dict[str, Callable[[object], object]] = {
    "Softmax": lambda i: Softmax(4, 3, ignore_index=i),
    "DropMax": lambda i: DropMax(4, 3, ignore_index=i),
    "LDAM": lambda i: LDAM(4, 3, class_counts=COUNTS, ignore_index=i),
    "SampledSoftmax": lambda i: SampledSoftmax(4, 3, num_samples=1, ignore_index=i),
    "SparsemaxLoss": lambda i: L.SparsemaxLoss(ignore_index=i),
    "PCSoftmaxLoss": lambda i: L.PCSoftmaxLoss(PRIOR, ignore_index=i),
    "SampledSoftmaxLoss": lambda i: L.SampledSoftmaxLoss(1, ignore_index=i),
    "LDAMLoss": lambda i: L.LDAMLoss(COUNTS, ignore_index=i),
    "sparsemax_loss": lambda i: sparsemax_loss(LOGITS, Y, ignore_index=i),
    "soft targets": lambda i: sparsemax_loss(LOGITS, LOGITS.softmax(-1), ignore_index=i),
    "balanced_softmax_loss": lambda i: balanced_softmax_loss(LOGITS, Y, COUNTS, ignore_index=i),
    "masked_cross_entropy": lambda i: masked_cross_entropy(LOGITS, Y, ALL, ignore_index=i),
}


@pytest.mark.parametrize("name", TAKE_IGNORE_INDEX)
@pytest.mark.parametrize("value", [1.5, 1.0, True, "a", None, torch.tensor(1)])
def test_an_ignore_index_is_an_integer(name, value):
    with pytest.raises(TypeError, match=r"^ignore_index must be an integer; got"):
        TAKE_IGNORE_INDEX[name](value)


@pytest.mark.parametrize("name", TAKE_IGNORE_INDEX)
def test_an_ignore_index_of_numpy_passes_as_a_plain_one(name):
    built = TAKE_IGNORE_INDEX[name](np.int64(-1))
    assert type(getattr(built, "ignore_index", -1)) is int


@pytest.mark.parametrize("value", [[0.5, 0.25, 0.25], np.array([0.5, 0.25, 0.25])])
def test_a_weight_or_prior_that_is_no_tensor_is_refused_by_name(value):
    given = type(value).__name__
    for build in (lambda: Softmax(4, 3, weight=value), lambda: L.SparsemaxLoss(weight=value)):
        with pytest.raises(TypeError, match=f"^weight must be a tensor; got {given}$"):
            build()
    with pytest.raises(TypeError, match=f"^prior must be a tensor; got {given}$"):
        L.PCSoftmaxLoss(value)


@pytest.mark.parametrize("counts", [["a", "b", "c"], "abc", {0: "a", 1: 2}, [[1, 2], [3]], [None]])
def test_class_counts_are_numbers(counts):
    for build in (as_class_counts, L.LDAMLoss):
        with pytest.raises(TypeError, match=r"^class_counts must hold one number per class, in a"):
            build(counts)


@pytest.mark.parametrize("kind", [list, np.array])
@pytest.mark.parametrize("head", [BalancedSoftmax, LogitAdjusted])
def test_a_head_predicts_for_a_prior_in_a_list_or_an_array_as_in_a_tensor(head, kind):
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    model = head(4, 3, class_counts=COUNTS).eval()
    expected = model.log_prob(features, prior=torch.tensor([1, 2, 3]))
    assert torch.equal(model.log_prob(features, prior=kind([1, 2, 3])), expected)


ZERO = [3, 0, 1]
WITHOUT_MASK = {
    "LDAM": lambda: LDAM(4, 3, class_counts=ZERO),
    "ClassBalanced": lambda: ClassBalanced(4, 3, class_counts=ZERO),
    "PCSoftmax": lambda: PCSoftmax(4, 3, class_counts=ZERO),
    "LDAMLoss": lambda: L.LDAMLoss(ZERO),
    "ClassBalancedLoss": lambda: L.ClassBalancedLoss(ZERO),
    "MetaSampler": lambda: MetaSampler(ZERO),
    "PriorCorrection": lambda: PriorCorrection(ZERO),
    "ldam_margins": lambda: ldam_margins(ZERO),
}
WITH_MASK = {
    "BalancedSoftmax": lambda: BalancedSoftmax(4, 3, class_counts=ZERO),
    "BalancedSoftmaxLoss": lambda: L.BalancedSoftmaxLoss(ZERO),
    "balanced_softmax_loss": lambda: balanced_softmax_loss(LOGITS, Y, ZERO),
    "as_class_counts": lambda: as_class_counts(ZERO),
}


@pytest.mark.parametrize("name", WITHOUT_MASK | WITH_MASK)
def test_a_zero_count_is_told_to_mask_only_where_that_is_an_argument(name):
    with pytest.raises(ValueError, match="class 1 never occurs: leave it out") as error:
        (WITHOUT_MASK | WITH_MASK)[name]()
    assert ("zero_counts='mask'" in str(error.value)) == (name in WITH_MASK)


def test_class_maps_speak_of_no_ignore_index():
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
    ).eval()
    with pytest.raises(ValueError, match=r"target must lie in \[0, 3\]; got 100$"):
        ClassMaps(network)(torch.zeros(2, 3, 6, 6), torch.tensor([0, 100]))
