"""How well boxes from maps find an object: GT-known, Top-1 and the accuracy over thresholds.

Every figure is the number of hits over the number of examples. An example may have several true
boxes, (N, M, 4), filled up with empty ones; it is a hit where the best of them is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lastlayer._checks import check_choice, check_probability
from lastlayer.functional.boxes import box_iou
from lastlayer.functional.map_boxes import (
    above_threshold,
    connected_boxes,
    largest_boxes,
    prepare_maps,
)

#: 0, 0.05, ..., 0.95.
THRESHOLDS = tuple(step / 20 for step in range(20))
COMPONENTS = ("largest", "all")


def localized(boxes: Tensor, truth: Tensor, *, iou_threshold: float = 0.5) -> Tensor:
    """Return which boxes overlap a true box enough.

    Args:
        boxes: (N, 4) half-open boxes.
        truth: (N, 4) or (N, M, 4) true boxes.
        iou_threshold: least intersection over union of a hit, in (0, 1].

    Returns:
        (N,) bool.

    Raises:
        ValueError: if a shape or the threshold does not fit.

    Examples:
        >>> localized(torch.tensor([[0, 0, 2, 2]]), torch.tensor([[0, 0, 2, 4]]))
        tensor([True])
    """
    _check_iou_threshold(iou_threshold)
    return _best_overlap(boxes, truth) >= iou_threshold


def gt_known_localization(boxes: Tensor, truth: Tensor, *, iou_threshold: float = 0.5) -> float:
    """Share of examples whose box, from the map of the true class, is a hit.

    Args:
        boxes: (N, 4) boxes from maps of the true classes.
        truth: (N, 4) or (N, M, 4) true boxes.
        iou_threshold: least intersection over union of a hit.

    Returns:
        A share in [0, 1].

    Raises:
        ValueError: if a shape or the threshold does not fit, or there is no example.

    Examples:
        >>> box = torch.tensor([[0, 0, 2, 2], [0, 0, 2, 2]])
        >>> gt_known_localization(box, torch.tensor([[0, 0, 2, 2], [4, 4, 6, 6]]))
        0.5
    """
    return _share(localized(boxes, truth, iou_threshold=iou_threshold))


def top1_localization(
    boxes: Tensor,
    truth: Tensor,
    prediction: Tensor,
    target: Tensor,
    *,
    iou_threshold: float = 0.5,
) -> float:
    """Share of examples whose class is right and whose box is a hit.

    Args:
        boxes: (N, 4) boxes from maps of the predicted classes (of the true ones makes no
            difference: where they are not the same, the example is missed).
        truth: (N, 4) or (N, M, 4) true boxes.
        prediction: (N,) predicted classes.
        target: (N,) true classes.
        iou_threshold: least intersection over union of a hit.

    Returns:
        A share in [0, 1], at most the accuracy.

    Raises:
        ValueError: if a shape or the threshold does not fit, or there is no example.

    Examples:
        >>> box = torch.tensor([[0, 0, 2, 2], [0, 0, 2, 2]])
        >>> top1_localization(box, box, torch.tensor([3, 5]), torch.tensor([3, 4]))
        0.5
    """
    hits = localized(boxes, truth, iou_threshold=iou_threshold)
    for name, labels in (("prediction", prediction), ("target", target)):
        if labels.shape != hits.shape:
            raise ValueError(
                f"{name} must have shape {tuple(hits.shape)}, one class per box; "
                f"got {tuple(labels.shape)}"
            )
    return _share(hits & (prediction == target).to(hits.device))


class BoxAccuracy(NamedTuple):
    """Shares of hits over the map's thresholds.

    Attributes:
        thresholds: (T,) thresholds of the map.
        iou_thresholds: (I,) what an overlap must reach.
        accuracy: (I, T) float64 shares.
        hits: (I, T, N) bool.
    """

    thresholds: Tensor
    iou_thresholds: Tensor
    accuracy: Tensor
    hits: Tensor

    @property
    def best(self) -> Tensor:
        """MaxBoxAcc for each overlap, (I,): the accuracy at its best threshold."""
        return self.accuracy.amax(1)

    @property
    def best_threshold(self) -> Tensor:
        """The least threshold at which each overlap is best, (I,)."""
        return self.thresholds[self.accuracy.argmax(1)]

    @property
    def mean(self) -> float:
        """Mean of ``best`` over the overlaps: MaxBoxAccV2 for 0.3, 0.5 and 0.7."""
        return float(self.best.mean())


def box_accuracy(
    maps: Tensor,
    truth: Tensor,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    iou_thresholds: Sequence[float] = (0.5,),
    components: str = "largest",
    size: Sequence[int] | None = None,
    interpolation: str = "bilinear",
    normalization: str = "min-max",
    strict: bool = False,
    connectivity: int = 4,
) -> BoxAccuracy:
    r"""Sweep the map's threshold: accuracy of its boxes at each, MaxBoxAcc at the best.

    .. math:: \mathrm{MaxBoxAcc}(\delta) = \max_\tau \frac{1}{N} \sum_i
        \mathbb{1}\big[\mathrm{IoU}(\mathrm{box}(M_i, \tau), B_i) \ge \delta\big]

    MaxBoxAccV2 is the mean over :math:`\delta = 0.3, 0.5, 0.7` of all components' boxes, ``mean``
    of what ``iou_thresholds=(0.3, 0.5, 0.7), components="all"`` returns. The best threshold is
    chosen on the examples it is measured on; choose it on others to know what a user gets.

    Args:
        maps: (N, h, w) maps of the true classes.
        truth: (N, 4) or (N, M, 4) true boxes.
        thresholds: thresholds on the scale of the normalized map.
        iou_thresholds: overlaps that count as a hit, in (0, 1].
        components: ``"largest"`` takes the box of the largest component, ``"all"`` any component's.
        size: as in :func:`lastlayer.functional.map_boxes.boxes_from_maps`, as are the rest.
        interpolation: how maps are stretched.
        normalization: how maps are scaled.
        strict: whether a pixel must exceed the threshold.
        connectivity: neighbors of a pixel, 4 or 8.

    Returns:
        The :class:`BoxAccuracy`.

    Raises:
        ValueError: if a shape, name or threshold does not fit, or there is no example.

    Examples:
        >>> maps = torch.tensor([[[0.0, 1.0, 2.0]]])
        >>> found = box_accuracy(maps, torch.tensor([[2, 0, 3, 1]]), thresholds=(0.25, 0.5, 0.75))
        >>> found.accuracy
        tensor([[1., 1., 1.]], dtype=torch.float64)
        >>> box_accuracy(maps, torch.tensor([[2, 0, 3, 1]]), iou_thresholds=(0.9,)).best_threshold
        tensor([0.5500], dtype=torch.float64)

    References:
        Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020.
    """
    check_choice("components", components, COMPONENTS)
    if not thresholds or not iou_thresholds:
        raise ValueError("thresholds and iou_thresholds must not be empty")
    for value in iou_thresholds:
        _check_iou_threshold(value)
    if len(maps) == 0:
        raise ValueError("an accuracy needs at least one example; got none")
    scaled = prepare_maps(maps, size, interpolation, normalization).cpu()
    truth = truth.cpu()
    overlap = torch.zeros(len(thresholds), len(maps), dtype=torch.float64)
    for row, threshold in zip(overlap, thresholds, strict=True):
        mask = above_threshold(scaled, threshold, strict=strict, normalization=normalization)
        found = connected_boxes(mask, connectivity)
        if components == "largest":
            row.copy_(_best_overlap(largest_boxes(found, len(maps)), truth))
        else:
            each = _best_overlap(found.boxes, truth[found.image])
            row.scatter_reduce_(0, found.image, each, "amax")
    levels = torch.tensor(tuple(iou_thresholds), dtype=torch.float64)
    hits = overlap >= levels.view(-1, 1, 1)
    chosen = torch.tensor(tuple(thresholds), dtype=torch.float64)
    return BoxAccuracy(chosen, levels, hits.double().mean(-1), hits)


def _best_overlap(boxes: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of (N, 4) boxes with the best of (N, 4) or (N, M, 4)."""
    if boxes.dim() != 2 or truth.dim() not in (2, 3) or len(boxes) != len(truth):
        raise ValueError(
            "boxes must have shape (N, 4) and truth (N, 4) or (N, M, 4); "
            f"got {tuple(boxes.shape)} and {tuple(truth.shape)}"
        )
    if truth.dim() == 2:
        return box_iou(boxes, truth)
    return box_iou(boxes.unsqueeze(1), truth).amax(1)


def _check_iou_threshold(value: float) -> None:
    check_probability("iou_threshold", value)
    if value == 0:
        raise ValueError("iou_threshold must be above 0, else an empty box is a hit; got 0")


def _share(hits: Tensor) -> float:
    if len(hits) == 0:
        raise ValueError("an accuracy needs at least one example; got none")
    return float(hits.double().mean())
