"""How well boxes drawn from class maps meet the objects that they explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from lastlayer._checks import check_probability
from lastlayer._text import aligned
from lastlayer.functional.boxes import box_iou
from lastlayer.functional.localization import (
    box_accuracy,
    gt_known_localization,
    top1_localization,
)
from lastlayer.functional.map_boxes import boxes_from_maps

HEADINGS = ("threshold", "IoU", "GT-known %", "Top-1 %", "best threshold", "MaxBoxAcc %")


@dataclass(frozen=True)
class Localization:
    """Boxes from maps beside the true ones; printed, a table of one row.

    Attributes:
        threshold: share of the map's range that a pixel of a box must reach.
        mean_iou: mean intersection over union with the true box, the best of several.
        gt_known: share of boxes that are hits: of an intersection over union of at least
            ``iou_threshold``.
        top1: share of examples whose box is a hit and whose class is right.
        best_threshold: the threshold of 0, 0.05 ... 0.95 with the most hits.
        max_box_acc: their share: MaxBoxAcc, chosen on the examples that it is measured on.
        iou_threshold: what a hit must reach.
        num_examples: N.
    """

    threshold: float
    mean_iou: float
    gt_known: float
    top1: float
    best_threshold: float
    max_box_acc: float
    iou_threshold: float
    num_examples: int

    def row(self) -> tuple[str, ...]:
        """The numbers as text, below :data:`HEADINGS`."""
        return (
            f"{self.threshold:g}",
            f"{self.mean_iou:.3f}",
            f"{100 * self.gt_known:.1f}",
            f"{100 * self.top1:.1f}",
            f"{self.best_threshold:g}",
            f"{100 * self.max_box_acc:.1f}",
        )

    def as_dict(self) -> dict[str, Any]:
        """Every number by name, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return aligned([HEADINGS, self.row()], left=0)


def localization(
    maps: Tensor,
    boxes: Tensor,
    prediction: Tensor,
    target: Tensor,
    *,
    size: Sequence[int],
    threshold: float = 0.5,
    iou_threshold: float = 0.5,
) -> Localization:
    """Measure boxes drawn from class maps against true ones.

    Args:
        maps: (N, h, w) maps of the true classes, see :class:`lastlayer.information.ClassMaps`.
        boxes: (N, 4) or (N, M, 4) true boxes, half open: left, top, right, bottom in pixels; an
            example with fewer than M has empty ones.
        prediction: (N,) predicted classes.
        target: (N,) true classes.
        size: (height, width) of the images.
        threshold: share of a map's range, from its least to its greatest value, that a pixel of the
            box must reach. 0.2, common for photographs, is of no use for digits on canvases.
        iou_threshold: intersection over union that a hit must reach.

    Returns:
        The :class:`Localization`.

    Raises:
        ValueError: if a shape or a number does not fit, or there is no example.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]])
        >>> truth = torch.tensor([[2, 0, 4, 2], [0, 2, 4, 4]])
        >>> label = torch.tensor([0, 1])
        >>> found = localization(maps, truth, label, label.flip(0), size=(4, 4), threshold=0.7)
        >>> found.gt_known, found.top1, found.mean_iou
        (0.5, 0.0, 0.5)

    Source: Zhou et al., CVPR 2016; Choe et al., "Evaluating weakly supervised object localization
    methods right", CVPR 2020.
    """
    check_probability("threshold", threshold)
    found = boxes_from_maps(maps, threshold, size=size).cpu()
    truth = boxes.cpu()
    every = truth if truth.dim() == 3 else truth.unsqueeze(1)
    gt_known = gt_known_localization(found, truth, iou_threshold=iou_threshold)
    top1 = top1_localization(found, truth, prediction, target, iou_threshold=iou_threshold)
    sweep = box_accuracy(maps, truth, size=size, iou_thresholds=(iou_threshold,))
    return Localization(
        threshold=threshold,
        mean_iou=float(box_iou(found.unsqueeze(1), every).amax(1).mean()),
        gt_known=gt_known,
        top1=top1,
        best_threshold=float(sweep.best_threshold),
        max_box_acc=float(sweep.best),
        iou_threshold=iou_threshold,
        num_examples=len(found),
    )
