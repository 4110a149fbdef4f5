"""Class counts that bring their classes as keys or index are put in the order of the classes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from lastlayer.functional import adjust_logits, balanced_softmax_loss
from lastlayer.functional.class_priors import PriorCorrection, as_class_counts
from lastlayer.functional.incremental import rehearsal_counts
from lastlayer.heads import LDAM, BalancedSoftmax, set_class_counts
from lastlayer.longtail import MetaSampler, shot_groups
from lastlayer.losses import BalancedSoftmaxLoss, ClassBalancedLoss, PCSoftmaxLoss

LABELS = [2, 1, 0, 1, 1, 2]  # classes by frequency: 1, 2, 0
BY_CLASS = [1, 3, 2]


def series(labels, **options):
    pandas = pytest.importorskip("pandas")
    return pandas.Series(labels).value_counts(**options)


SOURCES = {
    "Counter": lambda: Counter(LABELS),
    "dict": lambda: {1: 3, 2: 2, 0: 1},
    "NumPy keys": lambda: dict(zip(*np.unique(LABELS, return_counts=True), strict=True)),
    "Series": lambda: series(LABELS),
    "sorted Series": lambda: series(LABELS).sort_index(),
    "shares": lambda: series(LABELS, normalize=True) * 6,
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_keys_and_indices_name_the_classes(source):
    assert as_class_counts(source()).tolist() == BY_CLASS


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_whatever_takes_class_counts_takes_them_by_class(source):
    assert BalancedSoftmaxLoss(source()).class_counts.tolist() == BY_CLASS
    assert ClassBalancedLoss(source()).class_counts.tolist() == BY_CLASS
    torch.testing.assert_close(
        PCSoftmaxLoss.from_counts(source()).prior, torch.tensor(BY_CLASS) / 6
    )
    assert BalancedSoftmax(4, 3, class_counts=source()).class_counts.tolist() == BY_CLASS
    assert LDAM(4, 3, class_counts=source()).class_counts.tolist() == BY_CLASS
    head = BalancedSoftmax(4, 3, class_counts=[9, 9, 9])
    set_class_counts(head, source())
    assert head.class_counts.tolist() == BY_CLASS
    assert MetaSampler(source()).class_counts.tolist() == BY_CLASS
    assert rehearsal_counts(source(), 0).tolist() == BY_CLASS
    groups = shot_groups(source(), many=2, few=2)
    assert groups.members["many"].tolist() == [False, True, False]
    logits, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    expected = torch.nn.functional.cross_entropy(logits + torch.tensor(BY_CLASS).log(), target)
    torch.testing.assert_close(balanced_softmax_loss(logits, target, source()), expected)
    moved = adjust_logits(logits, source()) - (logits - torch.tensor(BY_CLASS).log())
    torch.testing.assert_close(moved, moved[:1, :1].expand(5, 3), atol=1e-6, rtol=0)
    assert PriorCorrection(source()).class_counts.tolist() == BY_CLASS


@pytest.mark.parametrize(
    ("counts", "among"),
    [
        (Counter([0, 2, 2]), r"got 2, among them \[0, 2\]"),
        (Counter(["cat", "dog"]), "'cat', 'dog'"),
        ({1: 4, 2: 5}, r"\[1, 2\]"),
        ({0: 4, True: 5}, "True"),
        ({0.0: 4, 1.0: 5}, "0.0"),
    ],
)
def test_keys_that_are_not_the_classes_are_refused(counts, among):
    with pytest.raises(ValueError, match=f"must name every class from 0 on once.*{among}"):
        as_class_counts(counts)


def test_an_index_of_names_is_refused_and_of_repeated_classes_too():
    pandas = pytest.importorskip("pandas")
    for index in (["a", "b"], [0, 0]):
        with pytest.raises(ValueError, match="must name every class from 0 on once"):
            as_class_counts(pandas.Series([3, 4], index=index))


def test_a_class_without_examples_is_named_with_count_zero():
    assert as_class_counts({1: 0, 0: 7}, zero_counts="mask").tolist() == [7, 0]
    with pytest.raises(ValueError, match=r"class_counts must have shape \(3,\)"):
        as_class_counts({1: 5, 0: 7}, 3)
