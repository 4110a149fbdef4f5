"""Where the channels are at a place in a network, as far as its layers say it."""

from __future__ import annotations

import re

from torch import nn

from lastlayer._channels import own_channel_dim, passes_on

#: What passes sequences through, as the attention or recurrence inside it takes them.
_SEQUENCES = (
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.Transformer,
    nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
)


def find_channel_dim(name: str, modules: dict[str, nn.Module], position: str) -> int | None:
    """Return where the channels are behind, or before, a module of a network; None if unclear.

    A layer says it by its class. What has layers inside passes it on where they agree; before it
    the first of them decides. An activation, or dropout, in a ``Sequential`` has it from what
    stands before it; any other module without layers, from all layers of what it is part of.
    """
    module = modules[name]
    inside = _dims_inside(module)
    if inside and position == "before":
        return inside[0]
    if inside:
        return _agreed(inside)
    if name == "":
        return None
    above, _, child = name.rpartition(".")
    parent = modules[above]
    if not isinstance(parent, nn.Sequential):
        return _agreed(_dims_inside(parent))
    if position == "after" and not passes_on(module):
        return None
    before = list(parent._modules)[: list(parent._modules).index(child)]
    if before:
        return find_channel_dim(_joined(above, before[-1]), modules, "after")
    return find_channel_dim(above, modules, "before") if above else None


def map_dims(name: str, modules: dict[str, nn.Module], position: str) -> int | None:
    """Return how many dimensions the features have, as a convolution or its like tells it."""
    kinds = [_dims_of(part) for part in modules[name].modules()]
    known = [dims for dims in kinds if dims is not None]
    if position == "before":
        return known[0] if known else None
    return known[0] if len(set(known)) == 1 else None


def is_batch_first(name: str, modules: dict[str, nn.Module]) -> bool:
    """Return False where a module of torch, or what it lies in, has positions before examples."""
    paths = [name]
    while paths[-1]:
        paths.append(paths[-1].rpartition(".")[0])
    return not any(_is_sequence_first(modules[path]) for path in paths)


def _is_sequence_first(module: nn.Module) -> bool:
    return isinstance(module, _SEQUENCES) and any(
        not part.batch_first
        for part in module.modules()
        if isinstance(part, nn.MultiheadAttention | nn.RNNBase)
    )


def _dims_inside(module: nn.Module) -> list[int]:
    """Return what a module's class says, or else the layers inside it, in order."""
    own = own_channel_dim(module)
    if own is not None:
        return [own]
    return [dim for child in module.children() for dim in _dims_inside(child)]


def _agreed(dims: list[int]) -> int | None:
    return dims[0] if len(set(dims)) == 1 else None


def _joined(above: str, child: str) -> str:
    return f"{above}.{child}" if above else child


def _dims_of(module: nn.Module) -> int | None:
    """Return the dimensions of what a layer for sequences, images or volumes takes."""
    window = re.search(r"(Conv|ConvTranspose|Pool|InstanceNorm)([123])d$", type(module).__name__)
    if window:
        return int(window[2]) + 2
    return {"BatchNorm2d": 4, "BatchNorm3d": 5}.get(type(module).__name__)
