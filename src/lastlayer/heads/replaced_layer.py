"""Whether a network's last layer can be replaced by a head, and what would be lost with it."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from lastlayer.heads.base import Head
from lastlayer.heads.linear import call_hooks, has_plain_forward, parameter_hooks

# By name, for importing torch's compiler or its sharding takes seconds.
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}


def refuse_wrapped(model: nn.Module, name: str = "") -> None:
    """Raise unless everything around the layer ``name`` runs it as it is written, and is no head.

    Raises:
        TypeError: if it is compiled, scripted, or wrapped for several devices.
        ValueError: if it lies in a head.
    """
    parts = name.split(".") if name else []
    for depth in range(len(parts) + 1):
        path = ".".join(parts[:depth])
        module = model.get_submodule(path)
        kind = type(module).__name__
        where = f"module {path!r}" if path else "model"
        if kind in _WRAPPERS:
            raise TypeError(
                f"{where} must be the network itself; got {kind}: attach to its "
                f".{_WRAPPERS[kind]}, and wrap or compile what attach returns"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{where} must be a network of Python modules; got {kind}, whose layers cannot be "
                "replaced: attach to the network that it was scripted or traced from"
            )
        if isinstance(module, Head):
            raise ValueError(
                f"layer {name!r} must not lie in a head; got one in {path!r}, a {kind}: attach to "
                "the network as it was, or set the head of its Classifier"
            )


def check_replaceable(name: str, linear: nn.Linear) -> None:
    """Raise unless a layer is its weights and its bias, and nothing that a head would lose.

    Raises:
        ValueError: if it has no size yet, has a forward of its own, or hooks.
        TypeError: if its weights are quantized or sharded.
    """
    if is_lazy(linear.weight):
        raise ValueError(
            f"layer {name!r} must know its size; got {type(linear).__name__}, which takes it from "
            "the first input: run the network once, then attach"
        )
    if not linear.weight.is_floating_point():
        raise TypeError(
            f"layer {name!r} must have floating-point weights; got {linear.weight.dtype}: attach "
            "the head first, and quantize afterwards"
        )
    if type(linear.weight.data) is not Tensor:
        raise TypeError(
            f"layer {name!r} must have weights that are plain tensors; got "
            f"{type(linear.weight.data).__name__}: attach the head first, and shard or quantize "
            "afterwards"
        )
    if not has_plain_forward(linear):
        raise ValueError(
            f"layer {name!r} must compute what nn.Linear does; got {type(linear).__name__}, whose "
            "forward is its own and would be lost: put nn.Linear in its place, merge its adapter, "
            "or let the network return features and build lastlayer.Classifier(network, head)"
        )
    hooks = call_hooks(linear) + parameter_hooks(linear)
    if hooks:
        raise ValueError(
            f"layer {name!r} must have no hooks, which would be lost with it; got "
            f"{', '.join(hooks)}: remove them first (handle.remove(), torch.nn.utils.prune.remove, "
            "torch.nn.utils.remove_weight_norm), and put them on model.head.classifier afterwards"
        )


def warn_of_losses(model: nn.Module, name: str, linear: nn.Linear) -> None:
    """Warn of parametrizations of a layer and of shared parameters: a head copies the values."""
    if is_parametrized(linear):
        kinds = ", ".join(
            f"{parameter}: {', '.join(type(kind).__name__ for kind in chain)}"
            for parameter, chain in linear.parametrizations.items()  # type: ignore[union-attr]
        )
        warnings.warn(
            f"layer {name!r} is parametrized ({kinds}); the head starts from the present values "
            "and is not: parametrize model.head.classifier anew to go on with it",
            stacklevel=3,
        )
    names = {n for n, module in model.named_modules(remove_duplicate=False) if module is linear}
    for own, parameter in linear.named_parameters():
        others = [
            other
            for other, tensor in model.named_parameters(remove_duplicate=False)
            if tensor is parameter and other.rpartition(".")[0] not in names
        ]
        if others:
            warnings.warn(
                f"the {own} of layer {name!r} is also {', '.join(others)}; the head has a copy of "
                f"its own. To share it again: model.head.classifier.{own} = "
                f"model.backbone.{others[0]}",
                stacklevel=3,
            )
