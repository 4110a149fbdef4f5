"""A small network that ends in global average pooling, so that its classifier can be mapped."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from lastlayer.models.base import BACKBONES, Backbone, check_image_shape


@BACKBONES.register(
    "gap-cnn", description="four convolutions and global average pooling: for class maps"
)
class GapCNN(Backbone):
    """Four 3x3 convolutions with batch normalisation, then the mean over the last map.

    Every convolution keeps the size, has no bias (the normalisation that follows has one) and ends
    in ReLU; 2x2 max pooling follows the second. The last map, of half the image's height and
    width, is the output of the module ``layers.relu4``. Images of other heights and widths may be
    given: the mean takes any. torch's default initialisation. On 32x32x1 with a linear layer to 10
    classes: 49,586 parameters.

    Args:
        input_shape: ``(channels, height, width)``, at least 2 x 2.
        channels: channels of the four convolutions; ``out_features`` is the last.

    Raises:
        ValueError: if there are not four sizes of at least 1, or the shape is not an image's.

    Example:
        >>> import torch
        >>> GapCNN((1, 32, 32))(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 64])

    Source: the ending is that of Zhou, Khosla, Lapedriza, Oliva, Torralba, "Learning deep features
    for discriminative localization", CVPR 2016.
    """

    def __init__(
        self, input_shape: Sequence[int], *, channels: Sequence[int] = (24, 32, 48, 64)
    ) -> None:
        input_channels, _, _ = check_image_shape("gap-cnn", input_shape, minimum=2)
        if len(channels) != 4 or min(channels) < 1:
            raise ValueError(f"channels must be four sizes of at least 1; got {tuple(channels)}")
        layers: dict[str, nn.Module] = {}
        for number, (before, after) in enumerate(
            itertools.pairwise((input_channels, *channels)), start=1
        ):
            layers[f"conv{number}"] = nn.Conv2d(before, after, 3, padding=1, bias=False)
            layers[f"bn{number}"] = nn.BatchNorm2d(after)
            if number == 2:  # ReLU after pooling: the same values, a quarter of the work.
                layers["pool"] = nn.MaxPool2d(2)
            layers[f"relu{number}"] = nn.ReLU()
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        super().__init__(input_shape, out_features=channels[-1], layers=layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features of images of any height and width of at least 2.

        Args:
            inputs: ``(N, channels, height, width)``.

        Returns:
            Features ``(N, out_features)``.

        Raises:
            ValueError: if the inputs have another number of channels, or are smaller.
        """
        channels = self.input_shape[0]
        if inputs.dim() != 4 or inputs.shape[1] != channels or min(inputs.shape[2:]) < 2:
            raise ValueError(
                f"inputs must have shape (N, {channels}, at least 2, at least 2); "
                f"got {tuple(inputs.shape)}"
            )
        return self.layers(inputs)  # type: ignore[no-any-return]
