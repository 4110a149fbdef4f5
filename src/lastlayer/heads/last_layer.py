"""A network's last linear layer: which it is, and what would be lost if a head replaced it."""

from __future__ import annotations

import copy
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from lastlayer._random import kept_generators
from lastlayer.heads.base import Head
from lastlayer.heads.linear import call_hooks, has_plain_forward, parameter_hooks

# Where torchvision, timm and transformers have their last layer, or the block that ends in it.
_CONVENTIONAL = (
    "fc",
    "classifier",
    "head",
    "heads",
    "last_linear",
    "logits",
    "score",
    "classification_head",
    "logits_proj",
    "lm_head",
)


def find_layer(model: nn.Module, layer: str | None) -> tuple[str, nn.Linear]:
    """Return the name of the network's last ``nn.Linear``, and it.

    A network that says which it is (timm's ``get_classifier``) is asked; else a block of a
    customary name counts by the last layer that it has; else the network's own number of classes.

    Raises:
        ValueError: if there is none, or which one is last cannot be told.
    """
    candidates = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    listed = "\n".join(
        f"  {n or '(the model itself)'}: Linear({m.in_features}, {m.out_features})"
        for n, m in candidates.items()
    )
    if layer is not None:
        if layer not in candidates:
            named = dict(model.named_modules()).get(layer)
            instead = "" if named is None else f" but {_kind(named)}"
            raise ValueError(
                f"layer {layer!r} is not an nn.Linear of the model{instead}; it has\n{listed}"
            )
        return layer, candidates[layer]
    ends = _ends(model)
    inside = ([n for n in candidates if n == end or n.startswith(f"{end}.")] for end in ends)
    found = {names[-1] for names in inside if names}
    if len(found) != 1:  # the network's own number of classes may tell
        right = [n for n in found or candidates if _gives_classes(model, candidates[n])]
        found = set(right) if len(right) == 1 else found
    if len(found) == 1:
        name = found.pop()
        return name, candidates[name]
    if not found and any(isinstance(model.get_submodule(end), nn.Identity) for end in ends):
        raise ValueError(
            f"model {type(model).__name__} has no last layer to replace ({', '.join(ends)} is "
            "nn.Identity, as for num_classes=0): it returns features already; build "
            "lastlayer.Classifier(network, head)"
        )
    if not candidates:
        raise ValueError(
            f"model {type(model).__name__} has no nn.Linear to replace (its last layer may be a "
            "convolution, quantized, or a class of its own such as transformers' Conv1D); build "
            "lastlayer.Classifier(network, head) from a network that returns features"
        )
    other = [end for end in ends if _is_other_layer(model.get_submodule(end))]
    if not found and other:
        raise ValueError(
            f"model {type(model).__name__} seems to end in {other[0]!r}, which is no nn.Linear but "
            f"{_kind(model.get_submodule(other[0]))}; name the last layer with layer=..., or build "
            "lastlayer.Classifier(network, head) from a network that returns features"
        )
    if len(candidates) == 1:
        return next(iter(candidates.items()))
    raise ValueError(
        f"model has {len(candidates)} nn.Linear layers and which one is last cannot be told; "
        f"name it with layer=...\n{listed}"
    )


def _ends(model: nn.Module) -> list[str]:
    """Return the names of the blocks that may end the network."""
    ask = getattr(model, "get_classifier", None)
    if callable(ask):
        last = ask()
        parts = last if isinstance(last, (tuple, list)) else [last]
        linear = [m for part in parts for m in part.modules() if isinstance(m, nn.Linear)]
        several = sum(_gives_classes(model, layer) for layer in linear)
        if several > 1:  # distilled networks average them
            raise ValueError(
                f"model {type(model).__name__} has {several} last layers whose outputs it "
                "averages, and a head takes the place of one: call model.reset_classifier(0) and "
                "build lastlayer.Classifier(model, head)"
            )
        named = [name for name, module in model.named_modules() if module is last]
        if named:
            return named
    return [name for name in _CONVENTIONAL if isinstance(getattr(model, name, None), nn.Module)]


def _is_other_layer(block: nn.Module) -> bool:
    """Return whether a block without nn.Linear has a weight; quantized layers' is a method."""
    return any(getattr(module, "weight", None) is not None for module in block.modules())


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _gives_classes(model: nn.Module, layer: nn.Linear) -> bool:
    """Return whether a layer is as wide as the number of classes that timm or transformers keep."""
    labels = getattr(getattr(model, "config", None), "num_labels", None)
    return layer.out_features == getattr(model, "num_classes", labels)


