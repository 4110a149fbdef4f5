"""Class maps of a whole network from one forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lastlayer._checks import check_choice, check_count
from lastlayer.functional.class_maps import (
    METHODS,
    PADDINGS,
    REDUCTIONS,
    class_map,
    least_likely_class,
)
from lastlayer.heads.interface import full_precision
from lastlayer.information.readout import Readout, read_out


class ClassMapOutput(NamedTuple):
    """Maps of a batch.

    Attributes:
        maps: (N, h, w), or (N, T, h, w) for (N, T) targets: raw and signed.
        target: the classes the maps are of, as given, or (N,) the predicted ones.
        logits: (N, K) of the linear layer.
    """

    maps: Tensor
    target: Tensor
    logits: Tensor


class ClassMaps:
    r"""CAM, infoCAM or infoCAM+ of images, for a network that ends in average pooling.

    The network is passed through once per batch, in evaluation mode and without gradients. Its last
    feature map is found by watching that pass, and every time it is verified that

    .. math:: \tfrac{1}{Z} \textstyle\sum_{ab} f(a, b)\, W^\top + b

    are the logits that the network returns (for a :class:`lastlayer.Classifier`: that the mean of
    the map is what the head is given). Pooling may be a module or a line of code; the linear layer
    may be a 1x1 convolution before or after it. Of a head the weights are ``head.classifier``'s:
    the maps explain its linear logits, not what a DropMax head's retain probabilities add.

    Args:
        model: any network that ends in average pooling and one linear layer, or a
            :class:`lastlayer.Classifier` with a backbone that ends in average pooling.
        layer: dotted name of the module whose output is the last map; found if None.
        method: ``"cam"``, ``"infocam"`` or ``"infocam+"``.
        window: side in cells of a square window over which maps are reduced; None for single cells.
        padding: ``"same"`` or ``"valid"``, see
            :func:`lastlayer.functional.class_maps.window_reduce`.
        reduction: ``"mean"`` or ``"sum"`` over the window.

    Raises:
        ValueError: if a name or the window does not fit.

    Example:
        >>> import lastlayer
        >>> from lastlayer.models import GapCNN
        >>> model = lastlayer.Classifier(GapCNN((1, 32, 32)), lastlayer.heads.Softmax(64, 10))
        >>> out = ClassMaps(model, window=5)(torch.rand(2, 1, 32, 32))
        >>> out.maps.shape, out.logits.shape
        (torch.Size([2, 16, 16]), torch.Size([2, 10]))

    References:
        Zhou et al., "Learning deep features for discriminative localization", CVPR 2016 (CAM).
        Qin, Kim, Gedeon, "Informative class activation maps", arXiv:2106.10472 (infoCAM, infoCAM+).
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str | None = None,
        method: str = "infocam",
        window: int | None = None,
        *,
        padding: str = "same",
        reduction: str = "mean",
    ) -> None:
        check_choice("method", method, METHODS)
        check_choice("padding", padding, PADDINGS)
        check_choice("reduction", reduction, REDUCTIONS)
        if window is not None:
            check_count("window", window)
        self.model, self.layer, self.method = model, layer, method
        self.window, self.padding, self.reduction = window, padding, reduction

    def __call__(
        self, images: Tensor, target: Tensor | None = None, *, batch_size: int = 256
    ) -> ClassMapOutput:
        """Map where ``images`` show their classes.

        Args:
            images: (N, channels, height, width), N at least 1.
            target: (N,) int64 classes, or (N, T) for several maps of each image; None for the
                predicted ones.
            batch_size: images that pass together.

        Returns:
            The :class:`ClassMapOutput`.

        Raises:
            ValueError: if the network does not end in average pooling and one linear layer, a
                logit is not finite, or a shape or label does not fit.
            TypeError: if a dtype does not fit.
        """
        check_count("batch_size", batch_size)
        if len(images) == 0:
            raise ValueError("images must hold at least one example; got none")
        if target is not None and len(target) != len(images):
            raise ValueError(
                f"target must have one row per image, {len(images)}; got {tuple(target.shape)}"
            )
        parts = list(self._parts(images, target, batch_size))
        return ClassMapOutput(*(torch.cat(values) for values in zip(*parts, strict=True)))

    @torch.no_grad()
    def of(self, readout: Readout, target: Tensor | None = None) -> ClassMapOutput:
        """Map a batch that has been passed through already, see :class:`Readout`."""
        if target is None:
            target = readout.output.argmax(1)
        reference = least_likely_class(readout.logits) if self.method == "infocam+" else None
        with full_precision(readout.features):
            maps = class_map(
                readout.features,
                readout.weight,
                target,
                method=self.method,
                reference=reference,
                window=self.window,
                padding=self.padding,
                reduction=self.reduction,
            )
        return ClassMapOutput(maps, target, readout.logits)

    def _parts(
        self, images: Tensor, target: Tensor | None, batch_size: int
    ) -> Iterator[ClassMapOutput]:
        for start in range(0, len(images), int(batch_size)):
            rows = slice(start, start + batch_size)
            readout = read_out(self.model, images[rows], self.layer)
            yield self.of(readout, None if target is None else target[rows])

    def __repr__(self) -> str:
        """Name the arguments."""
        return (
            f"ClassMaps({type(self.model).__name__}, layer={self.layer!r}, method={self.method!r}, "
            f"window={self.window})"
        )
