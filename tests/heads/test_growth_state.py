"""What follows a head's number of classes besides its rows: counts, weights, shares, buffers."""

from __future__ import annotations

import copy

import pytest
import torch
from counted_heads import build_head
from torch import nn

from lastlayer.heads import (
    HEADS,
    LDAM,
    BalancedSoftmax,
    ClassBalanced,
    Head,
    HeadOutput,
    LogitAdjusted,
    MixedDropMax,
    PCSoftmax,
    SampledSoftmax,
    Softmax,
    grow,
    set_class_counts,
    takes_class_counts,
)

N, D, K, M = 6, 5, 4, 3
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
COUNTED = [name for name in NAMES if takes_class_counts(name)]
COUNTS = torch.tensor([500, 120, 33, 4])
GROWN = torch.tensor([20, 20, 20, 4, 300, 80, 9])
FEATURES = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.tensor([0, 6, 1, 4, 5, 0])

every_head = pytest.mark.parametrize("name", NAMES)


def make(name: str, seed: int = 0, **options) -> Head:
    torch.manual_seed(seed)
    return build_head(name, D, K, **({"dtype": torch.float64} | options))


def test_a_share_of_negatives_follows_and_a_number_stays():
    share = SampledSoftmax(D, 10, num_samples=0.4)
    number = SampledSoftmax(D, 10, num_samples=4)
    for head in (share, number):
        grow(head, 10)
    assert (share.num_samples, number.num_samples) == (8, 4)
    alone = SampledSoftmax(D, 1)
    assert alone.num_samples == 0
    grow(alone, 4)
    assert alone.num_samples == SampledSoftmax(D, 5).num_samples == 3


def test_label_counts_go_on_and_start_at_one():
    head = make("sampled-learned")
    head(FEATURES, torch.tensor([0, 0, 1, 1, 1, 3])).loss.backward()
    grow(head, M)
    assert head.label_count.tolist() == [3, 4, 1, 2, 1, 1, 1]
    head(FEATURES, TARGET).loss.backward()
    assert head.label_count.tolist() == [5, 5, 1, 2, 2, 2, 2]


def test_dropmaxs_default_share_follows_and_a_given_one_stays():
    default, given = MixedDropMax(D, 10), MixedDropMax(D, 10, share=0.8)
    for head in (default, given):
        grow(head, 15)
    assert (default.share, given.share) == (0.5, 0.8)
    grow(default, 100)
    assert default.share == MixedDropMax(D, 125).share == 0.02


@pytest.mark.parametrize("given", [None, torch.tensor([1.0, 2.0, 0.5, 3.0])])
def test_class_balanced_weights_are_those_of_the_new_counts(given):
    options = {"beta": 0.99, "dtype": torch.float64}
    head = ClassBalanced(D, K, class_counts=COUNTS, weight=given, **options)
    set_class_counts(head, [7, 7, 7, 1])
    grow(head, M, class_counts=GROWN, weight=torch.tensor([2.0, 1.0, 4.0]))
    old = torch.ones(K) if given is None else given
    further = torch.cat([old, torch.tensor([2.0, 1.0, 4.0])])
    fresh = ClassBalanced(D, K + M, class_counts=GROWN, weight=further, **options)
    assert torch.equal(head.weight, fresh.weight)


@pytest.mark.parametrize("given", [None, torch.tensor([1.0, 2.0, 0.5, 3.0])])
def test_deferred_weights_and_margins_are_those_of_the_new_counts(given):
    options = {"reweight_after": 0.5, "dtype": torch.float64}
    head = LDAM(D, K, class_counts=COUNTS, weight=given, **options)
    head.set_progress(1.0)
    grow(head, M, class_counts=GROWN)
    further = None if given is None else torch.cat([given, torch.ones(M)])
    fresh = LDAM(D, K + M, class_counts=GROWN, weight=further, **options)
    fresh.load_state_dict(head.state_dict())
    for progress in (None, 0.7, 0.2):
        if progress is not None:
            head.set_progress(progress)
            fresh.set_progress(progress)
        assert torch.equal(head.weight, fresh.weight)
        assert head(FEATURES, TARGET).loss == fresh(FEATURES, TARGET).loss


