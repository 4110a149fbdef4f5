"""The linear layers of a head: in the features' precision, together where that is cheaper."""

from __future__ import annotations

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
    nn.init.xavier_uniform_(branch.weight)
    if branch.bias is not None:
        nn.init.zeros_(branch.bias)
    return branch


def _is_plain(linear: nn.Linear, features: Tensor) -> bool:
    """Return whether calling ``linear`` is nothing but its product: no hook, no subclass."""
    hooks = linear._forward_hooks or linear._forward_pre_hooks or linear._backward_hooks
    return type(linear) is nn.Linear and not hooks and linear.weight.dtype == features.dtype
