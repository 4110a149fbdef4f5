"""A small convolutional network for scikit-learn's 8x8 digits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lastlayer.models.base import BACKBONES, Backbone, check_dropout, check_image_shape


@BACKBONES.register("digits-cnn", description="one small convolution and FC 64, for 8x8 digits")
class DigitsCNN(Backbone):
    """A 3x3 convolution to 32 channels with stride 2, then a fully connected layer of 64.

    On digits a second convolution or pooling gains nothing and doubles the time of a step.
    On 8x8x1 with a linear layer to 10 classes: 33,802 parameters. torch's default initialisation.

    Args:
        input_shape: ``(channels, height, width)``.
        dropout: probability of dropping a feature, in [0, 1).

    Raises:
        ValueError: if dropout is out of range or the shape is not an image's.

    Example:
        >>> import torch
        >>> DigitsCNN((1, 8, 8))(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 64])
    """

    def __init__(self, input_shape: Sequence[int], *, dropout: float = 0.0) -> None:
        channels, height, width = check_image_shape("digits-cnn", input_shape, minimum=1)
        check_dropout(dropout)
        layers: dict[str, nn.Module] = {
            "conv": nn.Conv2d(channels, 32, kernel_size=3, stride=2, padding=1),
            "relu1": nn.ReLU(),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(32 * -(-height // 2) * -(-width // 2), 64),
            "relu2": nn.ReLU(),
            "dropout": nn.Dropout(dropout),
        }
        super().__init__(input_shape, out_features=64, layers=layers)
