"""Loss modules for long tails: they pass on what they were given and keep counts exact."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from lastlayer.functional import balanced_softmax_loss, class_balanced_weight, ldam_loss
from lastlayer.losses import BalancedSoftmaxLoss, ClassBalancedLoss, LDAMLoss, PCSoftmaxLoss

COUNTS = [500, 120, 33, 257]
LOGITS = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
TARGET = torch.tensor([0, 3, -1, 2, 1])
WEIGHT = torch.tensor([1.0, 0.5, 2.0, 0.3])
SHARED = {"ignore_index": -1}

MODULES = {
    "balanced softmax": (
        lambda **options: BalancedSoftmaxLoss(COUNTS, 0.5, weight=WEIGHT, **options),
        lambda o, t, **options: balanced_softmax_loss(
            o, t, COUNTS, tau=0.5, weight=WEIGHT, **options
        ),
    ),
    "class-balanced": (
        lambda **options: ClassBalancedLoss(COUNTS, 0.99, **options),
        lambda o, t, **options: F.cross_entropy(
            o, t, class_balanced_weight(COUNTS, beta=0.99), **options
        ),
    ),
    "ldam": (
        lambda **options: LDAMLoss(COUNTS, 0.4, 10.0, weight=WEIGHT, **options),
        lambda o, t, **options: ldam_loss(
            o, t, COUNTS, max_margin=0.4, scale=10.0, weight=WEIGHT, **options
        ),
    ),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_modules_are_their_function_with_every_argument(name, reduction):
    make, function = MODULES[name]
    options = SHARED | {"reduction": reduction}
    if name != "ldam":
        options["label_smoothing"] = 0.1
    ours = make(**options)(LOGITS, TARGET)
    torch.testing.assert_close(ours, function(LOGITS, TARGET, **options))


@pytest.mark.parametrize("name", MODULES)
def test_counts_survive_half_precision_copies_and_state(name):
    loss = MODULES[name][0]()
    half = copy.deepcopy(loss).to(torch.bfloat16)
    assert half.class_counts.tolist() == COUNTS  # bfloat16 would make 256 of 257
    twin = MODULES[name][0]()
    twin.load_state_dict(loss.state_dict())
    assert torch.equal(twin.class_counts, loss.class_counts)


def test_new_counts_may_be_of_more_classes():
    for loss in (BalancedSoftmaxLoss([3, 1]), ClassBalancedLoss([3, 1]), LDAMLoss([3, 1])):
        loss.set_class_counts(COUNTS)
        assert loss.class_counts.tolist() == COUNTS
        assert loss(LOGITS, TARGET.clamp(min=0)).isfinite()
    assert len(ClassBalancedLoss([3, 1]).weight) == 2


def test_counts_come_from_labels_too():
    loss = BalancedSoftmaxLoss.from_labels(torch.tensor([[0, 1], [2, 0]]), 3)
    assert loss.class_counts.tolist() == [2, 1, 1]


def test_the_gradient_is_that_of_pc_softmax():
    free = LOGITS.clone().requires_grad_()
    target = TARGET.clamp(min=0)
    ours = BalancedSoftmaxLoss(COUNTS)(free, target)
    theirs = PCSoftmaxLoss.from_counts(torch.tensor(COUNTS))(free, target)
    torch.testing.assert_close(
        torch.autograd.grad(ours, free)[0], torch.autograd.grad(theirs, free)[0]
    )


def test_autocast_computes_the_loss_in_float32():
    weight = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    features = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    loss = BalancedSoftmaxLoss(COUNTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = features @ weight
        value = loss(logits, TARGET.clamp(min=0))
    assert logits.dtype == torch.bfloat16
    assert value.dtype == torch.float32
    assert value.equal(loss(logits.float(), TARGET.clamp(min=0)))


def test_repr_shows_what_the_loss_is():
    assert repr(BalancedSoftmaxLoss(COUNTS)) == "BalancedSoftmaxLoss(counts of 4 classes, tau=1)"
    masked = BalancedSoftmaxLoss([0, 1], zero_counts="mask", reduction="sum")
    assert repr(masked) == (
        "BalancedSoftmaxLoss(counts of 2 classes, tau=1, zero_counts='mask', reduction='sum')"
    )
    assert "max_margin=0.5, scale=30" in repr(LDAMLoss(COUNTS))


def test_bad_arguments_are_refused_at_construction():
    with pytest.raises(ValueError, match="class 1 never occurs"):
        BalancedSoftmaxLoss([3, 0])
    with pytest.raises(ValueError, match="tau must be"):
        BalancedSoftmaxLoss(COUNTS, -1.0)
    with pytest.raises(TypeError, match="half precision rounds counts"):
        BalancedSoftmaxLoss(torch.tensor(COUNTS, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="weight must have one entry for each of the 4"):
        BalancedSoftmaxLoss(COUNTS, weight=torch.ones(3))
    with pytest.raises(ValueError, match="beta must lie"):
        ClassBalancedLoss(COUNTS, 1.5)
    with pytest.raises(ValueError, match="label_smoothing must be 0 for LDAMLoss"):
        LDAMLoss(COUNTS, label_smoothing=0.1)
    with pytest.raises(ValueError, match="scale must be"):
        LDAMLoss(COUNTS, scale=-1.0)
