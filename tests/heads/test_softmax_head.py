"""The softmax head is ``torch.nn.functional.cross_entropy`` on a linear layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.heads import Softmax, build_head

N, D, K = 5, 3, 4
FEATURES = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
labels = st.lists(st.sampled_from([-100, 0, 1, 2, 3]), min_size=N, max_size=N).filter(
    lambda row: any(label >= 0 for label in row)
)


def make(**options) -> Softmax:
    torch.manual_seed(0)
    return Softmax(D, K, dtype=torch.float64, **options)


@settings(max_examples=60)
@given(
    target=labels,
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    weighted=st.booleans(),
    reduction=st.sampled_from(["none", "mean", "sum"]),
)
def test_the_loss_is_torchs_for_class_indices(target, smoothing, weighted, reduction):
    weight = torch.tensor([0.5, 2.0, 1.0, 0.3], dtype=torch.float64) if weighted else None
    arguments = {"weight": weight, "label_smoothing": smoothing, "reduction": reduction}
    head, label = make(**arguments), torch.tensor(target)
    features, copied = (FEATURES.clone().requires_grad_() for _ in range(2))
    loss = head(features, label).loss
    expected = F.cross_entropy(head.classifier(copied), label, **arguments)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-14)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(features.grad, copied.grad, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_torchs_for_class_probabilities(reduction, smoothing, weighted):
    weight = torch.tensor([0.5, 2.0, 1.0, 0.3], dtype=torch.float64) if weighted else None
    arguments = {"weight": weight, "label_smoothing": smoothing, "reduction": reduction}
    head = make(**arguments)
    target = torch.rand(N, K, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    target = target / target.sum(-1, keepdim=True)
    expected = F.cross_entropy(head.classifier(FEATURES), target, **arguments)
    torch.testing.assert_close(head(FEATURES, target).loss, expected)
    mixed = head(FEATURES.reshape(1, N, D), target.float().reshape(1, N, K)).loss
    assert mixed.dtype == torch.float64
    torch.testing.assert_close(mixed.reshape(expected.shape), expected, rtol=1e-6, atol=0)


def test_smoothed_losses_ignore_rows_of_sequences_too():
    head = make(label_smoothing=0.1)
    target = torch.tensor([[0, -100, 2, 3, 1]])
    expected = F.cross_entropy(head.classifier(FEATURES), target[0], label_smoothing=0.1)
    torch.testing.assert_close(head(FEATURES[None], target).loss, expected)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_ignored_batch_costs_zero_where_torch_says_nan(weighted, smoothing):
    weight = torch.rand(K, dtype=torch.float64) if weighted else None
    head = make(weight=weight, label_smoothing=smoothing)
    out = head(FEATURES, torch.full((N,), -100))
    out.loss.backward()
    assert out.loss == 0
    assert not head.classifier.weight.grad.any()


def test_predictions_are_the_log_softmax_of_the_linear_layer():
    head = make()
    torch.testing.assert_close(head.log_prob(FEATURES), head.classifier(FEATURES).log_softmax(-1))
    assert torch.equal(head.scores(FEATURES), head.log_prob(FEATURES))


def test_the_label_smoothing_head_smooths_by_one_tenth_unless_told_otherwise():
    assert build_head("label-smoothing", D, K).label_smoothing == 0.1
    assert build_head("label-smoothing", D, K, label_smoothing=0.3).label_smoothing == 0.3
