"""The thin residual networks for CIFAR, plain and pre-activation, in any depth 6n + 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from lastlayer._checks import check_choice, check_count
from lastlayer.models.base import BACKBONES, Backbone, check_image_shape

STAGES = 3
DEPTHS = (20, 32, 56)


class PreactBlock(nn.Module):
    r"""Pre-activation residual block with two 3x3 convolutions.

    .. math::

        a = \mathrm{relu}(\mathrm{bn}_1(x)), \qquad
        y = \mathrm{conv}_2(\mathrm{relu}(\mathrm{bn}_2(\mathrm{conv}_1(a)))) + s

    with :math:`s = x`, or :math:`s = W a` (a 1x1 convolution without batch normalization) where
    size or channels change.

    Source: He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", ECCV 2016, fig. 1b.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.relu1 = nn.ReLU()
        self.conv1 = _conv3x3(channels_in, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = _conv3x3(channels, channels, 1)
        self.projects = stride != 1 or channels_in != channels
        self.shortcut: nn.Module = nn.Identity()
        if self.projects:
            self.shortcut = nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(N, channels_in, H, W)`` to ``(N, channels, ceil(H/stride), ceil(W/stride))``."""
        activated = self.relu1(self.bn1(inputs))
        # The projection shares the activation with the branch; the identity passes the sum on.
        shortcut: Tensor = self.shortcut(activated if self.projects else inputs)
        residual: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        return residual + shortcut


class BasicBlock(nn.Module):
    r"""Residual block with two 3x3 convolutions, activated after the sum.

    .. math::

        y = \mathrm{relu}(\mathrm{bn}_2(\mathrm{conv}_2(\mathrm{relu}(\mathrm{bn}_1(
            \mathrm{conv}_1(x)))))) + s(x))

    with the parameter-free shortcut :math:`s` of :class:`ZeroPadShortcut` ("option A").

    Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016,
    section 4.2.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels_in, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv3x3(channels, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = ZeroPadShortcut(channels - channels_in, stride)
        self.relu2 = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(N, channels_in, H, W)`` to ``(N, channels, ceil(H/stride), ceil(W/stride))``."""
        residual: Tensor = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(inputs)))))
        total: Tensor = self.relu2(residual + self.shortcut(inputs))
        return total


class ZeroPadShortcut(nn.Module):
    """Every ``stride``-th pixel, and ``extra`` channels of zeros after the others."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C + extra, ceil(H/stride), ceil(W/stride))``."""
        taken = inputs[:, :, :: self.stride, :: self.stride]
        return F.pad(taken, (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        """Name the arguments."""
        return f"extra={self.extra}, stride={self.stride}"


BLOCKS: dict[str, type[nn.Module]] = {"basic": BasicBlock, "preact": PreactBlock}


class CifarResNet(Backbone):
    r"""Residual network of three stages of n blocks, depth :math:`6 n + 2`, for small images.

    A 3x3 convolution to ``width`` channels; the stages ``layer1``, ``layer2`` and ``layer3`` with
    ``width``, twice and four times as many channels, the later two halving the image in their first
    block; average over the pixels. Pre-activation networks end in batch normalization and ReLU.
    Blocks are numbered from 0, so that ``layer3.*.conv1`` names the first convolutions of the last
    stage. Convolutions have no bias and are drawn from He's normal,
    :math:`\mathcal N(0, 2 / n_\text{out})`; the classifier is left as torch draws it.

    With width 16 on three channels and a linear layer to 10 classes: 269,722, 464,154 and 853,018
    parameters for depths 20, 32 and 56; pre-activation 272,282, 466,714 and 855,578.

    Args:
        input_shape: ``(channels, height, width)``, at least 8 x 8.
        depth: number of layers, 6n + 2 with n >= 1.
        block: ``"basic"`` (activated after the sum, shortcuts without parameters) or ``"preact"``
            (1x1 convolutions as shortcuts where the shape changes).
        width: channels of the first stage, at least 1; ``out_features`` is four times as many.

    Raises:
        ValueError: if an argument is out of range or the shape is not an image's or too small.

    Example:
        >>> import torch
        >>> CifarResNet((3, 32, 32), depth=8, block="preact")(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 64])

    Source: He, Zhang, Ren, Sun, CVPR 2016, section 4.2; the same, ECCV 2016; for the weights the
    same, "Delving deep into rectifiers", ICCV 2015, section 2.2, backward form.
    """

    def __init__(
        self, input_shape: Sequence[int], *, depth: int, block: str = "basic", width: int = 16
    ) -> None:
        channels, _, _ = check_image_shape("a CIFAR ResNet", input_shape, minimum=8)
        check_choice("block", block, BLOCKS)
        check_count("width", width)
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth must be 6n + 2 with n at least 1; got {depth!r}")
        layers: dict[str, nn.Module] = {"conv1": _conv3x3(channels, width, 1)}
        if block == "basic":
            layers |= {"bn1": nn.BatchNorm2d(width), "relu": nn.ReLU()}
        for stage in range(STAGES):
            layers[f"layer{stage + 1}"] = _stage(BLOCKS[block], depth // 6, width, stage)
        out_features = width * 2 ** (STAGES - 1)
        if block == "preact":
            layers |= {"bn": nn.BatchNorm2d(out_features), "relu": nn.ReLU()}
        layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
        super().__init__(input_shape, out_features=out_features, layers=layers, nested=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stage(block: type[nn.Module], blocks: int, width: int, stage: int) -> nn.Module:
    channels = width * 2**stage
    channels_in, stride = (channels // 2, 2) if stage > 0 else (channels, 1)
    first = block(channels_in, channels, stride)
    return nn.Sequential(first, *(block(channels, channels, 1) for _ in range(blocks - 1)))


def _conv3x3(channels_in: int, channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)


def _of_depth(depth: int, block: str) -> Callable[..., CifarResNet]:
    def builder(input_shape: Sequence[int], *, width: int = 16) -> CifarResNet:
        return CifarResNet(input_shape, depth=depth, block=block, width=width)

    return builder


for _block, _prefix, _words in (
    ("basic", "", "residual network of {} layers for CIFAR, shortcuts without parameters"),
    ("preact", "preact-", "pre-activation residual network of {} layers for CIFAR"),
):
    for _depth in DEPTHS:
        BACKBONES.add(
            f"{_prefix}resnet{_depth}",
            _of_depth(_depth, _block),
            description=_words.format(_depth),
        )
