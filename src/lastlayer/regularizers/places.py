"""Which modules of a network a pattern, or a kind of place, means."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from lastlayer._patterns import matching_names
from lastlayer.regularizers.base import Regularizer
from lastlayer.regularizers.blocks import TRANSPOSED

KINDS = ("module", "block", "branch", "convolution")

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
#: What torchvision, timm and our networks call the branch around a residual block.
_SHORTCUTS = ("downsample", "shortcut")
_POOLS_TO_ONE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
#: Classes of timm, torchvision and transformers whose inner maps are averages over space.
_GATES = re.compile(
    r"SE(Module|Layer|Block)?$|Squeeze|Excit|C?[eE]caModule|Cbam|GlobalContext|ChannelAttn"
    r"|SelectiveKernelAttn"
)
#: What a residual block has, and where its branches end, by these names: the first row that fits.
_BRANCH_ENDS = (
    # timm: ViT, Swin
    (("drop_path1", "drop_path2"), ("drop_path1", "drop_path2")),
    # timm: ConvNeXt, EfficientNet, RegNet, Mixer; transformers: ConvNeXt, Swin, BEiT, DINOv2
    (("drop_path",), ("drop_path",)),
    # torchvision: ConvNeXt, EfficientNet, Swin
    (("stochastic_depth",), ("stochastic_depth",)),
    # torchvision: ViT
    (("self_attention", "dropout", "mlp"), ("dropout", "mlp")),
    # torch.nn.TransformerDecoderLayer, TransformerEncoderLayer
    (("self_attn", "dropout1", "dropout2", "dropout3"), ("dropout1", "dropout2", "dropout3")),
    (("self_attn", "dropout1", "dropout2"), ("dropout1", "dropout2")),
    # transformers: ViT, DeiT
    (("attention", "dropout", "mlp"), ("dropout",)),
    # transformers: BERT and its kin
    (
        ("attention.output.dropout", "intermediate", "output.dropout"),
        ("attention.output.dropout", "output.dropout"),
    ),
    # transformers: MPNet; DistilBERT; GPT-2; ModernBERT
    (
        ("attention.dropout", "intermediate", "output.dropout"),
        ("attention.dropout", "output.dropout"),
    ),
    (("attention", "ffn"), ("attention", "ffn")),
    (("attn", "ln_1", "ln_2", "mlp"), ("attn", "mlp")),
    (("attn", "mlp_norm", "mlp"), ("attn", "mlp")),
    # transformers: ResNet, RegNet; torchvision: RegNet
    (("shortcut", "layer"), ("layer",)),
    (("f", "activation"), ("f",)),
    # torchvision: MobileNet
    (("conv",), ("conv",)),
    (("block",), ("block",)),
)


def find_places(
    model: nn.Module, where: str | Sequence[str], kind: str, position: str
) -> list[str]:
    """Return the names of the modules that patterns mean, in the order of the network.

    With another ``kind`` than ``"module"``, places of it are looked for within what they mean.
    Raises ``ValueError`` if a pattern means nothing, or no place of the kind is found.
    """
    modules = dict(model.named_modules())
    chosen: set[str] = set()
    for pattern in _patterns(where):
        hits = [name for name in matching_names(pattern, modules) if _is_place(name, modules)]
        if not hits:
            _check_alias(pattern, model)
            known = [name for name in modules if name.count(".") < 2]
            raise ValueError(
                f"where: no module of {type(model).__name__} is called {pattern!r}; "
                f"it has {', '.join(filter(None, known))}"
            )
        for hit in hits:
            if kind == "module":
                whole = pattern == "" or on_shortcut(hit, modules) or in_gate(hit, modules)
                inside = [] if whole else _convolutions_inside(hit, modules)
                found = inside or [hit]
            else:
                found = _of_kind(kind, hit, modules)
            chosen.update(_end_of_sequence(name, modules, position) for name in found)
    if not chosen:
        raise ValueError(
            f"kind: no {kind} is known in what where={where!r} means in {type(model).__name__}; "
            "leave kind out and name the modules"
        )
    return [name for name in modules if name in chosen]


def _patterns(where: str | Sequence[str]) -> list[str]:
    patterns = [where] if isinstance(where, str) else where
    if not isinstance(patterns, Sequence) or not all(isinstance(p, str) for p in patterns):
        raise TypeError(f"where must be a name or pattern, or several; got {where!r}")
    if not patterns:
        raise ValueError("where must name at least one module; got none")
    return list(patterns)


def _check_alias(pattern: str, model: nn.Module) -> None:
    """Raise ``ValueError`` if a pattern means the second name of a module that has two."""
    everything = dict(model.named_modules(remove_duplicate=False))
    for name in matching_names(pattern, everything):
        first = next(other for other, m in everything.items() if m is everything[name])
        if first != name:
            raise ValueError(
                f"where: {name!r} is the same module as {first!r}, and a regularizer there acts "
                f"wherever it is called; name {first!r} if that is meant"
            )


def _is_place(name: str, modules: dict[str, nn.Module]) -> bool:
    """Return whether a module works on features: no inserted regularizer, no parametrization."""
    return not (isinstance(modules[name], Regularizer) or "parametrizations" in name.split("."))


def on_shortcut(name: str, modules: dict[str, nn.Module], within: str = "") -> bool:
    """Return whether a module lies on the branch around a residual block, below ``within``."""
    for path in _paths(name, within):
        parent, _, last = path.rpartition(".")
        if last == "shortcut" or (last == "downsample" and not _is_stage(modules[parent])):
            return True
        # torchvision's RegNet: relu(proj(x) + f(x)).
        if last == "proj" and {"f", "activation"} <= modules[parent]._modules.keys():
            return True
    return False


def in_gate(name: str, modules: dict[str, nn.Module], within: str = "") -> bool:
    """Return whether a module lies in a squeeze-excite branch or its like, below ``within``."""
    for path in _paths(name, within):
        parent, _, last = path.rpartition(".")
        if is_gate(modules[path]):
            return True
        # Of a split attention, the main convolution is no gate.
        if type(modules[parent]).__name__ == "SplitAttn" and last.startswith("fc"):
            return True
    return False


def is_gate(module: nn.Module) -> bool:
    """Return whether a module works on averages over space, by its class or its first layer."""
    first = next(module.children(), None)
    pools = isinstance(first, _POOLS_TO_ONE) and first.output_size in (1, (1,), (1, 1), (1, 1, 1))
    return pools or (first is not None and bool(_GATES.search(type(module).__name__)))


def _paths(name: str, within: str) -> Iterator[str]:
    """Yield the names of a module and of what it lies in, from the outside, below ``within``."""
    parts = name.split(".")
    above = len(within.split(".")) if within else 0
    for length in range(above + 1, len(parts) + 1):
        yield ".".join(parts[:length])


def _is_stage(module: nn.Module) -> bool:
    """Return whether a module holds a list of blocks: its ``downsample`` is on the main path."""
    lists = (
        child
        for name, child in module.named_children()
        if name not in _SHORTCUTS and isinstance(child, nn.Sequential | nn.ModuleList)
    )
    inside = (part for child in lists for block in child for part in block.children())
    return any(not isinstance(part, Regularizer) for part in inside)


def _end_of_sequence(name: str, modules: dict[str, nn.Module], position: str) -> str:
    """Return the module at the end of a Sequential: a child of its own would join the sequence.

    A compiled module hands its hooks to the one inside.
    """
    module = modules[name]
    while (isinstance(module, nn.Sequential) and len(module)) or "_orig_mod" in module._modules:
        children = list(module._modules)
        child = children[-1] if position == "after" else children[0]
        name = f"{name}.{child}" if name else child
        module = modules[name]
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        raise ValueError(f"where: {name!r} is a list of modules and computes nothing itself")
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            f"where: {name or 'the network'!r} is a {type(module).__name__}, which takes no hooks; "
            "insert before torch.jit.script or torch.jit.trace"
        )
    parent = modules[name.rpartition(".")[0]]
    if name and isinstance(parent, nn.MultiheadAttention):
        raise ValueError(
            f"where: {name!r} is never called, its weights are read by {type(parent).__name__}; "
            f"name {name.rpartition('.')[0]!r}"
        )
    return name


def _convolutions_inside(name: str, modules: dict[str, nn.Module]) -> list[str]:
    return [
        other
        for other in _below(name, modules)
        if isinstance(modules[other], CONVOLUTIONS + TRANSPOSED)
        and not on_shortcut(other, modules, within=name)
        and not in_gate(other, modules, within=name)
    ]


def _below(name: str, modules: dict[str, nn.Module]) -> Iterator[str]:
    prefix = f"{name}." if name else ""
    return (other for other in modules if other != name and other.startswith(prefix))


def _of_kind(kind: str, name: str, modules: dict[str, nn.Module]) -> list[str]:
    """Return the places of a kind that a module is or holds."""
    if kind == "convolution":
        own = [name] if isinstance(modules[name], CONVOLUTIONS + TRANSPOSED) else []
        return own or _convolutions_inside(name, modules)
    blocks: list[str] = []
    found: list[str] = []
    for other in (name, *_below(name, modules)):
        ends = branch_ends(modules[other])
        inside = any(other.startswith(f"{block}.") for block in blocks)
        if other and ends is not None and not inside:
            blocks.append(other)
            found += [f"{other}.{end}" for end in ends]
    return blocks if kind == "block" else found


def branch_ends(module: nn.Module) -> tuple[str, ...] | None:
    """Return where the branches of a residual block end, by name; None for any other module.

    A block without a shortcut, such as the first of a stage of MobileNet, has no branch.
    """
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return None
    skips = getattr(module, "has_skip", getattr(module, "use_res_connect", None))
    if skips is None and "shortcut" in module.__dict__:
        skips = module.__dict__["shortcut"] is not None
    # Of transformers' Swin the attention's branch alone ends in drop_path.
    if type(module).__name__.startswith("Swin") and _has(module, "layernorm_after"):
        return ("drop_path", "mlp")
    for needed, ends in _BRANCH_ENDS:
        # A lone conv or block is one of a residual block only where the module says so.
        named = skips is not None or needed not in (("conv",), ("block",))
        if named and all(_has(module, name) for name in needed):
            return () if skips is False else ends
    return _residual_network_ends(module)


def _residual_network_ends(module: nn.Module) -> tuple[str, ...] | None:
    """Return the end of the branch of a ResNet's block, whichever library's."""
    names = list(module._modules)
    around = any(name in module.__dict__ or name in names for name in _SHORTCUTS)
    last = "3" if _has(module, "bn3") else "2"
    if not around or not {"conv1", "bn1", f"conv{last}", f"bn{last}"} <= set(names):
        return None
    if _has(module, "se"):
        return ("se",)
    preactivated = names.index("bn1") < names.index("conv1")
    return (f"conv{last}" if preactivated else f"bn{last}",)


def _has(module: nn.Module, name: str) -> bool:
    """Return whether there is a module of that dotted name."""
    for part in name.split("."):
        child = module._modules.get(part)
        if child is None:
            return False
        module = child
    return True