@pytest.mark.parametrize("kind", [BalancedSoftmax, PCSoftmax, LogitAdjusted, ClassBalanced, LDAM])
def test_new_counts_without_new_classes_are_those_of_a_head_built_with_them(kind):
    head = kind(D, K, class_counts=COUNTS, dtype=torch.float64)
    parameters = list(head.parameters())
    set_class_counts(head, [9, 8, 7, 60])
    fresh = kind(D, K, class_counts=[9, 8, 7, 60], dtype=torch.float64)
    fresh.load_state_dict(head.state_dict())
    target = TARGET.clamp(max=K - 1)
    assert head(FEATURES, target).loss == fresh(FEATURES, target).loss
    assert torch.equal(head.log_prob(FEATURES), fresh.log_prob(FEATURES))
    assert all(a is b for a, b in zip(parameters, head.parameters(), strict=True))
    assert head.class_counts.tolist() == [9, 8, 7, 60]


@every_head
def test_growing_by_nothing_changes_nothing(name):
    head = make(name)
    before, parameters = copy.deepcopy(head.state_dict()), list(head.parameters())
    grow(head, 0, optimizer=torch.optim.SGD(parameters, lr=0.1))
    if name not in COUNTED:
        set_class_counts(head, COUNTS)
    assert all(torch.equal(before[key], value) for key, value in head.state_dict().items())
    assert all(a is b for a, b in zip(parameters, head.parameters(), strict=True))


def test_masked_classes_without_examples_may_grow_and_come_back():
    head = BalancedSoftmax(D, 2, class_counts=[5, 0], zero_counts="mask", dtype=torch.float64)
    grow(head, 1, class_counts=[0, 4, 9])
    assert head.log_prob(FEATURES)[:, 0].isneginf().all()
    set_class_counts(head, [1, 4, 9])
    assert head.log_prob(FEATURES).isfinite().all()


# -- heads of third parties -----------------------------------------------------------------------


class TwoLayers(Head):
    """Nothing but linear layers."""

    def __init__(self, in_features: int, num_classes: int, **options) -> None:
        super().__init__(in_features, num_classes, **options)
        self.gate = nn.Linear(in_features, num_classes)
        self.mix = nn.Linear(in_features, 1)

    def branches(self):
        return {"gate": self.gate, "mix": self.mix}

    def _log_prob(self, features):
        return (self._logits(features) * self.gate(features) + self.mix(features)).log_softmax(-1)

    def _row_terms(self, features, target, draw):
        return {"nll": -self._log_prob(features).gather(-1, target[:, None]).squeeze(-1)}


class Tempered(TwoLayers):
    """A buffer, and a parameter, of one entry per class."""

    def __init__(self, in_features: int, num_classes: int, **options) -> None:
        super().__init__(in_features, num_classes, **options)
        self.register_buffer("temperature", torch.ones(num_classes))


class GrowingTempered(Tempered):
    def _grow_class_state(self, new):
        super()._grow_class_state(new)
        self.temperature = torch.cat([self.temperature, torch.full((new.number,), 2.0)])


class Unrelated(Tempered):
    not_per_class = ("temperature",)


def test_a_head_of_linear_layers_grows_without_a_word():
    head = TwoLayers(D, K)
    grow(head, M)
    assert (head.gate.out_features, head.mix.out_features) == (K + M, 1)
    out = head(FEATURES.float(), TARGET)
    assert isinstance(out, HeadOutput)
    out.loss.backward()


def test_a_buffer_per_class_that_nobody_grows_is_refused_with_the_way_out():
    head = Tempered(D, K)
    with pytest.raises(
        ValueError, match=r"Tempered has 'temperature' of shape \(4,\).*_grow_class_state"
    ):
        grow(head, M)
    assert head.num_classes == K
    head(FEATURES.float(), TARGET.clamp(max=K - 1))
    grow(Tempered(D, 1), M)  # one entry says nothing
    for kind, size in ((GrowingTempered, K + M), (Unrelated, K)):
        head = kind(D, K)
        grow(head, M)
        assert len(head.temperature) == size


def test_a_parameter_per_class_or_an_unlisted_layer_is_refused():
    head = TwoLayers(D, K)
    head.scale = nn.Parameter(torch.ones(K))
    with pytest.raises(ValueError, match="TwoLayers has 'scale'"):
        grow(head, M)
    head = Softmax(D, K)
    head.extra = nn.Linear(D, K)
    with pytest.raises(ValueError, match=r"'extra.weight' of shape \(4, 5\).*Softmax.branches"):
        grow(head, M)
