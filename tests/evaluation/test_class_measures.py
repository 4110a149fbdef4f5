"""Accuracy by class and group against scikit-learn and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn import metrics

from lastlayer.evaluation import (
    balanced_accuracy,
    class_accuracy,
    confusion_counts,
    group_accuracy,
    group_confusion,
)

GENERATOR = torch.Generator().manual_seed(0)
TARGET = torch.randint(5, (200,), generator=GENERATOR)
PREDICTION = torch.where(
    torch.rand(200, generator=GENERATOR) < 0.6,
    TARGET,
    torch.randint(5, (200,), generator=GENERATOR),
)
GROUPS = {
    "many": torch.tensor([True, True, False, False, False]),
    "medium": torch.tensor([False, False, True, False, False]),
    "few": torch.tensor([False, False, False, True, True]),
}


def test_the_table_and_the_balanced_accuracy_are_scikit_learns():
    table = confusion_counts(PREDICTION, TARGET, 5)
    assert table.tolist() == metrics.confusion_matrix(TARGET, PREDICTION).tolist()
    expected = metrics.balanced_accuracy_score(TARGET, PREDICTION)
    assert balanced_accuracy(table) == pytest.approx(expected)
    recall = metrics.recall_score(TARGET, PREDICTION, average=None)
    assert class_accuracy(table).tolist() == pytest.approx(recall.tolist())


def test_groups_average_their_classes_and_lead_somewhere():
    table = confusion_counts(PREDICTION, TARGET, 5)
    accuracy = class_accuracy(table)
    by_group = group_accuracy(table, GROUPS)
    for name, mask in GROUPS.items():
        assert by_group[name] == pytest.approx(float(accuracy[mask].mean()))
    shares = group_confusion(table, GROUPS)
    torch.testing.assert_close(shares.sum(1), torch.ones(3).double())
    into_many = [
        float(((PREDICTION < 2) & (k == TARGET)).sum() / (k == TARGET).sum()) for k in (3, 4)
    ]
    assert float(shares[2, 0]) == pytest.approx(sum(into_many) / 2)
    assert all(shares[i, i] >= by_group[name] for i, name in enumerate(GROUPS))


def test_a_group_without_classes_or_examples_is_nan_not_zero():
    table = torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    none = torch.zeros(3, dtype=torch.bool)
    groups = {
        "a": torch.tensor([True, True, False]),
        "b": none,
        "c": torch.tensor([False, False, True]),
    }
    accuracy = group_accuracy(table, groups)
    assert accuracy["a"] == 0.875
    assert math.isnan(accuracy["b"])
    assert math.isnan(accuracy["c"])
    assert group_confusion(table, groups).isnan().all(1).tolist() == [False, True, True]
    assert balanced_accuracy(table) == 0.875


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"prediction must lie in \[0, 1\]; got 2"):
        confusion_counts(torch.tensor([2]), torch.tensor([0]), 2)
    with pytest.raises(ValueError, match="one shape"):
        confusion_counts(torch.tensor([0, 1]), torch.tensor([0]), 2)
    with pytest.raises(TypeError, match="target must hold int64"):
        confusion_counts(torch.tensor([0]), torch.tensor([0.0]), 2)
    with pytest.raises(ValueError, match="at least one example"):
        balanced_accuracy(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="group 'x' must be a bool mask"):
        group_accuracy(torch.eye(2), {"x": torch.tensor([1, 0])})
    with pytest.raises(ValueError, match="every class exactly once"):
        group_confusion(torch.eye(2), {"x": torch.tensor([True, False])})
    with pytest.raises(ValueError, match=r"confusion must have shape \(K, K\)"):
        class_accuracy(torch.zeros(2, 3))
