"""Three convolutions and two wide fully connected layers, where regularisers have most to do."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

from lastlayer.models.base import BACKBONES, Backbone, check_image_shape

#: Least side for which every pooling of three has a window.
_MINIMUM = 15


@BACKBONES.register(
    "fc-cnn", description="three convolutions, FC 2048 twice: the FC network of the Disout paper"
)
class FCCNN(Backbone):
    """A conventional network whose parameters lie in its fully connected layers.

    Three times a 5x5 convolution that keeps the size, ReLU and 3x3 max pooling with stride 2; then
    fully connected layers with ReLU. The ReLUs behind the fully connected layers are called
    ``fc_relu1``, ``fc_relu2``, ...; a regulariser belongs behind each. torch's default
    initialisation. On 32x32x3 with a linear layer to 10 classes: 10,071,562 parameters.

    Args:
        input_shape: ``(channels, height, width)``, at least 15 x 15.
        channels: channels of the three convolutions.
        hidden: sizes of the fully connected layers, at least one; ``out_features`` is the last.
            Channels (16, 24, 32) and hidden (256, 256) need 1/28 of the multiplications.
        batch_norm: whether each convolution is followed by batch normalisation, as in a
            third-party rerun of the experiment.

    Raises:
        ValueError: if a size is below 1, there are not three convolutions, or the shape is not an
            image's or too small.

    Example:
        >>> import torch
        >>> network = FCCNN((3, 32, 32), channels=(8, 8, 16), hidden=(64, 32))
        >>> network(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 32])

    Source: Tang, Wang, Xu, Shi, Xu, Xu, Xu, "Beyond dropout: feature map distortion to regularize
    deep neural networks", AAAI 2020, table 1.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        channels: Sequence[int] = (96, 128, 256),
        hidden: Sequence[int] = (2048, 2048),
        batch_norm: bool = False,
    ) -> None:
        input_channels, height, width = check_image_shape("fc-cnn", input_shape, minimum=_MINIMUM)
        if len(channels) != 3 or min(channels) < 1:
            raise ValueError(f"channels must be three sizes of at least 1; got {tuple(channels)}")
        if not hidden or min(hidden) < 1:
            raise ValueError(
                f"hidden must name at least one layer, each of at least 1; got {tuple(hidden)}"
            )
        layers: dict[str, nn.Module] = {}
        for number, (before, after) in enumerate(
            itertools.pairwise((input_channels, *channels)), start=1
        ):
            layers[f"conv{number}"] = nn.Conv2d(before, after, kernel_size=5, padding=2)
            if batch_norm:
                layers[f"bn{number}"] = nn.BatchNorm2d(after)
            # ReLU after pooling: the same values, a quarter of the work.
            layers[f"pool{number}"] = nn.MaxPool2d(3, stride=2)
            layers[f"relu{number}"] = nn.ReLU()
            height, width = (height - 1) // 2, (width - 1) // 2
        layers["flatten"] = nn.Flatten()
        sizes = (channels[-1] * height * width, *hidden)
        for number, (before, after) in enumerate(itertools.pairwise(sizes), start=1):
            layers[f"fc{number}"] = nn.Linear(before, after)
            layers[f"fc_relu{number}"] = nn.ReLU()
        super().__init__(input_shape, out_features=sizes[-1], layers=layers)
