"""Regularisers put into a network by module name, and taken out again."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from lastlayer._checks import check_choice
from lastlayer.functional.blocks.disout import check_next_weight
from lastlayer.regularizers.base import Regularizer
from lastlayer.regularizers.blocks import Disout
from lastlayer.regularizers.catalog import REGULARIZERS, build_regularizer

POSITIONS = ("after", "before")

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_WEIGHTED = (*_CONVOLUTIONS, nn.Linear)
#: What torchvision, timm and our networks call the branch around a residual block.
_SHORTCUTS = ("downsample", "shortcut")


@dataclass(frozen=True)
class Place:
    """One regulariser in a network.

    Attributes:
        name: dotted name of the module that it stands behind or before.
        position: ``"after"`` or ``"before"``.
        regularizer: the regulariser.
        next_name: dotted name of the layer that takes its output next; None if none was found.
    """

    name: str
    position: str
    regularizer: Regularizer
    next_name: str | None


@dataclass
class Insertion:
    """What :func:`insert` did: print it to see where, call ``remove`` to undo it."""

    places: list[Place]
    _undo: list[tuple[nn.Module, str, RemovableHandle]] = field(default_factory=list, repr=False)

    def remove(self) -> None:
        """Take the regularisers out of the network; a second call does nothing."""
        while self._undo:
            module, child, handle = self._undo.pop()
            handle.remove()
            delattr(module, child)

    def __str__(self) -> str:
        rows = [("where", "", "regulariser", "shaped by")]
        for place in self.places:
            shaped = place.next_name or "-"
            rows.append((place.position, place.name, str(place.regularizer), shaped))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows)
        return "\n".join(line.rstrip() for line in lines)


def insert(
    model: nn.Module,
    regularizer: str,
    *,
    where: str | Sequence[str],
    position: str = "after",
    num_examples: int | None = None,
    **options: Any,
) -> Insertion:
    """Put a regulariser behind, or before, every module that a pattern names.

    A pattern such as ``"layer3.*.conv1"`` is matched with the dotted names of the modules. One that
    matches a module with convolutions inside, such as ``"layer3"`` or ``"layer3.0"``, stands for
    these convolutions, those on a shortcut excepted; one that matches a shortcut for its end. A
    ``Sequential`` stands for its last module, or its first in position ``"before"``.

    Weights and the names of weights stay as they are; every regulariser becomes a child of the
    module that it belongs to, so ``train()``, ``eval()``, ``to()`` and copies reach it, and a
    ``state_dict`` saved from now on also holds its rate. Load weights saved before first.

    Disout takes its statistic from the next layer in the order in which the modules were
    registered: after a convolution the next convolution that is not on a shortcut and takes as many
    channels, after a linear layer the next linear layer; in position ``"before"`` the module
    itself. Where there is none, the noise has its default scale.

    Args:
        model: any network, changed in place.
        regularizer: a name of ``lastlayer list regularizers``.
        where: one pattern or several, as of ``fnmatch``; ``""`` is the network itself.
        position: ``"after"`` acts on the module's output, ``"before"`` on its first input.
        num_examples: number of training examples, for the regularisers that learn their rate; their
            ``num_features`` is found.
        **options: arguments of the regulariser.

    Returns:
        The plan, to print or to undo.

    Raises:
        ValueError: if a pattern matches nothing, or an argument does not fit.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        >>> insertion = insert(network, "disout", where="0", p=0.1)
        >>> insertion.places[0].next_name
        '2'
        >>> insertion.remove()
    """
    check_choice("position", position, POSITIONS)
    patterns = [where] if isinstance(where, str) else list(where)
    names = _matched(model, patterns, position)
    insertion = Insertion([])
    try:
        for name in names:
            _insert_one(model, name, regularizer, position, num_examples, options, insertion)
    except Exception:
        insertion.remove()
        raise
    return insertion


def inserted(model: nn.Module) -> Iterator[tuple[str, Regularizer]]:
    """Yield the dotted names and the regularisers in a network, inserted or built in."""
    for name, module in model.named_modules():
        if isinstance(module, Regularizer):
            yield name, module


def _insert_one(
    model: nn.Module,
    name: str,
    regularizer: str,
    position: str,
    num_examples: int | None,
    options: dict[str, Any],
    insertion: Insertion,
) -> None:
    module = model.get_submodule(name)
    channels, candidates = _around(model, name, position)
    built = build_regularizer(regularizer, **_fitting(regularizer, channels, num_examples, options))
    next_name = None
    if isinstance(built, Disout):
        next_name, layer = _next_layer(candidates, channels)
        built.follow(layer)
    child = _free_name(module)
    if position == "after":
        handle = module.register_forward_hook(partial(_after, child))
    else:
        handle = module.register_forward_pre_hook(partial(_before, child))
    module.add_module(child, built)
    insertion._undo.append((module, child, handle))
    insertion.places.append(Place(name, position, built, next_name))


def _after(child: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    return getattr(module, child)(output)


def _before(child: str, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (getattr(module, child)(inputs[0]), *inputs[1:])


def _matched(model: nn.Module, patterns: Sequence[str], position: str) -> list[str]:
    """Return the names that the patterns mean, in the order of the network."""
    modules = dict(model.named_modules())
    chosen: set[str] = set()
    for pattern in patterns:
        hits = [name for name in modules if fnmatchcase(name, pattern)]
        if not hits:
            known = [name for name in modules if name.count(".") < 2]
            raise ValueError(
                f"where: no module of {type(model).__name__} is called {pattern!r}; "
                f"it has {', '.join(filter(None, known))}"
            )
        for hit in hits:
            whole = pattern == "" or _on_shortcut(hit)
            inside = [] if whole else _convolutions_inside(hit, modules)
            chosen.update(inside or [_end_of_sequence(hit, modules, position)])
    return [name for name in modules if name in chosen]


def _end_of_sequence(name: str, modules: dict[str, nn.Module], position: str) -> str:
    """Return the module at the end of a Sequential: a child of its own would join the sequence."""
    module = modules[name]
    while isinstance(module, nn.Sequential) and len(module):
        children = list(module._modules)
        child = children[-1] if position == "after" else children[0]
        name = f"{name}.{child}" if name else child
        module = modules[name]
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        raise ValueError(f"where: {name!r} is a list of modules and computes nothing itself")
    return name


def _convolutions_inside(name: str, modules: dict[str, nn.Module]) -> list[str]:
    prefix = f"{name}."
    return [
        other
        for other, module in modules.items()
        if other.startswith(prefix)
        and isinstance(module, _CONVOLUTIONS)
        and not _on_shortcut(other[len(prefix) :])
    ]


def _on_shortcut(name: str) -> bool:
    return any(part in _SHORTCUTS for part in name.split("."))


def _around(
    model: nn.Module, name: str, position: str
) -> tuple[int | None, list[tuple[str, nn.Module]]]:
    """Return the channels at a place, and the layers that may take what leaves it, in order."""
    names = [n for n, _ in model.named_modules()]
    inside = [i for i, n in enumerate(names) if n == name or name == "" or n.startswith(f"{name}.")]
    layers: list[tuple[int, str, nn.Module]] = [
        (i, n, m) for i, (n, m) in enumerate(model.named_modules()) if isinstance(m, _WEIGHTED)
    ]
    if position == "before":
        own = [(n, m) for i, n, m in layers if i >= inside[0]]
        return (_inputs(own[0][1]), own[:1]) if own else (None, [])
    last = inside[-1]
    earlier = [m for i, n, m in layers if i <= last and (i in inside or not _on_shortcut(n))]
    if not earlier:
        return None, []
    same_kind = _CONVOLUTIONS if isinstance(earlier[-1], _CONVOLUTIONS) else nn.Linear
    later: list[tuple[str, nn.Module]] = [
        (n, m)
        for i, n, m in layers
        if i > last and isinstance(m, same_kind) and not _on_shortcut(n)
    ]
    return _outputs(earlier[-1]), later


def _inputs(layer: Any) -> int:
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)


def _outputs(layer: Any) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def _next_layer(
    candidates: list[tuple[str, nn.Module]], channels: int | None
) -> tuple[str | None, nn.Module | None]:
    for name, layer in candidates:
        weight: Any = layer.weight
        try:
            check_next_weight(weight, channels or 0)
        except (ValueError, ZeroDivisionError):
            continue
        return name, layer
    return None, None


def _fitting(
    regularizer: str, channels: int | None, num_examples: int | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Tell a regulariser that learns how many channels and examples there are."""
    known = {"num_features": channels, "num_examples": num_examples}
    parameters = inspect.signature(REGULARIZERS.get(regularizer)).parameters
    wanted = {k: v for k, v in known.items() if v is not None and k in parameters}
    return wanted | options


def _free_name(module: nn.Module) -> str:
    child, number = "regularizer", 1
    while hasattr(module, child):
        number += 1
        child = f"regularizer{number}"
    return child
