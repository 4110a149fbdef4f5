"""Which linear layer of a network is its last."""

from __future__ import annotations

from torch import nn

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
    found = {name for name in (_last_in(candidates, end) for end in ends) if name is not None}
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
        parts = list(last) if isinstance(last, (tuple, list)) else [last]
        _refuse_several(model, [m for part in parts for m in part.modules()])
        named = [name for name, module in model.named_modules() if module is last]
        if named:
            return named
    return [name for name in _CONVENTIONAL if isinstance(getattr(model, name, None), nn.Module)]


def _refuse_several(model: nn.Module, modules: list[nn.Module]) -> None:
    """Raise if several of these layers give the classes: distilled networks average them."""
    linear = [module for module in modules if isinstance(module, nn.Linear)]
    last = [layer for layer in linear if _gives_classes(model, layer)]
    if len(last) > 1:
        raise ValueError(
            f"model {type(model).__name__} has {len(last)} last layers whose outputs it averages, "
            "and a head takes the place of one: call model.reset_classifier(0) and build "
            "lastlayer.Classifier(model, head)"
        )


def _is_other_layer(block: nn.Module) -> bool:
    """Return whether a block without nn.Linear has a weight; quantized layers' is a method."""
    return any(getattr(module, "weight", None) is not None for module in block.modules())


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _gives_classes(model: nn.Module, layer: nn.Linear) -> bool:
    """Return whether a layer is as wide as the number of classes that timm or transformers keep."""
    labels = getattr(getattr(model, "config", None), "num_labels", None)
    return layer.out_features == getattr(model, "num_classes", labels)


def _last_in(candidates: dict[str, nn.Linear], end: str) -> str | None:
    inside = [name for name in candidates if name == end or name.startswith(f"{end}.")]
    return inside[-1] if inside else None
