"""The layer that takes features next, and how many channels it has before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from lastlayer.regularizers.blocks import TRANSPOSED, check_takes, weight_of
from lastlayer.regularizers.places import CONVOLUTIONS, in_gate, on_shortcut

_WINDOWED = CONVOLUTIONS + TRANSPOSED
#: Layers whose weights are not one for one input: the search ends there, without a layer.
_UNREAD = (nn.RNNBase, nn.RNNCellBase, nn.Bilinear)
_WEIGHTED = (*_WINDOWED, *_UNREAD, nn.Linear, nn.MultiheadAttention)


def layers_around(
    modules: dict[str, nn.Module],
    name: str,
    position: str,
    channel_dim: int = 1,
    *,
    order: Sequence[str] | None = None,
) -> tuple[int | None, list[tuple[str, nn.Module]]]:
    """Return the channels at a place, None if no layer tells them, and the layers behind it.

    They come in the order in which modules were registered, or the one given, in which they ended
    in a run; a layer that is used twice stands at both places. Convolutions, transposed or not,
    follow each other, and linear layers and attention each other; one of the other sort only if it
    takes exactly these channels and is no classifier behind the last convolution. Recurrent and
    bilinear layers follow everything.
    """
    names = list(modules) if order is None else order
    end = len(names) if order is None else names.index(name)
    inside = [
        i
        for i, n in enumerate(names)
        if i <= end and (n == name or name == "" or n.startswith(f"{name}."))
    ]
    layers = [
        (i, n, modules[n])
        for i, n in enumerate(names)
        if isinstance(modules[n], _WEIGHTED)
        and not isinstance(modules[n.rpartition(".")[0]], nn.MultiheadAttention)
    ]
    if position == "before":
        own = [(n, m) for i, n, m in layers if i >= inside[0]]
        return (_inputs(own[0][1]), own[:1]) if own else (None, [])
    last = inside[-1]
    earlier = [m for i, n, m in layers if i <= last and (i in inside or _on_path(n, modules))]
    if not earlier:
        return None, []
    channels = _outputs(earlier[-1])
    later = [(n, m) for i, n, m in layers if i > last and _on_path(n, modules)]
    windowed = isinstance(earlier[-1], _WINDOWED) and channel_dim == 1
    last_windowed = max(
        (i for i, (_, m) in enumerate(later) if isinstance(m, _WINDOWED)), default=-1
    )
    later = [
        (n, m)
        for i, (n, m) in enumerate(later)
        if isinstance(m, _WINDOWED) == windowed
        or isinstance(m, _UNREAD)
        or (i <= last_windowed and _inputs(m) == channels)
    ]
    return channels, later


def next_layer(
    candidates: list[tuple[str, nn.Module]], channels: int | None
) -> tuple[str | None, nn.Module | None]:
    """Return name and layer of the first that can take so many channels, else None twice."""
    for name, layer in candidates:
        if any(is_lazy(parameter) for parameter in layer.parameters()):
            raise ValueError(f"{name!r} is lazy: run the network once before an insertion")
        if weight_of(layer) is None:  # several weights in place of one
            return None, None
        try:
            check_takes(layer, channels or 0)
        except (ValueError, ZeroDivisionError):
            continue
        return name, layer
    return None, None


def _on_path(name: str, modules: dict[str, nn.Module]) -> bool:
    return not on_shortcut(name, modules) and not in_gate(name, modules)


def _inputs(layer: Any) -> int:
    names = ("in_channels", "in_features", "in1_features", "input_size", "embed_dim")
    return int(_first_of(layer, *names))


def _outputs(layer: Any) -> int:
    if isinstance(layer, nn.RNNBase):
        return (layer.proj_size or layer.hidden_size) * (2 if layer.bidirectional else 1)
    return int(_first_of(layer, "out_channels", "out_features", "hidden_size", "embed_dim"))


def _first_of(layer: Any, *names: str) -> Any:
    return next(getattr(layer, name) for name in names if hasattr(layer, name))
