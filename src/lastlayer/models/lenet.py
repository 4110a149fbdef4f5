"""LeNet in Caffe's proportions, the network of DropMax's released code."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lastlayer.models.base import BACKBONES, Backbone, check_image_shape, init_weights_


@BACKBONES.register(
    "lenet", description="conv 20, conv 50, FC 500: the network of DropMax's released code"
)
class LeNet(Backbone):
    r"""LeNet as in Caffe's MNIST example.

    5x5 convolution without padding to 20 channels, ReLU, 2x2 max pooling; the same to 50
    channels; a fully connected layer of 500 with ReLU. No dropout. Weights are drawn from
    Glorot's uniform :math:`U(-b, b)`, :math:`b = \sqrt{6 / (n_\text{in} + n_\text{out})}`,
    biases are 0. On 28x28x1 with a linear layer to 10 classes: 431,080 parameters.

    Args:
        input_shape: ``(channels, height, width)``, at least 16 x 16.

    Raises:
        ValueError: if the shape is not an image's or too small.

    Example:
        >>> import torch
        >>> LeNet((1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 500])

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document
    recognition", Proc. IEEE 86(11), 1998; Glorot, Bengio, AISTATS 2010, eq. 16.
    """

    def __init__(self, input_shape: Sequence[int]) -> None:
        channels, height, width = check_image_shape("lenet", input_shape, minimum=16)
        flat = 50 * _size_before_fc(height) * _size_before_fc(width)
        layers: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(channels, 20, kernel_size=5),
            # ReLU after pooling: the same values, a quarter of the work.
            "pool1": nn.MaxPool2d(2),
            "relu1": nn.ReLU(),
            "conv2": nn.Conv2d(20, 50, kernel_size=5),
            "pool2": nn.MaxPool2d(2),
            "relu2": nn.ReLU(),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(flat, 500),
            "relu3": nn.ReLU(),
        }
        super().__init__(input_shape, out_features=500, layers=layers)
        init_weights_(self.layers, nn.init.xavier_uniform_, bias=0.0)

    def init_classifier_(self, linear: nn.Linear) -> None:
        """Initialise the classifier as the other layers: Glorot uniform, biases 0.

        Args:
            linear: the layer from the features to the classes, changed in place.
        """
        init_weights_(linear, nn.init.xavier_uniform_, bias=0.0)


def _size_before_fc(size: int) -> int:
    for _ in range(2):
        size = (size - 4) // 2
    return size
