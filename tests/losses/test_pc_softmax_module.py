"""The probability-corrected softmax loss as a module."""

from __future__ import annotations

import copy

import pytest
import torch

from lastlayer.functional import pc_softmax_loss, probability_corrected_log_prob
from lastlayer.losses import PCSoftmaxLoss

PRIOR = torch.tensor([0.1, 0.2, 0.3, 0.4])
TARGET = torch.tensor([0, 3, -1, 2])
LOGITS = torch.randn(4, 4, generator=torch.Generator().manual_seed(23))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_module_is_its_function_with_every_argument(reduction):
    options = {
        "weight": torch.tensor([1.0, 0.5, 2.0, 0.3]),
        "ignore_index": -1,
        "reduction": reduction,
        "label_smoothing": 0.1,
    }
    expected = pc_softmax_loss(LOGITS, TARGET, PRIOR, **options)
    assert torch.equal(PCSoftmaxLoss(PRIOR, **options)(LOGITS, TARGET), expected)


def test_prior_travels_with_the_module():
    loss = PCSoftmaxLoss(PRIOR)
    twin = PCSoftmaxLoss(torch.full((4,), 0.25))
    twin.load_state_dict(loss.state_dict())
    assert torch.equal(twin.prior, PRIOR)
    assert copy.deepcopy(loss).double().prior.dtype == torch.float64


def test_counts_become_shares():
    loss = PCSoftmaxLoss.from_counts(torch.tensor([10, 20, 30, 40]))
    torch.testing.assert_close(loss.prior, PRIOR)
    with pytest.raises(ValueError, match="counts must hold finite numbers"):
        PCSoftmaxLoss.from_counts(torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="counts must hold finite numbers"):
        PCSoftmaxLoss.from_counts(torch.tensor([2, -1]))


def test_bad_arguments_are_refused_at_construction():
    with pytest.raises(ValueError, match="sum 1, not counts"):
        PCSoftmaxLoss(torch.tensor([10.0, 20.0]))
    with pytest.raises(TypeError, match="prior must have a floating-point dtype"):
        PCSoftmaxLoss(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="reduction must be one of"):
        PCSoftmaxLoss(PRIOR, reduction="average")
    with pytest.raises(ValueError, match=r"prior must have shape \(3,\)"):
        PCSoftmaxLoss(PRIOR)(torch.zeros(2, 3), torch.tensor([0, 1]))


def test_training_falls_below_zero_to_minus_the_information_and_learns_the_likelihood():
    joint = torch.tensor([[0.4, 0.05], [0.15, 0.4]], dtype=torch.float64)
    prior = joint.sum(0)
    logits = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    cells = torch.arange(4)
    loss = PCSoftmaxLoss(prior, reduction="none")
    optimizer = torch.optim.LBFGS([logits], max_iter=100, tolerance_grad=1e-12)

    def mean_loss() -> torch.Tensor:
        return (loss(logits[cells // 2], cells % 2) * joint.flatten()).sum()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = mean_loss()
        value.backward()
        return value

    optimizer.step(closure)
    information = float((joint * (joint / joint.sum(1, keepdim=True) / prior).log()).sum())
    assert float(mean_loss().detach()) == pytest.approx(-information, abs=1e-9)
    posterior = probability_corrected_log_prob(logits.detach(), prior).exp()
    torch.testing.assert_close(posterior, joint / joint.sum(1, keepdim=True), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_give_a_float32_loss(dtype):
    loss = PCSoftmaxLoss(PRIOR, ignore_index=-1)(LOGITS.to(dtype), TARGET)
    assert loss.dtype == torch.float32


def test_compiled_loss_is_the_same():
    loss = PCSoftmaxLoss(PRIOR, ignore_index=-1)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(LOGITS, TARGET), loss(LOGITS, TARGET))
