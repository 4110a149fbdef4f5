"""The optimizer's state, carried from one task into the next."""

from __future__ import annotations

import copy
from typing import Any

from torch.optim import Optimizer

from lastlayer.heads import Classifier
from lastlayer.incremental.module import TaskModule, carry_state
from lastlayer.incremental.state import LearnerState
from lastlayer.training.module import build_optimizer, parameter_groups


def kept_state(module: TaskModule) -> dict[int, Any]:
    """Return the state of a trained module's optimizer, by the order of its parameters."""
    optimizer: Any = module.optimizers()
    state: dict[int, Any] = copy.deepcopy(optimizer.optimizer.state_dict()["state"])
    return state


def carried_optimizer(state: LearnerState, classifier: Classifier) -> Optimizer | None:
    """Return an optimizer of a classifier's parameters with the state so far; None for no state.

    Args:
        state: after the task before.
        classifier: a copy of the state's own, not grown yet.
    """
    if state.optimizer_state is None:
        return None
    config = state.config.optimizer
    device = classifier.head.classifier.weight.device
    optimizer = build_optimizer(config, parameter_groups(classifier, config.weight_decay), device)
    carry_state(optimizer, state.optimizer_state)
    return optimizer
