"""The learning rate with warm-up, against torch's own schedules in a chain."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    SequentialLR,
)

from lastlayer.heads import Classifier, Softmax
from lastlayer.training.module import TrainingModule, build_optimizer
from lastlayer.training.schedule import build_schedule, rate_factor, warmup_steps
from lastlayer.training.sections import OptimizerConfig

LR = 0.1


def sgd():
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)


def rates(optimizer, schedule, steps):
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def ours(config, steps):
    optimizer = sgd()
    return rates(optimizer, build_schedule(config, optimizer, steps), steps)


@pytest.mark.parametrize("warmup", [1, 2, 7, 30])
def test_warm_up_before_milestones_is_torchs_chain(warmup):
    config = OptimizerConfig(
        schedule="step", milestones=(0.3, 0.6, 0.8), gamma=0.2, warmup=warmup, lr=LR
    )
    optimizer = sgd()
    chain = ChainedScheduler(
        [
            LinearLR(optimizer, 1 / warmup, total_iters=warmup - 1),
            MultiStepLR(optimizer, [12, 24, 32], gamma=0.2),
        ],
        optimizer,
    )
    assert ours(config, 40) == pytest.approx(rates(optimizer, chain, 40), rel=1e-12)


@pytest.mark.parametrize("warmup", [1, 2, 7, 30])
def test_warm_up_before_cosine_is_torchs_sequence(warmup):
    config = OptimizerConfig(schedule="cosine", warmup=warmup, lr=LR)
    optimizer = sgd()
    parts = [
        LinearLR(optimizer, 1 / warmup, total_iters=warmup - 1),
        CosineAnnealingLR(optimizer, 40 - warmup),
    ]
    sequence = SequentialLR(optimizer, parts, [warmup])
    assert ours(config, 40) == pytest.approx(rates(optimizer, sequence, 40), rel=1e-9)


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_no_warm_up_is_the_plain_schedule(schedule):
    config = OptimizerConfig(schedule=schedule, lr=LR)
    optimizer = sgd()
    built = build_schedule(config, optimizer, 40)
    assert isinstance(built, MultiStepLR | CosineAnnealingLR)
    closed = [LR * rate_factor(config, step, 40) for step in range(40)]
    assert rates(optimizer, built, 40) == pytest.approx(closed, rel=1e-9)


def test_a_constant_rate_may_warm_up_too():
    config = OptimizerConfig(schedule="constant", warmup=4, lr=LR)
    assert ours(config, 6) == pytest.approx([LR / 4, LR / 2, 3 * LR / 4, LR, LR, LR])
    assert build_schedule(OptimizerConfig(schedule="constant"), sgd(), 6) is None


def test_one_epoch_of_two_hundred_as_a_fraction_or_as_steps():
    published = {"schedule": "step", "milestones": (0.3, 0.6, 0.8), "gamma": 0.2}
    fraction = OptimizerConfig(warmup=0.005, **published)
    steps = OptimizerConfig(warmup=391, **published)
    assert warmup_steps(fraction, 391 * 200) == warmup_steps(steps, 391 * 200) == 391
    for step in (0, 390, 391, 60 * 391 - 1, 60 * 391, 160 * 391, 200 * 391 - 1):
        assert rate_factor(fraction, step, 391 * 200) == rate_factor(steps, step, 391 * 200)
    factors = [rate_factor(steps, 391 * epoch, 391 * 200) for epoch in (1, 59, 60, 120, 160)]
    assert factors == pytest.approx([1, 1, 0.2, 0.04, 0.008])


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("schedule", ["constant", "step", "cosine"])
def test_the_shortest_runs_have_a_rate_at_every_step_and_one_after(schedule, steps):
    config = OptimizerConfig(schedule=schedule, warmup=0.5, lr=LR)
    assert all(0 < rate <= LR for rate in ours(config, steps))
    assert 0 <= rate_factor(config, steps, steps) <= 1


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_optimizer_is_torchs_sgd_with_that_momentum(nesterov):
    config = OptimizerConfig(name="sgd", schedule="step", warmup=3, nesterov=nesterov, lr=LR)
    module = TrainingModule(Classifier(nn.Identity(), Softmax(3, 2)), config, 10)
    built = module.configure_optimizers()
    defaults = built["optimizer"].defaults
    assert (defaults["momentum"], defaults["nesterov"]) == (0.9, nesterov)
    assert isinstance(built["lr_scheduler"]["scheduler"], LambdaLR)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("adam", lambda groups: torch.optim.Adam(groups, lr=LR)),
        ("adamw", lambda groups: torch.optim.AdamW(groups, lr=LR)),
        ("sgd", lambda groups: torch.optim.SGD(groups, lr=LR, momentum=0.9)),
    ],
)
def test_an_optimizer_steps_as_torchs_of_that_name_with_its_decay(name, theirs):
    """Adam adds the decay to the gradient, AdamW takes it off the weights."""
    config = OptimizerConfig(name=name, lr=LR, momentum=0.9)
    weights = [nn.Parameter(torch.tensor([2.0, -3.0])) for _ in range(2)]
    groups = [[{"params": [weight], "weight_decay": 0.3}] for weight in weights]
    optimizers = build_optimizer(config, groups[0], torch.device("cpu")), theirs(groups[1])
    for step in range(3):
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = torch.tensor([0.5, -0.1 * step])
            optimizer.step()
    torch.testing.assert_close(*weights)
