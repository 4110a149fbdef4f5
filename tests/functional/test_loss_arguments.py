"""Reduction of rows: torch's own cross-entropy is the oracle."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.functional.loss_arguments import reduce_rows, split_ignored

labels = st.lists(st.sampled_from([-100, 0, 1, 2]), min_size=1, max_size=6).filter(
    lambda row: any(label >= 0 for label in row)
)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@settings(max_examples=30)
@given(target=labels, seed=st.integers(0, 99))
def test_reduction_weights_and_ignored_rows_are_torchs(reduction, weighted, target, seed):
    target = torch.tensor(target)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(target), 3, generator=generator, dtype=torch.float64)
    weight = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64) if weighted else None
    rows = split_ignored(target, 3)
    nll = -logits.log_softmax(-1).gather(1, rows.target[:, None]).squeeze(1)
    row_weight = None if weight is None else weight[rows.target]
    result = reduce_rows(nll, keep=rows.keep, row_weight=row_weight, reduction=reduction)
    expected = F.cross_entropy(logits, target, weight=weight, reduction=reduction)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-14)


def test_the_mean_over_no_row_is_zero_with_zero_gradient():
    values = torch.tensor([3.0, 4.0], requires_grad=True)
    mean = reduce_rows(values, keep=torch.tensor([False, False]))
    mean.backward()
    assert mean.item() == 0
    assert values.grad.tolist() == [0, 0]
    assert reduce_rows(torch.empty(0), keep=torch.empty(0, dtype=torch.bool)).item() == 0


def test_the_mean_over_rows_of_weight_zero_is_zero():
    values, keep = torch.tensor([3.0, 4.0]), torch.tensor([True, True])
    assert reduce_rows(values, keep=keep, row_weight=torch.zeros(2)).item() == 0


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_an_ignored_row_holds_does_not_matter(bad, reduction):
    values = torch.tensor([1.0, bad], requires_grad=True)
    result = reduce_rows(values, keep=torch.tensor([True, False]), reduction=reduction)
    result.sum().backward()
    assert result.sum().item() == 1
    assert values.grad.tolist() == [1, 0]


def test_ignored_labels_become_class_zero_and_are_marked():
    rows = split_ignored(torch.tensor([2, -7, 0]), 3, ignore_index=-7)
    assert rows.target.tolist() == [2, 0, 0]
    assert rows.keep.tolist() == [True, False, True]


def test_a_class_index_can_be_the_ignored_one():
    assert split_ignored(torch.tensor([2, 1]), 3, ignore_index=1).keep.tolist() == [True, False]


@pytest.mark.parametrize("label", [3, -1, -100])
def test_a_label_out_of_range_is_named(label):
    with pytest.raises(ValueError, match=rf"target must lie in \[0, 2\] .*got {label}"):
        split_ignored(torch.tensor([0, label]), 3, ignore_index=-9)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool, torch.float32])
def test_labels_of_another_dtype_are_refused(dtype):
    with pytest.raises(TypeError, match="int64 class indices; got dtype"):
        split_ignored(torch.zeros(2, dtype=dtype), 3)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="reduction must be one of 'none', 'mean', 'sum'"):
        reduce_rows(torch.ones(1), keep=torch.tensor([True]), reduction="batchmean")
