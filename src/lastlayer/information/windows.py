"""Pointwise information about a class in every window of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer._checks import check_count, is_whole
from lastlayer._inputs import evaluating
from lastlayer.heads.interface import full_precision
from lastlayer.information.readout import read_out

Side = int | Sequence[int]
"""A side in pixels, or (height, width)."""


@torch.no_grad()
def window_pmi(
    model: nn.Module,
    images: Tensor,
    target: int,
    window: Side,
    *,
    stride: int = 1,
    log_prior: Tensor | None = None,
    batch_size: int = 1024,
) -> Tensor:
    """Pointwise information about a class in every window of every image, each read by itself.

    Args:
        model: classifier of images of the window's size.
        images: (N, C, H, W).
        target: the class.
        window: side in pixels, or (height, width).
        stride: pixels from window to window.
        log_prior: (K,) log class priors; None for equal ones.
        batch_size: windows that pass together.

    Returns:
        (N, rows, columns) nats, of the windows from the top left on that fit into the image.

    Raises:
        ValueError: if a shape, size or class does not fit, or the classifier returns NaN.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> window_pmi(model, torch.rand(3, 1, 6, 8), 0, 2, stride=2).shape
        torch.Size([3, 3, 4])
    """
    height, width = window_size(images, window)
    check_count("stride", stride)
    check_count("batch_size", batch_size)
    found = []
    with evaluating(model):
        for image in images:  # the windows of all images at once would fill the memory
            grid = image.unfold(1, height, stride).unfold(2, width, stride)
            rows, columns = grid.shape[1:3]
            windows = grid.permute(1, 2, 0, 3, 4).reshape(-1, len(image), height, width)
            outputs = torch.cat([model(part) for part in windows.split(int(batch_size))])
            found.append(_pmi(outputs, target, log_prior).reshape(rows, columns))
    return torch.stack(found)


@torch.no_grad()
def cell_pmi(
    model: nn.Module,
    images: Tensor,
    target: int,
    *,
    cells: int = 1,
    layer: str | None = None,
    log_prior: Tensor | None = None,
) -> Tensor:
    r"""Pointwise information of every window of cells of the last map: one pass for all windows.

    .. math:: n(w) = W \operatorname{mean}_{(a, b) \in w} f(a, b) + b

    As :func:`window_pmi` with the map's own stride, but for what a window's cells see beyond its
    border. For networks that :class:`lastlayer.information.ClassMaps` takes, on images of any size
    that the network takes; of a head it is the linear logits that count.

    Args:
        model: the network.
        images: (N, C, H, W).
        target: the class.
        cells: side of a window in cells.
        layer: dotted name of the module whose output is the last map; found if None.
        log_prior: (K,) log class priors; None for equal ones.

    Returns:
        (N, h - cells + 1, w - cells + 1) nats. With H/h = W/w = s pixels a cell these are windows
        of ``cells * s`` pixels at ``stride=s`` for :func:`lastlayer.information.erase`.

    Raises:
        ValueError: if the network does not end in average pooling and one linear layer, or a size
            does not fit.

    Example:
        >>> network = nn.Sequential(
        ...     nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3)
        ... )
        >>> cell_pmi(network, torch.rand(2, 1, 8, 12), 0, cells=2).shape
        torch.Size([2, 3, 5])
    """
    check_count("cells", cells)
    readout = read_out(model, images, layer)
    if cells > min(readout.features.shape[2:]):
        raise ValueError(
            f"cells must be at most the map's {tuple(readout.features.shape[2:])}; got {cells}"
        )
    dtype = readout.logits.dtype
    features = F.avg_pool2d(readout.features.to(dtype), cells, stride=1)
    bias = None if readout.bias is None else readout.bias.to(dtype)
    with full_precision(features):
        logits = F.linear(features.movedim(1, -1), readout.weight.to(dtype), bias)
    shape = logits.shape[:3]
    return _pmi(logits.flatten(0, 2), target, log_prior).reshape(shape)


def window_size(images: Tensor, window: Side) -> tuple[int, int]:
    """Return (height, width) of a window, or raise unless it lies within the images."""
    if images.dim() != 4 or len(images) == 0:
        raise ValueError(
            f"images must have shape (N, C, H, W), N at least 1; got {tuple(images.shape)}"
        )
    height, width = (window, window) if is_whole(window) else window
    if not (1 <= height <= images.shape[2] and 1 <= width <= images.shape[3]):
        raise ValueError(
            f"window must lie within the image's {tuple(images.shape[2:])} pixels; got {window!r}"
        )
    return height, width


def _pmi(outputs: Tensor, target: int, log_prior: Tensor | None) -> Tensor:
    """Pointwise information of (M, K) logits or log-probabilities about one class."""
    num_classes = outputs.shape[-1]
    if not 0 <= target < num_classes:
        raise ValueError(f"target must lie in [0, {num_classes - 1}]; got {target}")
    if bool(outputs.isnan().any()):
        raise ValueError("the classifier's outputs must not be NaN; those of a window are")
    log_prob = outputs.to(torch.promote_types(outputs.dtype, torch.float32)).log_softmax(-1)
    if log_prior is None:
        return log_prob[:, target] + math.log(num_classes)
    if log_prior.shape != (num_classes,) or not bool(log_prior[target].isfinite()):
        raise ValueError(
            f"log_prior must have shape ({num_classes},) and be finite for class {target}, "
            f"got shape {tuple(log_prior.shape)}"
        )
    return log_prob[:, target] - log_prior[target]
