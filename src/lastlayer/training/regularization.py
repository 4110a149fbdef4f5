"""Regularizers in a run: into the backbone, along a schedule, and what their learning costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lastlayer.heads import Classifier
from lastlayer.regularizers import Regularizer, insert, inserted
from lastlayer.regularizers.adaptive import AdaptiveRegularizer
from lastlayer.training.sections import RegularizerConfig

#: From the share of the run that is done, in [0, 1], to a factor in [0, 1] of the full rate.
Schedule = Callable[[float], float]


def constant(done: float) -> float:
    """Return 1: the full rate from the first step."""
    return 1.0


def linear(done: float) -> float:
    """Return ``done``: from 0 to the full rate over the whole run, as DropBlock and Disout have it.

    The mean rate of the run is half of the full one.
    """
    return done


def cosine(done: float) -> float:
    r"""Return :math:`(1 - \cos \pi d) / 2`: as linear, with a slow start and a slow end."""
    return (1 - math.cos(math.pi * done)) / 2


SCHEDULES: dict[str, Schedule] = {"constant": constant, "linear": linear, "cosine": cosine}


def share_done(step: int, total_steps: int) -> float:
    """Return the share of a run that is done before a step, 0 at the first and 1 from the last on.

    Example:
        >>> [share_done(step, 3) for step in range(4)]
        [0.0, 0.5, 1.0, 1.0]
    """
    return min(1.0, step / (total_steps - 1)) if total_steps > 1 else 1.0


def add_regularizers(classifier: Classifier, config: RegularizerConfig, num_examples: int) -> None:
    """Insert a configuration's regularizers into the backbone of a classifier, in place.

    The classifier's last layer may shape the noise of a place before it; a learned rate's penalty
    is spread over ``num_examples``.
    """
    if config.name is None:
        return
    for place in config.places:
        patterns = [place.where] if isinstance(place.where, str) else place.where
        insertion = insert(
            classifier,
            config.name,
            where=[f"backbone.{pattern}".removesuffix(".") for pattern in patterns],
            kind=place.kind,
            position=place.position,
            num_examples=num_examples,
            **config.options,
        )
        for regularizer in (found.regularizer for found in insertion.places):
            if place.factor != 1:
                regularizer.p = regularizer.p * place.factor


def spread_penalties(model: nn.Module, num_examples: int) -> None:
    """Tell the regularizers that learn their rate how many training examples there are now."""
    for _, regularizer in inserted(model):
        if isinstance(regularizer, AdaptiveRegularizer):
            regularizer.num_examples = num_examples


class RateSchedule(Callback):
    """Move the rate of every regularizer from step to step, a function of the step alone.

    The rates that the regularizers have when training begins are the full ones. Learned rates are
    left alone.

    Args:
        schedule: factor of the full rate by the share of the run that is done; or a name, one of
            ``"constant"``, ``"linear"`` (from 0 to the full rate, as DropBlock and Disout were
            published) and ``"cosine"``.
        total_steps: length of the run.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> RateSchedule(lambda done: done ** 2, total_steps=1000).factor(500) < 0.26
        True
    """

    def __init__(self, schedule: Schedule | str, total_steps: int) -> None:
        if isinstance(schedule, str):
            if schedule not in SCHEDULES:
                known = ", ".join(SCHEDULES)
                raise ValueError(f"unknown schedule {schedule!r}; known: {known}")
            schedule = SCHEDULES[schedule]
        self.schedule, self.total_steps = schedule, total_steps
        self._full: list[tuple[Regularizer, float]] = []

    def factor(self, step: int) -> float:
        """Return the factor of the full rate at a step."""
        return self.schedule(share_done(step, self.total_steps))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note the full rates; a checkpoint, which holds a step's rates, is read after this."""
        self._full = [
            (regularizer, regularizer.p)
            for _, regularizer in inserted(pl_module)
            if not isinstance(regularizer, AdaptiveRegularizer)
        ]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the step's rates."""
        factor = self.factor(trainer.global_step)
        for regularizer, full in self._full:
            regularizer.p = factor * full


def learned_rates(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the regularizers that learn their rate."""
    return [
        parameter
        for _, regularizer in inserted(model)
        if isinstance(regularizer, AdaptiveRegularizer)
        for parameter in regularizer.parameters()
    ]


def without_decay(
    groups: list[dict[str, Any]], parameters: list[nn.Parameter]
) -> list[dict[str, Any]]:
    """Move parameters out of the optimizer's groups into one that is not decayed."""
    if not parameters:
        return groups
    moved = {id(parameter) for parameter in parameters}
    kept = [g | {"params": [p for p in g["params"] if id(p) not in moved]} for g in groups]
    return [*kept, {"params": parameters, "weight_decay": 0.0}]
