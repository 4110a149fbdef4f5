"""What growing refuses, with the head as it was before."""

from __future__ import annotations

import copy

import pytest
import torch
from counted_heads import build_head
from torch import nn

from lastlayer.heads import HEADS, Head, grow, set_class_counts, takes_class_counts

D, K, M = 5, 4, 3
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
COUNTED = [name for name in NAMES if takes_class_counts(name)]
COUNTS = torch.tensor([500, 120, 33, 4])
GROWN = torch.tensor([20, 20, 20, 4, 300, 80, 9])

every_head = pytest.mark.parametrize("name", NAMES)


def make(name: str, seed: int = 0, **options) -> Head:
    torch.manual_seed(seed)
    return build_head(name, D, K, **({"dtype": torch.float64} | options))


def check_as_before(head: Head, before: Head) -> None:
    assert head.num_classes == before.num_classes
    assert head.state_dict().keys() == before.state_dict().keys()
    old = before.state_dict()
    assert all(torch.equal(old[key], value) for key, value in head.state_dict().items())
    assert repr(head) == repr(before)


@every_head
@pytest.mark.parametrize("num_new", [-1, 1.0, True, "2"])
def test_a_number_of_classes_that_is_none_is_refused(name, num_new):
    with pytest.raises(ValueError, match="num_new must be a whole number of at least 0; got"):
        grow(make(name), num_new, class_counts=GROWN)


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (None, "needs class_counts: how often each of the 7 classes"),
        (COUNTS, r"class_counts must have shape \(7,\)"),
        (GROWN[K:], r"class_counts must have shape \(7,\)"),
        (GROWN[None], r"class_counts must have shape \(7,\)"),
        (-GROWN, "class_counts must hold finite numbers"),
        (GROWN * 0, "not all 0"),
    ],
)
def test_counts_that_do_not_fit_are_refused_and_leave_the_head_as_it_was(name, counts, message):
    head = make(name)
    before = copy.deepcopy(head)
    with pytest.raises(ValueError, match=message):
        grow(head, M, class_counts=counts)
    check_as_before(head, before)


@pytest.mark.parametrize("name", [name for name in COUNTED if name != "logit-adjusted"])
def test_a_class_without_examples_is_refused_where_the_head_refuses_it(name):
    head = make(name)
    before = copy.deepcopy(head)
    for refused in (
        lambda: grow(head, M, class_counts=[9, 9, 9, 0, 1, 1, 1]),
        lambda: set_class_counts(head, [9, 9, 9, 0]),
    ):
        with pytest.raises(ValueError, match=r"class_counts must be above 0; class 3 never occurs"):
            refused()
        check_as_before(head, before)


def test_counts_of_another_shape_are_refused_even_by_heads_that_keep_none():
    with pytest.raises(ValueError, match=r"class_counts must have shape \(4,\)"):
        set_class_counts(make("softmax"), GROWN)


def test_weights_of_new_classes_are_checked():
    head = make("softmax", weight=torch.ones(K))
    for weight in (torch.ones(K + M), torch.tensor([1.0, -1.0, 1.0])):
        with pytest.raises(ValueError, match="weight must"):
            grow(head, M, weight=weight)
    with pytest.raises(ValueError, match="Softmax has no class weights"):
        grow(make("softmax"), M, weight=torch.ones(M))


def test_an_ignored_label_that_would_become_a_class_is_refused():
    head = make("softmax", ignore_index=K + 1)
    with pytest.raises(ValueError, match=r"ignore_index=5 would be one of the new classes 4 to 6"):
        grow(head, M)
    grow(head, 1)


def test_reparametrized_hooked_and_shared_layers_are_refused():
    def parametrized(head):
        nn.utils.parametrizations.weight_norm(head.classifier)

    def hooked(head):
        head.retain.register_forward_hook(lambda *_: None)

    def hooked_parameter(head):
        head.retain.weight.register_hook(lambda gradient: gradient)

    def replaced(head):
        head.classifier = nn.LazyLinear(K)

    def shared(head):
        head.retain.weight = head.classifier.weight

    for change, message in (
        (parametrized, r"classifier must be a plain nn\.Linear.*remove the parametrization"),
        (hooked, "retain must have no hooks"),
        (hooked_parameter, "retain must have no hooks"),
        (replaced, r"classifier must be a plain nn\.Linear"),
        (shared, "classifier, retain, correction must not share parameters"),
    ):
        head = make("dropmax")
        change(head)
        with pytest.raises(ValueError, match=message):
            grow(head, M)
        assert head.num_classes == K
    with pytest.raises(TypeError, match=r"head must be a lastlayer\.heads\.Head; got Linear"):
        grow(nn.Linear(D, K), M)


def test_a_failing_initialization_leaves_the_head_as_it_was():
    def fail(rows: nn.Linear) -> None:
        raise RuntimeError("no luck")

    head = make("ldam-drw")
    head.set_progress(1.0)
    before = copy.deepcopy(head)
    with pytest.raises(RuntimeError, match="no luck"):
        grow(head, M, class_counts=GROWN, init_classifier=fail)
    check_as_before(head, before)
    head.set_progress(0.0)
