"""The optimizer's state goes on into the next task: against uninterrupted ones, in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lastlayer.data import Split
from lastlayer.heads import Classifier, Softmax
from lastlayer.incremental import IncrementalClassifier, IncrementalConfig, RehearsalMemory
from lastlayer.incremental.build import new_state
from lastlayer.incremental.module import TaskModule
from lastlayer.incremental.state import LearnerState
from lastlayer.incremental.task import _grown, learn_task
from lastlayer.training.module import build_optimizer, parameter_groups
from lastlayer.training.run_directory import RunDirectory

INPUTS, WIDTH, OLD, NEW = 5, 4, 3, 2
OPTIMIZERS = {
    "adam": {"name": "adam", "lr": 0.05},
    "decayed adam": {"name": "adam", "lr": 0.05, "weight_decay": 0.1},
    "adamw": {"name": "adamw", "lr": 0.05, "weight_decay": 0.1},
    "momentum": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "nesterov": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
}


def config(optimizer, **changes):
    plain = {
        "head": {"name": "softmax"},
        "optimizer": {"schedule": "constant"} | optimizer,
        "training": {"precision": "64-true", "device": "cpu"},
        "tasks": {"carry_optimizer": True},
        "memory": {"per_class": 0},
    }
    return IncrementalConfig().updated(plain).updated(changes)


def gradients(classifier, seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in classifier.parameters()
    ]


def step(optimizer, classifier, grads):
    for parameter, gradient in zip(classifier.parameters(), grads, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()


def interrupted(optimizer, *, carry):
    """Return an uninterrupted classifier with its optimizer, and the next task's module."""
    torch.manual_seed(0)
    made = config(OPTIMIZERS[optimizer])
    whole = Classifier(nn.Linear(INPUTS, WIDTH), Softmax(WIDTH, OLD)).double()
    decay = made.optimizer.weight_decay
    groups = parameter_groups(whole, decay)
    going_on = build_optimizer(made.optimizer, groups, torch.device("cpu"))
    for seed in range(3):
        step(going_on, whole, gradients(whole, seed))
    state = LearnerState(
        made,
        RehearsalMemory(per_class=0),
        classifier=copy.deepcopy(whole),
        blank=torch.empty(0, INPUTS),
        sizes=[OLD],
        optimizer_state=copy.deepcopy(going_on.state_dict()["state"]),
    )
    classifier, kept = _grown(state, torch.ones(OLD + NEW).double(), (INPUTS,))
    module = TaskModule(classifier, made, num_old=OLD, optimizer_state=kept if carry else None)
    return whole, going_on, module


def old_part(classifier):
    head = classifier.head.classifier
    return [*classifier.backbone.parameters(), head.weight[:OLD], head.bias[:OLD]]


