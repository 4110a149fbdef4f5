"""torchvision's residual networks as backbones; torchvision itself is optional."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from lastlayer.models.base import BACKBONES, Backbone, check_image_shape


class TorchvisionResNet(Backbone):
    r"""A residual network of torchvision without its last linear layer.

    Version 1.5 of the network (a bottleneck's stride is in its 3x3 convolution), convolutions drawn
    from He's normal :math:`\mathcal N(0, 2 / n_\text{out})`, and the last batch normalization of
    each block begun at 0, so that every block begins as its shortcut. Modules keep torchvision's
    names (``layer3.0.conv2``), and weights those of torchvision's files but for ``fc``. Every block
    has a ``downsample``, the identity where the shape stays, so that a shortcut can be named too.

    The ReLUs of one block are one module; what belongs behind the first of them belongs before
    ``conv2``. With a linear layer to 1000 classes on three channels: 11,689,512 parameters
    (``resnet18``) and 25,557,032 (``resnet50``).

    Args:
        input_shape: ``(channels, height, width)``; the network divides the sides by 32.
        name: ``"resnet18"``, ``"resnet50"`` or another residual network of torchvision; or
            ``"resnet10"``, one basic block per stage, which torchvision has no name for.

    Raises:
        ImportError: if torchvision is missing or does not fit the installed torch.
        ValueError: if the shape is not an image's.

    Source: He, Zhang, Ren, Sun, CVPR 2016; Goyal et al., arXiv:1706.02677, section 5.1, for the
    batch normalization that begins at 0.
    """

    def __init__(self, input_shape: Sequence[int], *, name: str) -> None:
        channels, _, _ = check_image_shape(name, input_shape, minimum=1)
        models = _models(name)
        if name == "resnet10":
            blocks = (models.resnet.BasicBlock, [1, 1, 1, 1])
            network = models.ResNet(*blocks, zero_init_residual=True)
        else:
            network = getattr(models, name)(weights=None, zero_init_residual=True)
        layers = dict(network.named_children())
        out_features = layers.pop("fc").in_features
        if channels != 3:
            conv = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            layers["conv1"] = conv
        layers["flatten"] = nn.Flatten()
        super().__init__(input_shape, out_features=out_features, layers=layers, nested=False)
        for module in self.modules():
            if getattr(module, "downsample", self) is None:
                module.downsample = nn.Identity()


def _models(name: str) -> Any:
    try:
        from torchvision import models
    except ImportError as error:
        raise ImportError(
            f"backbone {name!r} needs torchvision: pip install lastlayer[vision]"
        ) from error
    except RuntimeError as error:  # a build for another torch fails on its operators
        raise ImportError(
            f"backbone {name!r}: the installed torchvision does not fit the installed torch "
            f"({error}); install the two from one place"
        ) from error
    return models


def _named(name: str) -> Callable[..., TorchvisionResNet]:
    def builder(input_shape: Sequence[int]) -> TorchvisionResNet:
        return TorchvisionResNet(input_shape, name=name)

    return builder


for _name in ("resnet10", "resnet18", "resnet50", "resnet152"):
    BACKBONES.add(
        _name,
        _named(_name),
        description=f"torchvision's ResNet-{_name.removeprefix('resnet')} (needs torchvision)",
    )
