"""Object filtering: erase from an image what carries information about a chosen class.

Every window of an image is read as if it were an image of its own; where its pointwise information
about the class is high, it is painted over with background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer._checks import check_at_least, check_count, check_inside
from lastlayer.functional.boxes import box_sums
from lastlayer.information.windows import Side, window_pmi, window_size


class Filtered(NamedTuple):
    """Images without an object.

    Attributes:
        images: (N, C, H, W) with background where something was removed.
        removed: (N, H, W) bool.
        pmi: (N, rows, columns) pointwise information of every window in nats.
    """

    images: Tensor
    removed: Tensor
    pmi: Tensor


class RemovalRates(NamedTuple):
    """Shares of ink removed, each NaN where there was none.

    Attributes:
        target: of the objects of the class.
        others: of all other objects.
    """

    target: float
    others: float


def filter_object(
    model: nn.Module,
    images: Tensor,
    target: int,
    window: Side,
    threshold: float,
    *,
    stride: int = 1,
    log_prior: Tensor | None = None,
    min_ink: float = 0.0,
    background: float = 0.0,
    batch_size: int = 1024,
) -> Filtered:
    r"""Erase the union of all windows whose pointwise information exceeds a threshold.

    .. math:: i_t(w) = \log p(t \mid w) - \log \pi_t > \tau

    Args:
        model: classifier of single objects of the window's size: logits or log-probabilities out.
        images: (N, C, H, W).
        target: the class to filter out.
        window: side of a window in pixels, or (height, width).
        threshold: tau in nats: 0 marks what is more likely the class than a priori, see
            :func:`posterior_threshold` for others; infinity removes nothing, its negative all.
        stride: pixels from window to window.
        log_prior: (K,) log class priors of the data the classifier was trained on; None for equal.
        min_ink: windows with less ink, the mean distance of their values from the background, are
            never marked: a classifier of objects says nothing sensible of none.
        background: value of a pixel with nothing on it.
        batch_size: windows that pass together.

    Returns:
        The :class:`Filtered` images.

    Raises:
        ValueError: if a shape, size or class does not fit, or the classifier returns NaN.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> out = filter_object(model, torch.rand(1, 1, 6, 8), 0, 2, threshold=math.inf)
        >>> out.pmi.shape, bool(out.removed.any())
        (torch.Size([1, 5, 7]), False)

    References:
        The idea of Qin, Kim, "Softmax is not an artificial trick", arXiv:1910.02629.
    """
    pmi = window_pmi(
        model, images, target, window, stride=stride, log_prior=log_prior, batch_size=batch_size
    )
    return erase(
        images, pmi, window, threshold, stride=stride, min_ink=min_ink, background=background
    )


def posterior_threshold(posterior: float, prior: float) -> float:
    r"""Return the pointwise information of a posterior probability.

    .. math:: \tau = \log p - \log \pi

    Args:
        posterior: p in (0, 1).
        prior: :math:`\pi` in (0, 1), 1/K for equal classes.

    Returns:
        Nats.

    Raises:
        ValueError: if a probability is out of range.

    Example:
        >>> round(posterior_threshold(0.9, prior=0.1), 4)
        2.1972
    """
    check_inside("posterior", posterior, 0.0, 1.0)
    check_inside("prior", prior, 0.0, 1.0)
    return math.log(posterior / prior)


def erase(
    images: Tensor,
    pmi: Tensor,
    window: Side,
    threshold: float,
    *,
    stride: int = 1,
    min_ink: float = 0.0,
    background: float = 0.0,
) -> Filtered:
    """Paint the union of all windows above a threshold with background.

    Args:
        images: (N, C, H, W).
        pmi: (N, rows, columns) of the windows, see :func:`window_pmi`.
        window: side of a window in pixels, or (height, width).
        threshold: windows above it are erased; minus infinity takes all.
        stride: pixels from window to window.
        min_ink: least mean distance from the background for a window to be erased.
        background: value that is painted.

    Returns:
        The :class:`Filtered` images.

    Raises:
        ValueError: if a shape or size does not fit, or the threshold or an entry of ``pmi`` is NaN.

    Example:
        >>> pmi = torch.tensor([[[3.0, -1.0]]])
        >>> erase(torch.ones(1, 1, 2, 4), pmi, 2, 0.0, stride=2).images[0, 0]
        tensor([[0., 0., 1., 1.],
                [0., 0., 1., 1.]])
    """
    size = window_size(images, window)
    check_count("stride", stride)
    check_at_least("min_ink", min_ink, 0.0)
    if math.isnan(threshold) or bool(pmi.isnan().any()):
        raise ValueError("threshold and pmi must not be NaN")
    ink = (images - background).abs().mean(1, keepdim=True)
    ink = F.avg_pool2d(ink, size, stride).squeeze(1)
    if pmi.shape != ink.shape:
        raise ValueError(
            f"pmi must have shape {tuple(ink.shape)}, one value per window; got {tuple(pmi.shape)}"
        )
    marked = (pmi > threshold) if threshold > -math.inf else torch.ones_like(pmi, dtype=torch.bool)
    removed = _union(marked & (ink >= min_ink), size, stride, images.shape[2:])
    return Filtered(images.masked_fill(removed.unsqueeze(1), background), removed, pmi)


def removal_rates(
    images: Tensor,
    removed: Tensor,
    boxes: Tensor,
    labels: Tensor,
    target: int,
    *,
    background: float = 0.0,
) -> RemovalRates:
    """Share of the ink that was removed, of the objects of a class and of all others.

    Args:
        images: (N, C, H, W) before the filtering.
        removed: (N, H, W) bool.
        boxes: (N, M, 4) int64 half-open boxes of the objects.
        labels: (N, M) their classes.
        target: the class that was to be removed.
        background: value of a pixel with nothing on it.

    Returns:
        The :class:`RemovalRates`.

    Raises:
        ValueError: if a shape does not fit.

    Example:
        >>> boxes, labels = torch.tensor([[[0, 0, 2, 2], [2, 0, 4, 2]]]), torch.tensor([[7, 3]])
        >>> removed = torch.zeros(1, 2, 4, dtype=torch.bool)
        >>> removed[..., :3] = True
        >>> removal_rates(torch.ones(1, 1, 2, 4), removed, boxes, labels, target=7)
        RemovalRates(target=1.0, others=0.5)
    """
    expected = (len(images), *images.shape[2:])
    if removed.shape != expected or boxes.shape != (*labels.shape, 4) or labels.dim() != 2:
        raise ValueError(
            f"removed must have shape {expected}, boxes (N, M, 4) and labels (N, M); "
            f"got {tuple(removed.shape)}, {tuple(boxes.shape)} and {tuple(labels.shape)}"
        )
    ink = (images - background).abs().sum(1)
    before, gone = box_sums(ink, boxes), box_sums(ink * removed, boxes)
    wanted = labels == target
    rates = (float(gone[each].sum() / before[each].sum()) for each in (wanted, ~wanted))
    return RemovalRates(*rates)


def _union(marked: Tensor, size: tuple[int, int], stride: int, image: Sequence[int]) -> Tensor:
    """Return the pixels that lie in any marked window."""
    kernel = torch.ones(1, 1, *size, device=marked.device)
    count = F.conv_transpose2d(marked.float().unsqueeze(1), kernel, stride=stride).squeeze(1)
    below, right = image[0] - count.shape[1], image[1] - count.shape[2]
    return F.pad(count, (0, right, 0, below)) > 0.5
