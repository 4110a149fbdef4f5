"""An optimizer goes on with a grown head: old rows move as if nothing had happened."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import (
    ASGD,
    LBFGS,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
)

from lastlayer.heads import DropMax, Head, Softmax, grow, set_class_counts

D, K, M = 8, 4, 4
STEPS = 3
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": lambda p: Adam(p, lr=0.05),
    "adam-amsgrad": lambda p: Adam(p, lr=0.05, amsgrad=True),
    "adam-for-loop": lambda p: Adam(p, lr=0.05, foreach=False),
    "adam-fused": lambda p: Adam(p, lr=0.05, fused=True),
    "adamw": lambda p: AdamW(p, lr=0.05, weight_decay=0.1),
    "sgd": lambda p: SGD(p, lr=0.1),
    "sgd-momentum": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: RMSprop(p, lr=0.01),
    "rmsprop-centered": lambda p: RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: Adagrad(p, lr=0.1),
    "adadelta": lambda p: Adadelta(p),
    "adamax": lambda p: Adamax(p, lr=0.05),
    "nadam": lambda p: NAdam(p, lr=0.05),
    "radam": lambda p: RAdam(p, lr=0.05),
}
every_optimizer = pytest.mark.parametrize("kind", OPTIMIZERS.values(), ids=OPTIMIZERS)


def gradients(head: Head, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(K, *p.shape[1:], generator=generator, dtype=torch.float64)
        for p in head.parameters()
    ]


def step(head: Head, optimizer: Optimizer, seed: int) -> None:
    """Take a step whose gradient is zero on all classes but the first K."""
    for parameter, gradient in zip(head.parameters(), gradients(head, seed), strict=True):
        parameter.grad = torch.zeros_like(parameter)
        parameter.grad[:K] = gradient
    optimizer.step()


def trained(kind: Callable[..., Optimizer]) -> tuple[Head, Optimizer]:
    torch.manual_seed(0)
    head = DropMax(D, K, dtype=torch.float64)
    optimizer = kind(head.param_groups(0.0))
    for seed in range(STEPS):
        step(head, optimizer, seed)
    return head, optimizer


def distance(head: Head, twin: Head) -> float:
    pairs = zip(head.parameters(), twin.parameters(), strict=True)
    return max(float((p[:K] - q[:K]).detach().abs().max()) for p, q in pairs)


@every_optimizer
def test_old_rows_move_as_those_of_the_twin_that_did_not_grow(kind):
    twin, twins_optimizer = trained(kind)
    head, optimizer = trained(kind)
    grow(head, M, optimizer=optimizer)
    for seed in range(10, 14):
        step(twin, twins_optimizer, seed)
        step(head, optimizer, seed)
        # Equal here; another processor may round the end of a longer tensor otherwise.
        assert distance(head, twin) < 1e-14


def test_the_test_tells_an_optimizer_that_forgot_its_state():
    for name in ("adam", "adamw", "sgd-momentum", "rmsprop"):
        twin, twins_optimizer = trained(OPTIMIZERS[name])
        head, _ = trained(OPTIMIZERS[name])
        grow(head, M)
        forgetful = OPTIMIZERS[name](head.param_groups(0.0))
        step(twin, twins_optimizer, 10)
        step(head, forgetful, 10)
        assert distance(head, twin) > 1e-4


@every_optimizer
def test_new_rows_have_the_state_of_rows_that_never_moved(kind):
    head, optimizer = trained(kind)
    before = {n: copy.deepcopy(optimizer.state.get(p)) for n, p in head.named_parameters()}
    grow(head, M, optimizer=optimizer)
    assert {id(p) for p in optimizer.state} <= {id(p) for p in head.parameters()}
    for name, parameter in head.named_parameters():
        for entry, old in (before[name] or {}).items():
            new = optimizer.state[parameter][entry]
            if isinstance(old, torch.Tensor) and old.dim():
                assert new.shape == parameter.shape
                assert torch.equal(new[:K], old)
                assert not new[K:].any()
            else:
                assert new == old


def test_parameters_take_the_old_places_in_their_groups():
    backbone, head = nn.Linear(3, D), DropMax(D, K)
    classifier, branches = head.param_groups(0.1)
    classifier["params"] = [*backbone.parameters(), *classifier["params"]]
    optimizer = SGD([classifier, branches | {"lr": 0.5}], lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5)
    grow(head, M, optimizer=optimizer)
    first, second = optimizer.param_groups
    places = [*backbone.parameters(), *head.classifier.parameters()]
    assert all(a is b for a, b in zip(first["params"], places, strict=True))
    places = [*head.retain.parameters(), *head.correction.parameters()]
    assert all(a is b for a, b in zip(second["params"], places, strict=True))
    assert (first["lr"], first["weight_decay"]) == (0.05, 0.1)
    assert (second["lr"], second["weight_decay"]) == (0.25, 0.0)
    before = head.classifier.weight.detach().clone()
    head(backbone(torch.randn(6, 3)), torch.tensor([0, 7, 1, 6, 5, 4])).loss.backward()
    optimizer.step()
    schedule.step()
    assert (head.classifier.weight != before).any(dim=1).all()


def test_a_parameter_that_the_optimizer_does_not_hold_is_fine():
    head = DropMax(D, K, dtype=torch.float64)
    optimizer = Adam(head.classifier.parameters())
    head(torch.randn(6, D), torch.tensor([0, 1, 2, 3, 3, 2])).loss.backward()
    optimizer.step()
    grow(head, M, optimizer=optimizer)
    assert len(optimizer.state) == 2
    other = Adam(nn.Linear(2, 2).parameters())
    grow(head, 1, optimizer=other)
    assert len(other.param_groups[0]["params"]) == 2
    assert not other.state


def test_the_state_of_a_grown_optimizer_is_saved_and_loaded():
    head, optimizer = trained(OPTIMIZERS["adam"])
    grow(head, M, optimizer=optimizer)
    resumed = DropMax(D, K + M, dtype=torch.float64)
    resumed.load_state_dict(head.state_dict())
    its_optimizer = Adam(resumed.param_groups(0.0), lr=0.05)
    its_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, another in ((head, optimizer), (resumed, its_optimizer)):
        step(one, another, 20)
    for key, value in head.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value)


def test_the_first_step_of_new_rows_under_adam_is_as_large_as_documented():
    head = Softmax(1, 1, bias=False, dtype=torch.float64)
    optimizer = Adam(head.parameters(), lr=1e-3)
    head.classifier.weight.grad = torch.ones_like(head.classifier.weight)
    optimizer.step()
    optimizer.state[head.classifier.weight]["step"].fill_(1e6)
    grow(head, 1, optimizer=optimizer)
    before = head.classifier.weight[1].item()
    head.classifier.weight.grad = torch.tensor([[0.0], [7.0]], dtype=torch.float64)
    optimizer.step()
    moved = (before - head.classifier.weight[1].item()) / 1e-3
    assert moved == pytest.approx(0.1 / math.sqrt(0.001), rel=1e-5)


@pytest.mark.parametrize("kind", [Rprop, ASGD, LBFGS])
def test_optimizers_that_zeros_cannot_continue_are_refused(kind):
    head = Softmax(D, K)
    with pytest.raises(ValueError, match=f"optimizer {kind.__name__} has a state that zero rows"):
        grow(head, M, optimizer=kind(head.parameters()))
    assert head.num_classes == head.classifier.out_features == K


def test_a_state_of_unknown_shape_is_named_and_nothing_has_changed():
    head = Softmax(D, K)
    optimizer = Adafactor(head.parameters())
    head(torch.randn(4, D), torch.arange(4)).loss.backward()
    optimizer.step()
    parameters = list(head.parameters())
    with pytest.raises(ValueError, match=r"optimizer Adafactor's 'row_var' must have the shape"):
        grow(head, M, optimizer=optimizer)
    assert all(a is b for a, b in zip(parameters, head.parameters(), strict=True))
    assert head.num_classes == head.classifier.out_features == K
    assert optimizer.param_groups[0]["params"][0] is parameters[0]
    broken = SGD(head.parameters(), lr=0.1)
    broken.state[parameters[0]]["history"] = [torch.zeros(K, D)]
    with pytest.raises(ValueError, match=r"SGD's 'history' must have the shape.*got list"):
        grow(head, M, optimizer=broken)


def test_new_counts_leave_the_optimizer_alone():
    head, optimizer = trained(OPTIMIZERS["adam"])
    before = copy.deepcopy(optimizer.state_dict())
    set_class_counts(head, [1, 2, 3, 4])
    assert str(optimizer.state_dict()) == str(before)
