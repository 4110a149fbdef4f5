"""Which dimension of a layer's features holds its channels, as far as the layer says it."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_FIRST = (
    nn.GroupNorm,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.Upsample,
    nn.modules.batchnorm._NormBase,
    nn.modules.conv._ConvNd,
)
_LAST = (
    nn.Bilinear,
    nn.Embedding,
    nn.LayerNorm,
    nn.Linear,
    nn.MultiheadAttention,
    nn.RMSNorm,
    nn.RNNBase,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoderLayer,
)
#: By convention of torch, torchvision and timm a name such as LayerNorm2d means channels first;
#: so are called torch's pooling, padding and dropout of maps.
_NAMED_FIRST = re.compile(r"[123]d$")


def own_channel_dim(module: nn.Module) -> int | None:
    """Return 1 or -1 where a module's class says where its channels are, else None."""
    by_format = {"channels_first": 1, "channels_last": -1}
    if getattr(module, "data_format", None) in by_format:
        return by_format[module.data_format]  # type: ignore[index]
    if isinstance(module, _FIRST) or _NAMED_FIRST.search(type(module).__name__):
        return 1
    shape: Any = getattr(module, "normalized_shape", (0,))
    return -1 if isinstance(module, _LAST) and len(shape) == 1 else None


def passes_on(module: nn.Module) -> bool:
    """Return whether a module without layers keeps the dimensions as they are."""
    if isinstance(module, nn.Identity | nn.modules.dropout._DropoutNd):
        return True
    activation = type(module).__module__ == "torch.nn.modules.activation"
    return activation and not isinstance(module, nn.MultiheadAttention)


class Channels(NamedTuple):
    """The dimension of an output's channels, 1 or the last one as -1, and the output's shape."""

    dim: int
    shape: torch.Size


def output_channel_dim(
    module: nn.Module, output: Tensor, before: Channels | None = None
) -> int | None:
    """Return the dimension of a layer's output that holds its features; None where it is unclear.

    Of torch's own layers it is known, of activations and dropout it is that of the layer
    ``before``. Of any other module, a subclass of torch's with a forward of its own among them, it
    is 1 or the last one, if just one of these is as large as its weight has rows or columns, or,
    without a weight, as the features of the layer that ran before.
    """
    if output.dim() <= 2:
        return 1
    if passes_on(module) and before is not None and output.shape == before.shape:
        return before.dim
    own = own_channel_dim(module)
    if own is not None and type(module).forward.__module__.startswith("torch.nn."):
        return own
    sizes = set() if before is None else {before.shape[before.dim]}
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor):
        sizes = set(weight.shape[:2])
    fitting = [dim for dim in (1, -1) if output.shape[dim] in sizes]
    return fitting[0] if len(fitting) == 1 else None
