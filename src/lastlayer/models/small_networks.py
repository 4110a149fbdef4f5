"""The papers' small networks: five of few convolutions, and fully connected layers."""

from __future__ import annotations

import itertools
import math
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
        """Initialize the classifier as the other layers: Glorot uniform, biases 0.

        Args:
            linear: the layer from the features to the classes, changed in place.
        """
        init_weights_(linear, nn.init.xavier_uniform_, bias=0.0)


def _size_before_fc(size: int) -> int:
    for _ in range(2):
        size = (size - 4) // 2
    return size


@BACKBONES.register("digits-cnn", description="one small convolution and FC 64, for 8x8 digits")
class DigitsCNN(Backbone):
    """A 3x3 convolution to 32 channels with stride 2, then a fully connected layer of 64.

    On digits a second convolution or pooling gains nothing and doubles the time of a step.
    On 8x8x1 with a linear layer to 10 classes: 33,802 parameters. torch's default initialization.

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


@BACKBONES.register(
    "gap-cnn", description="four convolutions and global average pooling: for class maps"
)
class GapCNN(Backbone):
    """Four 3x3 convolutions with batch normalization, then the mean over the last map.

    Every convolution keeps the size, has no bias (the normalization that follows has one) and ends
    in ReLU; 2x2 max pooling follows the second. The last map, of half the image's height and
    width, is the output of the module ``layers.relu4``. Images of other heights and widths may be
    given: the mean takes any. torch's default initialization. On 32x32x1 with a linear layer to 10
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


#: Least side for which every pooling of three has a window.
_MINIMUM = 15


@BACKBONES.register(
    "fc-cnn", description="three convolutions, FC 2048 twice: the FC network of the Disout paper"
)
class FCCNN(Backbone):
    """A conventional network whose parameters lie in its fully connected layers.

    Three times a 5x5 convolution that keeps the size, ReLU and 3x3 max pooling with stride 2; then
    fully connected layers with ReLU. The ReLUs behind the fully connected layers are called
    ``fc_relu1``, ``fc_relu2``, ...; a regularizer belongs behind each. torch's default
    initialization. On 32x32x3 with a linear layer to 10 classes: 10,071,562 parameters.

    Args:
        input_shape: ``(channels, height, width)``, at least 15 x 15.
        channels: channels of the three convolutions.
        hidden: sizes of the fully connected layers, at least one; ``out_features`` is the last.
            Channels (16, 24, 32) and hidden (256, 256) need 1/28 of the multiplications.
        batch_norm: whether each convolution is followed by batch normalization, as in a
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
        """Initialize the classifier as the other layers.

        Args:
            linear: the layer from the features to the classes, changed in place.
        """
        if self.init == "tutorial":
            init_weights_(linear, _truncated_normal_, bias=BIAS)


def _truncated_normal_(weight: Tensor) -> None:
    """TensorFlow 1's ``truncated_normal``: what falls beyond two standard deviations is redrawn."""
    bound = 2 * STANDARD_DEVIATION
    nn.init.trunc_normal_(weight, std=STANDARD_DEVIATION, a=-bound, b=bound)


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
