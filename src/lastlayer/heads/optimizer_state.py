"""What an optimizer knows of parameters that get more rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# Their state of a parameter that has not moved yet is not zero, or is no state per parameter.
_NOT_PADDED = (torch.optim.ASGD, torch.optim.LBFGS, torch.optim.Rprop)


class Renewed(NamedTuple):
    """A parameter of a linear layer, and the one with more rows that takes its place."""

    layer: nn.Linear
    name: str
    old: nn.Parameter
    new: nn.Parameter


def padded_states(
    optimizer: torch.optim.Optimizer, renewed: Sequence[Renewed]
) -> list[dict[str, Any]]:
    """Return the state of every old parameter with zero rows for the new ones; it is not changed.

    Raises ``ValueError`` if a state is neither of the parameter's shape nor a single number.
    """
    kind = type(optimizer).__name__
    if isinstance(optimizer, _NOT_PADDED):
        raise ValueError(
            f"optimizer {kind} has a state that zero rows cannot continue; build a new one for the "
            "grown head"
        )
    return [
        {
            entry: _padded(f"optimizer {kind}'s {entry!r}", value, parameter)
            for entry, value in optimizer.state.get(parameter.old, {}).items()
        }
        for parameter in renewed
    ]


def replace_parameters(
    optimizer: torch.optim.Optimizer,
    renewed: Sequence[Renewed],
    states: Sequence[dict[str, Any]],
) -> None:
    """Put new parameters and their states into the places of the old ones."""
    new = {id(parameter.old): parameter.new for parameter in renewed}
    for group in optimizer.param_groups:
        group["params"][:] = [new.get(id(old), old) for old in group["params"]]
    for parameter, state in zip(renewed, states, strict=True):
        if optimizer.state.pop(parameter.old, None) is not None:
            optimizer.state[parameter.new] = state


def _padded(what: str, value: object, parameter: Renewed) -> object:
    if isinstance(value, Tensor) and value.shape == parameter.old.shape:
        num_new = len(parameter.new) - len(parameter.old)
        return torch.cat([value, value.new_zeros(num_new, *value.shape[1:])])
    single = value.dim() == 0 if isinstance(value, Tensor) else isinstance(value, int | float)
    if single or value is None:
        return value
    came = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise ValueError(
        f"{what} must have the shape {tuple(parameter.old.shape)} of the parameter "
        f"{parameter.name!r}, or be a single number, to be carried over; got {came}: build a new "
        "optimizer for the grown head"
    )