def one_step_later(optimizer, *, carry):
    """Return the old part of both after one more step, of no gradient in new rows."""
    whole, going_on, module = interrupted(optimizer, carry=carry)
    before = module.classifier.head.classifier.weight[OLD:].detach().clone()
    optimizer_of_task = module.configure_optimizers()
    grads = gradients(whole, 9)
    padded = [
        torch.cat([g, g.new_zeros(len(p) - len(g), *g.shape[1:])])
        for g, p in zip(grads, module.classifier.parameters(), strict=True)
    ]
    step(going_on, whole, grads)
    step(optimizer_of_task, module.classifier, padded)
    after = module.classifier.head.classifier.weight[OLD:].detach()
    return old_part(whole), old_part(module.classifier), before, after


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_old_rows_and_backbone_move_as_if_nothing_had_happened(optimizer):
    whole, grown, before, after = one_step_later(optimizer, carry=True)
    for ours, theirs in zip(grown, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    if not OPTIMIZERS[optimizer].get("weight_decay"):
        assert torch.equal(before, after)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_without_the_state_they_would_move_otherwise(optimizer):
    whole, grown, _, _ = one_step_later(optimizer, carry=False)
    for ours, theirs in zip(grown, whole, strict=True):
        assert float((ours - theirs).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("carry", [True, False])
def test_the_first_step_of_a_task_is_adams_by_hand(tmp_path, carry):
    torch.manual_seed(0)
    lr, betas, eps = 0.05, (0.9, 0.999), 1e-8
    made = config(OPTIMIZERS["adam"], tasks={"carry_optimizer": carry})
    state = new_state(made, nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.Tanh()))
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    first = Split(torch.randn(30, INPUTS), torch.arange(30) % OLD)
    state, _ = learn_task(state, first, OLD, run=run, steps=4)
    assert (state.optimizer_state is not None) == carry
    second = Split(torch.randn(20, INPUTS) + 1, OLD + torch.arange(20) % NEW)

    twin, _ = _grown(state, torch.ones(OLD + NEW).double(), (INPUTS,))
    loss = F.cross_entropy(
        twin.head.classifier(twin.backbone(second.inputs.double())), second.target
    )
    grads = torch.autograd.grad(loss, list(twin.parameters()))
    after, _ = learn_task(state, second, NEW, run=run, steps=1)  # one batch of all 20
    for number, (start, g, found) in enumerate(
        zip(twin.parameters(), grads, after.trained.parameters(), strict=True)
    ):
        held = {} if state.optimizer_state is None else state.optimizer_state[number]
        mean, square = torch.zeros_like(g), torch.zeros_like(g)
        if held:
            rows = len(held["exp_avg"])
            mean[:rows], square[:rows] = held["exp_avg"], held["exp_avg_sq"]
        time = float(held.get("step", 0)) + 1
        assert time == (5 if carry else 1)
        mean = betas[0] * mean + (1 - betas[0]) * g
        square = betas[1] * square + (1 - betas[1]) * g**2
        move = mean / (1 - betas[0] ** time) / ((square / (1 - betas[1] ** time)).sqrt() + eps)
        torch.testing.assert_close(found, start - lr * move, rtol=1e-9, atol=1e-11)


def test_the_state_kept_is_a_copy_of_what_the_next_task_changes(tmp_path):
    made = config(OPTIMIZERS["adam"])
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    data = Split(torch.randn(20, INPUTS), torch.arange(20) % OLD)
    first, _ = learn_task(new_state(made, nn.Linear(INPUTS, WIDTH)), data, OLD, run=run, steps=3)
    kept = copy.deepcopy(first.optimizer_state)
    learn_task(first, Split(data.inputs, torch.full((20,), OLD)), 1, run=run, steps=3)
    for number, entries in kept.items():
        for name, value in entries.items():
            assert torch.equal(value, first.optimizer_state[number][name])


def test_regularizers_that_learn_their_rate_keep_their_places_and_know_the_examples():
    settings = {
        "training": {"batch_size": 20},
        "model": {"options": {"hidden": [16]}},
        "optimizer": {"weight_decay": 1e-3},
        "tasks": {"carry_optimizer": True},
        "regularizer": {"name": "concrete-dropout", "places": [{"where": "layers"}]},
    }
    learner = IncrementalClassifier(
        "balanced-softmax", backbone="mlp", memory=3, steps=4, settings=settings
    )
    inputs = torch.randn(60, INPUTS)
    for label, size in ((0, 60), (2, 40)):
        learner.learn(inputs[:size], label + torch.arange(size) % 2)
        regularizers = [m for m in learner.model.modules() if hasattr(m, "num_examples")]
        assert [m.num_examples for m in regularizers] == [learner.reports[-1].num_examples]
    assert learner.reports[-1].num_examples == 46
    groups = parameter_groups(learner.model, 1e-3)
    shapes = [tuple(p.shape) for group in groups for p in group["params"]]
    held = learner._state.optimizer_state
    assert [tuple(held[i]["exp_avg"].shape) for i in range(len(shapes))] == shapes
