"""A multi-layer perceptron for vectors, or for images taken as vectors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import nn

from lastlayer.models.base import BACKBONES, Backbone, check_dropout


@BACKBONES.register("mlp", description="fully connected layers on vectors or flattened images")
class MLP(Backbone):
    r"""Fully connected layers, :math:`h \leftarrow \mathrm{dropout}(\mathrm{ReLU}(W h + b))`.

    Args:
        input_shape: shape of one example; everything is flattened.
        hidden: sizes of the layers, at least one; for TF-IDF vectors ``(256,)`` does.
        dropout: probability of dropping an activation after each layer, in [0, 1).

    Raises:
        ValueError: if a size is below 1 or dropout is out of range.

    Example:
        >>> import torch
        >>> MLP((1, 8, 8), hidden=(32, 16), dropout=0.1)(torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        hidden: Sequence[int] = (256, 256),
        dropout: float = 0.0,
    ) -> None:
        if not input_shape or min(input_shape) < 1:
            raise ValueError(f"mlp needs sizes of at least 1; got input_shape {tuple(input_shape)}")
        if not hidden or min(hidden) < 1:
            raise ValueError(
                f"hidden must name at least one layer, each of at least 1; got {tuple(hidden)}"
            )
        check_dropout(dropout)
        sizes = [math.prod(input_shape), *hidden]
        layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
        for number, (before, after) in enumerate(itertools.pairwise(sizes), start=1):
            layers[f"fc{number}"] = nn.Linear(before, after)
            layers[f"relu{number}"] = nn.ReLU()
            if dropout > 0:
                layers[f"dropout{number}"] = nn.Dropout(dropout)
        super().__init__(input_shape, out_features=sizes[-1], layers=layers)