# By name, for importing torch's compiler or its sharding takes seconds.
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}


def refuse_wrapped(model: nn.Module, name: str = "") -> None:
    """Raise ``TypeError`` if what is around a layer is compiled, scripted, a head, or wrapped."""
    parts = name.split(".")[:-1]
    module, path = model, "model"
    for part in [*parts, ""]:
        kind = type(module).__name__
        if kind in _WRAPPERS:
            raise TypeError(
                f"{path} must be the network itself; got {kind}: attach to its "
                f".{_WRAPPERS[kind]}, and wrap or compile what attach returns"
            )
        if any(base.__name__ == "FSDPModule" for base in type(module).__mro__):
            raise TypeError(
                f"{path} must not be sharded yet; got {kind}: attach first, and call fully_shard "
                "on what attach returns"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{path} must be a network of Python modules; got {kind}, whose layers cannot be "
                "replaced: attach to the network that it was scripted or traced from"
            )
        if isinstance(module, Head):
            raise TypeError(
                f"{path} must be part of a network without a head; got {kind}: attach to the "
                "network as it was, or set the head of its Classifier"
            )
        if part:
            module, path = module.get_submodule(part), f"{path}.{part}"


def refuse_other_tasks(model: nn.Module) -> None:
    """Raise ``ValueError`` if a network of transformers is set to anything but one class of K."""
    problem = getattr(getattr(model, "config", None), "problem_type", None)
    if problem not in (None, "single_label_classification"):
        raise ValueError(
            "model must give one of its classes to an input; its config.problem_type is "
            f"{problem!r}: set it to None if inputs have one label each"
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
    hooks = call_hooks(linear) + parameter_hooks(linear)
    if hooks:
        raise ValueError(
            f"layer {name!r} must have no hooks, which would be lost with it; got "
            f"{', '.join(hooks)}: remove them first (handle.remove(), torch.nn.utils.prune.remove, "
            "torch.nn.utils.remove_weight_norm), and put them on model.head.classifier afterwards"
        )
    if not (has_plain_forward(linear) or _gives_product(linear)):
        raise ValueError(
            f"layer {name!r} must compute what nn.Linear does; got {type(linear).__module__}."
            f"{type(linear).__qualname__} with a forward of its own, which would be lost: put "
            "nn.Linear in its place, merge its adapter, or let the network return features and "
            "build lastlayer.Classifier(network, head)"
        )


def _gives_product(linear: nn.Linear) -> bool:
    """Return whether a forward of a layer's own is its product: timm's casts under TorchScript."""
    state = {name for name, _ in [*linear.named_parameters(), *linear.named_buffers()]}
    if (
        not state <= {"weight", "bias"} or linear.weight.is_meta
    ):  # a zero adapter acts once it learns
        return False
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(8, linear.in_features, generator=generator).to(linear.weight)
    tolerance = torch.finfo(probe.dtype).eps ** 0.5
    for training, scale in ((True, 1), (False, 1), (False, 100)):
        layer = copy.deepcopy(linear).train(training)
        with torch.no_grad(), kept_generators():
            found = layer(scale * probe)
            expected = F.linear(scale * probe, layer.weight, layer.bias)
        size = float(expected.abs().max())
        if not torch.allclose(found, expected, rtol=0.0, atol=tolerance * size):
            return False
    return True


def warn_of_losses(model: nn.Module, name: str, linear: nn.Linear) -> None:
    """Warn of parametrizations of a layer and of shared parameters: a head copies the values."""
    if is_parametrized(linear):
        kinds = ", ".join(
            f"{parameter}: {', '.join(type(kind).__name__ for kind in chain)}"
            for parameter, chain in linear.parametrizations.items()  # type: ignore[union-attr, operator]
        )
        warnings.warn(
            f"layer {name!r} is parametrized ({kinds}); the head starts from the present values "
            "and is not: parametrize model.head.classifier anew to go on with it",
            stacklevel=3,
        )
    modules = model.named_modules(remove_duplicate=False)
    names = tuple(f"{n}." if n else "" for n, module in modules if module is linear)
    for own, parameter in linear.named_parameters():
        others = [
            other
            for other, tensor in model.named_parameters(remove_duplicate=False)
            if tensor is parameter and not other.startswith(names)
        ]
        if others:
            warnings.warn(
                f"the {own} of layer {name!r} is also {', '.join(others)}; the head has a copy of "
                f"its own. To share it again: model.head.classifier.{own} = "
                f"model.backbone.{others[0]}",
                stacklevel=3,
            )
