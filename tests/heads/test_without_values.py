"""Heads and losses where there are no numbers: the meta device and fake tensors."""

from __future__ import annotations

import pytest
import torch
from counted_heads import build_head
from torch._subclasses.fake_tensor import FakeTensorMode

from lastlayer import losses as L
from lastlayer.heads import HEADS, BalancedSoftmax, ClassBalanced

N, D, K = 6, 4, 3
COUNTS = [50, 20, 5]
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
every_head = pytest.mark.parametrize("name", NAMES)
LOSSES = {
    "sparsemax": lambda: L.SparsemaxLoss(weight=torch.ones(K)),
    "balanced-softmax": lambda: L.BalancedSoftmaxLoss(COUNTS),
    "class-balanced": lambda: L.ClassBalancedLoss(COUNTS),
    "ldam": lambda: L.LDAMLoss(COUNTS),
    "pc-softmax": lambda: L.PCSoftmaxLoss(torch.full((K,), 1 / K)),
    "class-dropout": lambda: L.ClassDropoutLoss(0.5),
    "sampled-learned": lambda: L.SampledSoftmaxLoss(1, "learned", K),
}


@every_head
def test_heads_are_built_and_run_on_meta_and_then_filled_from_a_state(name):
    real = build_head(name, D, K)
    with torch.device("meta"):
        head = build_head(name, D, K)
        features = torch.empty(N, D)
        target = torch.zeros(N, dtype=torch.int64)
    assert {tensor.device.type for tensor in head.state_dict().values()} == {"meta"}
    assert head(features, target).loss.shape == ()
    head.eval()
    assert head(features).shape == (N, K)
    head.to_empty(device="cpu").load_state_dict(real.state_dict())
    given = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    assert torch.equal(head(given), real.eval()(given))


@pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)
def test_losses_are_built_and_run_on_meta(make):
    with torch.device("meta"):
        loss = make()
        value = loss(torch.empty(N, K), torch.zeros(N, dtype=torch.int64))
    assert all(buffer.is_meta for buffer in loss.buffers())
    assert value.is_meta
    assert value.shape == ()


# How many nodes the exact estimator visits depends on the numbers.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "dropmax-exact"])
def test_heads_pass_fake_tensors(name):
    with FakeTensorMode():
        head = build_head(name, D, K)
        loss = head(torch.randn(N, D), torch.zeros(N, dtype=torch.int64)).loss
        assert loss.shape == ()
        assert head.eval()(torch.randn(N, D)).shape == (N, K)


def test_counts_are_checked_although_the_head_has_no_numbers():
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match="class_counts must be above 0; class 1"),
    ):
        BalancedSoftmax(D, K, class_counts=[5, 0, 1])


@pytest.mark.parametrize("kind", [BalancedSoftmax, ClassBalanced])
def test_counts_that_have_no_numbers_themselves_are_taken(kind):
    head = kind(D, K, class_counts=torch.empty(K, device="meta"), device="meta")
    assert head.class_counts.is_meta
