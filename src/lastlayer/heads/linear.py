"""The linear layers of a head: in the features' precision, together where that is cheaper."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Up to so many outputs one product of all layers' weights costs less than one each.
JOINT_FEATURES = 64


def apply_linear(linear: nn.Linear, features: Tensor) -> Tensor:
    """Apply ``linear`` in the features' precision, whatever the parameters are stored in."""
    if linear.weight.dtype == features.dtype:
        return linear(features)  # type: ignore[no-any-return]
    bias = None if linear.bias is None else linear.bias.to(features.dtype)
    return F.linear(features, linear.weight.to(features.dtype), bias)


def apply_linears(linears: Sequence[nn.Linear], features: Tensor) -> tuple[Tensor, ...]:
    """Apply several layers of one shape; small ones go through one matrix product together."""
    first = linears[0]
    alike = all(
        _is_plain(linear, features) and (linear.bias is None) == (first.bias is None)
        for linear in linears
    )
    if first.out_features > JOINT_FEATURES or not alike:
        return tuple(apply_linear(linear, features) for linear in linears)
    weight = torch.cat([linear.weight for linear in linears])
    bias = None if first.bias is None else torch.cat([linear.bias for linear in linears])
    return torch.split(F.linear(features, weight, bias), first.out_features, dim=-1)


def new_branch(like: nn.Linear) -> nn.Linear:
    """Build a linear layer of the shape of another: Glorot-uniform weights, zero bias."""
    branch = nn.Linear(
        like.in_features,
        like.out_features,
        bias=like.bias is not None,
        device=like.weight.device,
        dtype=like.weight.dtype,
    )
    init_branch_rows(branch, like.out_features)
    return branch


def init_branch_rows(
    rows: nn.Linear, num_classes: int, generator: torch.Generator | None = None
) -> None:
    """Draw rows of a branch that has ``num_classes`` in all: Glorot-uniform weights, zero bias."""
    deviation = math.sqrt(2.0 / (rows.in_features + num_classes))
    bound = math.sqrt(3.0) * deviation  # in torch's order of rounding: the same bits
    nn.init.uniform_(rows.weight, -bound, bound, generator=generator)
    if rows.bias is not None:
        nn.init.zeros_(rows.bias)


def init_classifier_rows(rows: nn.Linear, generator: torch.Generator | None = None) -> None:
    """Draw rows of a classifier as ``nn.Linear`` does, from a generator."""
    nn.init.kaiming_uniform_(rows.weight, a=math.sqrt(5.0), generator=generator)
    if rows.bias is not None:
        bound = 1.0 / math.sqrt(rows.in_features)
        nn.init.uniform_(rows.bias, -bound, bound, generator=generator)


def _is_plain(linear: nn.Linear, features: Tensor) -> bool:
    """Return whether calling ``linear`` is nothing but its product: no hook, no subclass."""
    hooks = linear._forward_hooks or linear._forward_pre_hooks or linear._backward_hooks
    return type(linear) is nn.Linear and not hooks and linear.weight.dtype == features.dtype
