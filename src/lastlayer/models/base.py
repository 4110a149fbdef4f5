"""What every backbone shares: fixed input shape, known number of features, a style for the head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lastlayer._checks import check_options
from lastlayer.registry import Registry


class Backbone(nn.Module):
    """A network without its last layer: inputs ``(N, *input_shape)`` to features ``(N, D)``.

    Args:
        input_shape: shape of one example, ``(channels, height, width)`` or ``(features,)``.
        out_features: number of features D that the layers end in.
        layers: the layers by name, applied in order.
        nested: whether the layers are children of ``layers``, so that names begin with
            ``layers.``; False makes them the backbone's own children, so that a published network
            keeps the module names of its authors.

    Example:
        >>> layers = {"flatten": nn.Flatten(), "fc": nn.Linear(12, 5)}
        >>> backbone = Backbone((3, 2, 2), out_features=5, layers=layers)
        >>> backbone(torch.zeros(7, 3, 2, 2)).shape
        torch.Size([7, 5])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        out_features: int,
        layers: Mapping[str, nn.Module],
        nested: bool = True,
    ) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.out_features = out_features
        if nested:
            self.layers = nn.Sequential(OrderedDict(layers))
            return
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features of ``inputs``.

        Args:
            inputs: ``(N, *input_shape)``.

        Returns:
            Features ``(N, out_features)``.

        Raises:
            ValueError: if the inputs have another shape.
        """
        if inputs.shape[1:] != self.input_shape:
            expected = ", ".join(["N", *map(str, self.input_shape)])
            raise ValueError(f"inputs must have shape ({expected}); got {tuple(inputs.shape)}")
        features = inputs
        for layer in self.children():
            features = layer(features)
        return features

    def init_classifier_(self, linear: nn.Linear) -> None:
        """Initialize the classifier on top in this network's own style (here: leave it be).

        Args:
            linear: the layer from ``out_features`` to the classes, changed in place.
        """

    def extra_repr(self) -> str:
        """Name the shapes."""
        return f"input_shape={self.input_shape}, out_features={self.out_features}"


BACKBONES: Registry[Callable[..., nn.Module]] = Registry(
    kind="backbone", group="lastlayer.backbones"
)


def build(
    name: str, input_shape: Sequence[int], *, options: Mapping[str, object] | None = None
) -> nn.Module:
    """Build the backbone called ``name`` for inputs of ``input_shape``.

    The initial weights follow torch's global seed (``torch.manual_seed``), as in ``torch.nn``.

    Args:
        name: a name in ``BACKBONES``.
        input_shape: shape of one example, ``(channels, height, width)`` or ``(features,)``.
        options: keyword arguments of that backbone.

    Returns:
        A module with the attribute ``out_features``; a `Backbone` if it is one of ours.

    Raises:
        ValueError: if the name or an option is unknown, or the backbone cannot take the shape.

    Example:
        >>> build("mlp", (20,), options={"hidden": (8,)}).out_features
        8
    """
    builder = BACKBONES.get(name)
    chosen = dict(options or {})
    check_options(f"backbone {name!r}", builder, chosen)
    return builder(input_shape, **chosen)


def check_image_shape(
    name: str, input_shape: Sequence[int], *, minimum: int
) -> tuple[int, int, int]:
    """Return ``(channels, height, width)``, or raise unless both sides are at least ``minimum``."""
    if len(input_shape) != 3:
        raise ValueError(
            f"{name} takes images, input_shape (channels, height, width); got {tuple(input_shape)}"
        )
    channels, height, width = input_shape
    if channels < 1:
        raise ValueError(f"{name} needs at least 1 channel; got input_shape {tuple(input_shape)}")
    if min(height, width) < minimum:
        raise ValueError(
            f"{name} needs images of at least {minimum} x {minimum} pixels; got {height} x {width}"
        )
    return channels, height, width


def check_dropout(dropout: float) -> None:
    """Raise ``ValueError`` unless ``dropout`` is a probability below 1."""
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must lie in [0, 1); got {dropout!r}")


@torch.no_grad()
def init_weights_(module: nn.Module, weight: Callable[[Tensor], object], *, bias: float) -> None:
    """Apply ``weight`` to the weights and set the biases of every linear and convolution in it."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            weight(layer.weight)
            if layer.bias is not None:
                layer.bias.fill_(bias)
