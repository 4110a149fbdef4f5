"""What the Meta Sampler is for: it takes back a correction that the loss makes already."""

from __future__ import annotations

import math

import torch

from lastlayer.heads import BalancedSoftmax, Softmax
from lastlayer.longtail import ClassDraw, MetaSampler

COUNTS = torch.tensor([1000, 100, 10])


def learned_rates(head):
    """Rates begun at 1/n, after 150 steps on three Gaussians of 1000, 100 and 10 examples."""
    generator = torch.Generator().manual_seed(0)
    target = torch.repeat_interleave(torch.arange(3), COUNTS)
    angle = 2 * math.pi * target / 3
    inputs = 1.2 * torch.stack((angle.cos(), angle.sin()), dim=-1)
    inputs += torch.randn(inputs.shape, generator=generator)
    draw, sampler = ClassDraw(target, 3), MetaSampler(COUNTS, initial_power=1.0, lr=0.05)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
    for _ in range(150):
        classes, weights = sampler.draw(256, generator=generator)
        rows = draw.of_classes(classes, generator)
        meta = draw(256, torch.full((3,), 1 / 3), generator)
        sampler.meta_step(head, inputs[rows], classes, weights, inputs[meta], target[meta], lr=0.5)
        optimizer.zero_grad()
        head(inputs[rows], classes).loss.backward()
        optimizer.step()
    rates = sampler.rates().log()
    return float(rates.max() - rates.min())


def test_rates_of_balanced_softmax_leave_the_class_balanced_ones_and_softmaxs_stay():
    torch.manual_seed(0)
    assert learned_rates(BalancedSoftmax(2, 3, class_counts=COUNTS)) < 1.5
    assert learned_rates(Softmax(2, 3)) > math.log(80)  # begun at log 100
