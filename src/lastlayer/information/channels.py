"""Which dimension of a layer's output holds its features, as far as the layer says it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

_KINDS = (
    *("Conv", "ConvTranspose", "BatchNorm", "InstanceNorm"),
    *("MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool"),
)
_BY_DIMS = (getattr(nn, f"{kind}{dims}d") for kind in _KINDS for dims in (1, 2, 3))
_FIRST = (*_BY_DIMS, nn.GroupNorm, nn.SyncBatchNorm)
# Of torch.nn, what works number by number.
_POINTWISE = ("torch.nn.modules.activation", "torch.nn.modules.dropout")
_LAST = (nn.Linear, nn.Bilinear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.MultiheadAttention)


class Place(NamedTuple):
    """Where the features of an output are.

    Attributes:
        dim: the dimension, 1 or the last one as -1.
        shape: of the output.
    """

    dim: int
    shape: torch.Size


def channel_dim(module: nn.Module, output: Tensor, before: Place | None = None) -> int | None:
    """Return the dimension of a layer's output that holds its features; None where it is unclear.

    Of torch's own layers it is known: 1 for convolutions, their norms and pooling; the last one for
    linear layers, embeddings and layer norms; that of the layer before for activations and dropout.
    Of any other module it is 1 or the last one, if just one of these is as large as its weight has
    rows or columns, or, without a weight, as the features of the layer that ran before.

    Args:
        module: the layer.
        output: (N, ...) what it returned.
        before: the place of the features in the output of the layer that ran last, if known.

    Example:
        >>> tokens = torch.zeros(2, 17, 192)
        >>> channel_dim(nn.Linear(192, 192), tokens), channel_dim(nn.GELU(), tokens)
        (-1, None)
    """
    if output.dim() <= 2:
        return 1
    for kinds, dim in ((_FIRST, 1), (_LAST, -1)):
        # Subclasses with a forward of their own may turn the dimensions around.
        if any(isinstance(module, k) and type(module).forward is k.forward for k in kinds):
            return dim
    pointwise = type(module).__module__ in _POINTWISE or isinstance(module, nn.Identity)
    if pointwise and before is not None and output.shape == before.shape:
        return before.dim
    sizes = set() if before is None else {before.shape[before.dim]}
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor):
        sizes = set(weight.shape[:2])
    fitting = [dim for dim in (1, -1) if output.shape[dim] in sizes]
    return fitting[0] if len(fitting) == 1 else None


def pool_features(output: Tensor, dim: int) -> Tensor:
    """Return (N, D) features of an output: the mean over all other dimensions.

    Args:
        output: (N, ...), with the features in ``dim``; (N, D) stays as it is.
        dim: which dimension they are, not 0.

    Raises:
        ValueError: if the output has no such dimension.

    Example:
        >>> pool_features(torch.ones(2, 4, 4, 3), -1).shape
        torch.Size([2, 3])
    """
    if output.dim() <= 2:
        return output
    if not -output.dim() < dim < output.dim() or dim == 0:
        raise ValueError(
            f"channel_dim must be a dimension of features of shape {tuple(output.shape)} other "
            f"than the first; got {dim}"
        )
    return output.movedim(dim, 1).flatten(2).double().mean(2)
