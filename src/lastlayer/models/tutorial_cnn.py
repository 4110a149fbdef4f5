"""The convolutional network of the old TensorFlow tutorial, DropMax's network for MNIST."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lastlayer._checks import check_choice
from lastlayer.models.base import (
    BACKBONES,
    Backbone,
    check_dropout,
    check_image_shape,
    init_weights_,
)

STANDARD_DEVIATION = 0.1
BIAS = 0.1


@BACKBONES.register(
    "tutorial-cnn",
    description="conv 32, conv 64, FC 1024, dropout: the DropMax paper's MNIST network",
)
class TutorialCNN(Backbone):
    r"""The network of "Deep MNIST for experts".

    5x5 convolution to 32 channels, ReLU, 2x2 max pooling; the same to 64 channels; a fully
    connected layer of 1024 with ReLU; dropout. Convolutions and pooling pad as TensorFlow's
    ``SAME``: a convolution keeps the size, pooling gives :math:`\lceil n / 2 \rceil`.
    On 28x28x1 with a linear layer to 10 classes: 3,274,634 parameters.

    Args:
        input_shape: ``(channels, height, width)``.
        dropout: probability of dropping a feature, in [0, 1); the tutorial's is 0.5.
        init: ``"tutorial"`` (weights from a normal of standard deviation 0.1 truncated at two
            standard deviations, biases 0.1) or ``"torch"`` (torch's defaults).

    Raises:
        ValueError: if an argument is out of range or the shape is not an image's.

    Example:
        >>> import torch
        >>> TutorialCNN((1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 1024])

    Source: Lee, Lee, Kim, Yang, Hwang, "DropMax", ICLR 2018 submission, section 4, which names
    the tutorial of TensorFlow 1.
    """

    def __init__(
        self, input_shape: Sequence[int], *, dropout: float = 0.5, init: str = "tutorial"
    ) -> None:
        channels, height, width = check_image_shape("tutorial-cnn", input_shape, minimum=1)
        check_dropout(dropout)
        check_choice("init", init, ("tutorial", "torch"))
        # Pooling twice with rounding up is one division by 4 rounded up.
        flat = 64 * -(-height // 4) * -(-width // 4)
        layers: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(channels, 32, kernel_size=5, padding=2),
            # ReLU after pooling: the same values, a quarter of the work.
            "pool1": nn.MaxPool2d(2, ceil_mode=True),
            "relu1": nn.ReLU(),
            "conv2": nn.Conv2d(32, 64, kernel_size=5, padding=2),
            "pool2": nn.MaxPool2d(2, ceil_mode=True),
            "relu2": nn.ReLU(),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(flat, 1024),
            "relu3": nn.ReLU(),
            "dropout": nn.Dropout(dropout),
        }
        super().__init__(input_shape, out_features=1024, layers=layers)
        self.init = init
        if init == "tutorial":
            init_weights_(self.layers, _truncated_normal_, bias=BIAS)

    def init_classifier_(self, linear: nn.Linear) -> None:
        """Initialise the classifier as the other layers.

        Args:
            linear: the layer from the features to the classes, changed in place.
        """
        if self.init == "tutorial":
            init_weights_(linear, _truncated_normal_, bias=BIAS)


def _truncated_normal_(weight: Tensor) -> None:
    """TensorFlow 1's ``truncated_normal``: what falls beyond two standard deviations is redrawn."""
    bound = 2 * STANDARD_DEVIATION
    nn.init.trunc_normal_(weight, std=STANDARD_DEVIATION, a=-bound, b=bound)
