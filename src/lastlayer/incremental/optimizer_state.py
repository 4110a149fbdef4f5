"""The optimizer's state, carried from one task into the next."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer

from lastlayer.heads import Classifier
from lastlayer.incremental.module import TaskModule, carry_state
from lastlayer.incremental.state import LearnerState
from lastlayer.training.module import build_optimizer


def kept_state(module: TaskModule) -> dict[int, Any]:
    """Return the state of a trained module's optimizer, by the order of its parameters."""
    optimizer: Any = module.optimizers()
    state: dict[int, Any] = copy.deepcopy(optimizer.optimizer.state_dict()["state"])
    return state


@contextmanager
def grown_optimizer_state(
    state: LearnerState, classifier: Classifier
) -> Iterator[Optimizer | None]:
    """Give an optimizer of the classifier's parameters with the state so far, or None for none."""
    if state.optimizer_state is None:
        yield None
        return
    config = state.config.optimizer
    device = classifier.head.classifier.weight.device
    optimizer = build_optimizer(config, classifier.param_groups(config.weight_decay), device)
    carry_state(optimizer, state.optimizer_state)
    yield optimizer
