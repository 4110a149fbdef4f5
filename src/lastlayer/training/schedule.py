"""How the learning rate moves."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
)

from lastlayer.training.sections import OptimizerConfig


def build_schedule(
    config: OptimizerConfig, optimizer: Optimizer, total_steps: int
) -> LRScheduler | None:
    """Return the schedule of a run, or None if the rate stays."""
    if config.warmup:
        return LambdaLR(optimizer, lambda step: rate_factor(config, step, total_steps))
    if config.schedule == "constant":
        return None
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, total_steps)
    if config.schedule == "one-cycle":
        # Lightning steps the schedule once more after the last step.
        return OneCycleLR(optimizer, config.lr, total_steps=total_steps + 1)
    return MultiStepLR(optimizer, _milestones(config, total_steps), gamma=config.gamma)


def rate_factor(config: OptimizerConfig, step: int, total_steps: int) -> float:
    r"""Return what the learning rate is multiplied by at one step of a run with warm-up.

    With w steps of warm-up out of T the factor at step t, counted from 0, is
    :math:`(t + 1) / w` while :math:`t < w`, and after that 1 (``"constant"``),
    :math:`(1 + \cos(\pi (t - w) / (T - w))) / 2` (``"cosine"``), or gamma to the number of
    milestones at or before t (``"step"``, which the warm-up multiplies).

    Example:
        >>> config = OptimizerConfig(schedule="step", milestones=(0.5,), gamma=0.2, warmup=4)
        >>> [rate_factor(config, step, 10) for step in (0, 3, 4, 5)]
        [0.25, 1.0, 1.0, 0.2]
    """
    warmup = warmup_steps(config, total_steps)
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if config.schedule == "step":
        passed = sum(milestone <= step for milestone in _milestones(config, total_steps))
        return float(rise * config.gamma**passed)
    if config.schedule == "cosine" and step >= warmup:
        # The engine asks for one step more than the run has, and a run of one may be all warm-up.
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return (1.0 + math.cos(math.pi * progress)) / 2.0
    return rise


def warmup_steps(config: OptimizerConfig, total_steps: int) -> int:
    """Return the number of steps of warm-up, at least 1 where a fraction is asked for."""
    if isinstance(config.warmup, int):
        return config.warmup
    return max(1, round(config.warmup * total_steps))


def _milestones(config: OptimizerConfig, total_steps: int) -> list[int]:
    return [math.floor(total_steps * fraction) for fraction in config.milestones]
