"""The linear layers of a head: in the features' precision, together where that is cheaper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Up to so many outputs one product of all layers' weights costs less than one each.
JOINT_FEATURES = 64


def apply_linear(linear: nn.Linear, features: Tensor, *, hold: bool = False) -> Tensor:
    """Apply ``linear`` in the features' precision, whatever the parameters are stored in.

    With ``hold`` its parameters are constants: gradients reach the features only. A layer that does
    more than a product with its weights (quantized, low-rank adapters, hooks) is called.
    """
    dtype = features.dtype
    if _is_product(linear):
        if linear.weight.dtype == dtype and not hold:
            return linear(features)  # type: ignore[no-any-return]
        weight = linear.weight.detach() if hold else linear.weight
        bias = linear.bias.detach() if hold and linear.bias is not None else linear.bias
        return F.linear(features, weight.to(dtype), None if bias is None else bias.to(dtype))
    parameters = {n: p for n, p in linear.named_parameters() if p.is_floating_point()}
    if not hold and all(p.dtype == dtype for p in parameters.values()):
        output = linear(features)
    else:
        cast = {n: (p.detach() if hold else p).to(dtype) for n, p in parameters.items()}
        output = torch.func.functional_call(linear, cast, (features,))
    return output.to(dtype)  # type: ignore[no-any-return]


def read_weight(
    linear: nn.Linear, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return the (K, D) weights of a layer and its bias as numbers of ``dtype``, or of their own.

    Pruning and ``torch.nn.utils.weight_norm`` renew them in a hook, when the layer is called.

    Raises:
        TypeError: if the layer does more than a product with them.
    """
    weight: Any = linear.weight
    bias: Any = linear.bias
    if callable(weight):  # torch.ao's quantized layers
        weight, bias = weight().dequantize(), bias()
    elif not has_plain_forward(linear):
        raise TypeError(
            "the linear layer must be a product with its weights, which are needed here; got "
            f"{type(linear).__name__}, which computes its output in its own way: merge or remove it"
        )
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def apply_linears(linears: Sequence[nn.Linear], features: Tensor) -> tuple[Tensor, ...]:
    """Apply several layers of one shape; small ones go through one matrix product together."""
    first = linears[0]
    alike = all(
        _is_product(linear)
        and linear.weight.dtype == features.dtype
        and (linear.bias is None) == (first.bias is None)
        for linear in linears
    )
    if not alike or first.out_features > JOINT_FEATURES:
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


def call_hooks(layer: nn.Module) -> list[str]:
    """Return the names of the hooks that run when a layer is called, or its backward pass."""
    dictionaries = (
        layer._forward_pre_hooks,
        layer._forward_hooks,
        layer._backward_pre_hooks,
        layer._backward_hooks,
    )
    return _names(hook for hooks in dictionaries for hook in hooks.values())


def parameter_hooks(layer: nn.Module) -> list[str]:
    """Return the names of the hooks on the gradients of a layer's parameters."""
    dictionaries = [
        getattr(parameter, kind, None)
        for parameter in layer.parameters()
        for kind in ("_backward_hooks", "_post_accumulate_grad_hooks")
    ]
    return _names(hook for hooks in dictionaries for hook in (hooks or {}).values())


def _names(hooks: Iterable[Any]) -> list[str]:
    return [getattr(hook, "__name__", type(hook).__name__) for hook in hooks]


def _is_product(linear: nn.Linear) -> bool:
    """Return whether calling ``linear`` is nothing but its product: no hook, no own forward."""
    return not call_hooks(linear) and has_plain_forward(linear)


def has_plain_forward(linear: nn.Linear) -> bool:
    """Return whether ``linear`` computes what ``nn.Linear`` does, with floating-point weights."""
    own = type(linear).forward is not nn.Linear.forward or "forward" in vars(linear)
    return not own and linear.weight.is_floating_point()
