"""Class counts of heads and losses: exact after every cast and copy; weights that follow them."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from lastlayer import losses as L
from lastlayer.functional import class_balanced_weight
from lastlayer.heads import (
    HEADS,
    LDAM,
    BalancedSoftmax,
    ClassBalanced,
    build_head,
    set_class_counts,
    takes_class_counts,
)

D, K = 4, 3
COUNTS = [70_001, 257, 3]  # float16 ends at 65,504, bfloat16 makes 256 of 257
FEATURES = torch.randn(6, D, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2, 0, 1, 2])
NAMES = [n for n, text in HEADS.describe().items() if not text.startswith("from ")]
HEADS_WITH_COUNTS = [name for name in NAMES if takes_class_counts(name)]
LOSSES = {
    "balanced-softmax": L.BalancedSoftmaxLoss,
    "class-balanced": L.ClassBalancedLoss,
    "ldam": L.LDAMLoss,
    "pc-softmax": L.PCSoftmaxLoss.from_counts,
}
GIVEN = {
    "whole": torch.tensor(COUNTS),
    "float": torch.tensor([float(n) for n in COUNTS]),
    "list": COUNTS,
    "shares": torch.tensor(COUNTS, dtype=torch.float64) / 1e5,
}


def casts(module):
    yield copy.deepcopy(module).half()
    yield copy.deepcopy(module).bfloat16()
    yield copy.deepcopy(module).to(torch.bfloat16).float()
    yield copy.deepcopy(module).half().double()
    yield pickle.loads(pickle.dumps(module)).half()
    yield copy.deepcopy(module).half().to("cpu", torch.float32)


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("name", LOSSES)
def test_no_cast_of_a_loss_reaches_its_counts(name, given):
    if name == "pc-softmax" and given == "list":
        given = "whole"
    loss = LOSSES[name](GIVEN[given])
    logits = FEATURES[:, :K].tanh()
    expected = loss(logits, TARGET)
    for cast in casts(loss):
        torch.testing.assert_close(cast(logits, TARGET), expected)


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("name", HEADS_WITH_COUNTS)
def test_no_cast_of_a_head_reaches_its_counts(name, given):
    torch.manual_seed(0)
    head = build_head(name, D, K, class_counts=GIVEN[given])
    for cast in casts(head):
        assert torch.equal(cast.class_counts, head.class_counts)
        fresh = build_head(
            name, D, K, class_counts=GIVEN[given], dtype=cast.classifier.weight.dtype
        )
        fresh.load_state_dict(cast.state_dict())
        assert torch.equal(cast(FEATURES, TARGET).loss, fresh(FEATURES, TARGET).loss)
        assert cast(FEATURES, TARGET).loss.isfinite()


def test_whole_counts_are_kept_as_integers_and_shares_as_they_are():
    for given in ("whole", "float", "list"):
        kept = BalancedSoftmax(D, K, class_counts=GIVEN[given]).class_counts
        assert kept.dtype == torch.int64
        assert kept.tolist() == COUNTS
    kept = BalancedSoftmax(D, K, class_counts=GIVEN["shares"]).class_counts
    assert torch.equal(kept, GIVEN["shares"])


@pytest.mark.parametrize("name", HEADS_WITH_COUNTS)
def test_shares_load_into_a_place_of_whole_counts_and_back(name):
    shares = torch.tensor([0.7, 0.2, 0.1])
    torch.manual_seed(0)
    of_shares = build_head(name, D, K, class_counts=shares)
    for counts in ([1, 1, 1], [5.5, 2.5, 1.0]):
        other = build_head(name, D, K, class_counts=counts)
        other.load_state_dict(of_shares.state_dict())
        assert torch.equal(other.class_counts, shares)
        assert torch.equal(other(FEATURES, TARGET).loss, of_shares(FEATURES, TARGET).loss)
        whole = build_head(name, D, K, class_counts=COUNTS)
        other.load_state_dict(whole.state_dict())
        assert other.class_counts.dtype == torch.int64
        assert other.class_counts.tolist() == COUNTS


def test_a_loaded_state_brings_its_weights_along():
    loss, other = L.ClassBalancedLoss([1000, 100, 10]), L.ClassBalancedLoss([1, 1, 1])
    other.load_state_dict(loss.state_dict())
    expected = class_balanced_weight([1000, 100, 10])
    torch.testing.assert_close(other.weight, expected)
    head, other = (ClassBalanced(D, K, class_counts=c) for c in ([1000, 100, 10], [1, 1, 1]))
    other.load_state_dict(head.state_dict())
    torch.testing.assert_close(other.weight, expected)
    head, other = (
        LDAM(D, K, class_counts=c, reweight_after=0.8) for c in ([1000, 100, 10], [1, 1, 1])
    )
    other.load_state_dict(head.state_dict())
    other.set_progress(0.9)
    torch.testing.assert_close(other.weight, expected)
    other.set_progress(0.1)
    assert other.weight.tolist() == [1, 1, 1]
    head.set_progress(0.9)
    other.load_state_dict(head.state_dict())
    torch.testing.assert_close(other.weight, expected)


@pytest.mark.parametrize("further", [None, torch.tensor([2.0, 1.0, 0.5])])
def test_weights_follow_whatever_happens_to_the_counts(further):
    head = ClassBalanced(D, K, class_counts=[9, 9, 9], weight=further)
    given = torch.ones(K) if further is None else further
    for counts in ([5, 3, 1], [1, 1, 90]):
        head.class_counts.copy_(torch.tensor(counts))  # as a broadcast of buffers does
        torch.testing.assert_close(head.weight, class_balanced_weight(counts) * given)
        other = copy.deepcopy(head)
        other.class_counts.fill_(4)
        torch.testing.assert_close(other.weight, given)
        torch.testing.assert_close(head.weight, class_balanced_weight(counts) * given)
        file = io.BytesIO(pickle.dumps(head))
        loaded = pickle.load(file)
        loaded.class_counts.fill_(4)
        torch.testing.assert_close(loaded.weight, given)
    set_class_counts(head, [2, 8, 2])
    torch.testing.assert_close(head.weight, class_balanced_weight([2, 8, 2]) * given)
    assert head.weight is head.weight  # computed once


def test_weights_first_asked_for_in_inference_mode_serve_training():
    head = ClassBalanced(D, K, class_counts=[9, 3, 1])
    with torch.inference_mode():
        expected = head(FEATURES, TARGET).loss.item()
    loss = head(FEATURES, TARGET).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected)


# States as they were saved while the weights themselves were stored beside the counts.
@pytest.mark.parametrize("further", [None, torch.tensor([2.0, 1.0, 0.5])])
@pytest.mark.parametrize("told", [False, True])
def test_states_that_hold_the_weights_themselves_still_load(further, told):
    counts = [1000, 100, 10]
    given = torch.ones(K) if further is None else further
    balanced = class_balanced_weight(counts)

    def old(head, weight):
        state = {
            k: v for k, v in head.state_dict().items() if k not in ("further_weight", "reweighted")
        }
        return state | {"weight": weight}

    told_weight = further if told else None
    head = ClassBalanced(D, K, class_counts=[1, 1, 1], weight=told_weight)
    head.load_state_dict(old(ClassBalanced(D, K, class_counts=counts), balanced * given))
    torch.testing.assert_close(head.weight, balanced * given)

    plain = LDAM(D, K, class_counts=counts)
    head = LDAM(D, K, class_counts=[1, 1, 1], weight=torch.ones(K))
    head.load_state_dict(old(plain, given))
    torch.testing.assert_close(head.weight, given)

    if told or further is None:  # early and late weights are told apart by the further ones
        for late in (False, True):
            head = LDAM(D, K, class_counts=[1, 1, 1], weight=told_weight, reweight_after=0.5)
            saved = LDAM(D, K, class_counts=counts, reweight_after=0.5)
            head.load_state_dict(old(saved, balanced * given if late else given))
            torch.testing.assert_close(head.weight, balanced * given if late else given)
            head.set_progress(1.0)
            torch.testing.assert_close(head.weight, balanced * given)

    loss = L.ClassBalancedLoss([1, 1, 1])
    loss.load_state_dict({"class_counts": torch.tensor(counts), "weight": balanced})
    torch.testing.assert_close(loss.weight, balanced)


def test_a_head_on_meta_takes_its_counts_from_the_state():
    head = BalancedSoftmax(D, K, class_counts=COUNTS)
    empty = BalancedSoftmax(D, K, class_counts=[1, 1, 1], device="meta").to_empty(device="cpu")
    empty.load_state_dict(head.state_dict())
    assert empty.class_counts.tolist() == COUNTS
    assigned = BalancedSoftmax(D, K, class_counts=[0.5, 0.25, 0.25], device="meta")
    assigned.load_state_dict(head.state_dict(), assign=True)
    assert assigned.class_counts.tolist() == COUNTS


@pytest.mark.parametrize("name", HEADS_WITH_COUNTS)
def test_averages_of_weights_over_a_training_keep_the_counts(name):
    torch.manual_seed(0)
    head = build_head(name, D, K, class_counts=COUNTS)
    averaged = torch.optim.swa_utils.AveragedModel(head, use_buffers=True)
    for progress in (0.1, 0.9):
        if hasattr(head, "set_progress"):
            head.set_progress(progress)
        averaged.update_parameters(head)
    assert torch.equal(averaged.module.class_counts, head.class_counts)
    assert torch.isfinite(averaged.module(FEATURES, TARGET).loss)
