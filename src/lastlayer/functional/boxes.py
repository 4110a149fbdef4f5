"""Boxes: areas, overlaps, sums within them.

A box is (left, top, right, bottom) in pixels, half open: it holds the columns left, ..., right - 1
and the rows top, ..., bottom - 1, and its area is (right - left) * (bottom - top). A box with no
pixel is empty, written (0, 0, 0, 0); its intersection over union with any box is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def box_area(boxes: Tensor) -> Tensor:
    r"""Return the area of (\*, 4) boxes in pixels; 0 where a side is not positive."""
    _check_boxes("boxes", boxes)
    left, top, right, bottom = boxes.unbind(-1)
    return (right - left).clamp_min(0) * (bottom - top).clamp_min(0)


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    r"""Intersection over union of pairs of boxes.

    .. math:: \mathrm{IoU}(A, B) = |A \cap B| \,/\, |A \cup B|

    Args:
        boxes: (\*, 4) half-open boxes, integer or floating point.
        others: (\*, 4), of a shape that broadcasts with ``boxes``.

    Returns:
        (\*) float64 in [0, 1]; 0 where a box is empty.

    Raises:
        ValueError: if the last dimension is not 4.

    Examples:
        >>> box_iou(torch.tensor([0, 0, 2, 2]), torch.tensor([[1, 1, 3, 3], [5, 5, 6, 6]]))
        tensor([0.1429, 0.0000], dtype=torch.float64)
    """
    _check_boxes("others", others)
    boxes, others = boxes.double(), others.double()
    # Both sides are cut at 0 in box_area: two negative extents must not multiply to an area.
    overlap = box_area(
        torch.cat(
            (
                torch.maximum(boxes[..., :2], others[..., :2]),
                torch.minimum(boxes[..., 2:], others[..., 2:]),
            ),
            dim=-1,
        )
    )
    union = box_area(boxes) + box_area(others) - overlap
    return overlap / torch.where(union > 0, union, torch.ones_like(union))


def inclusive_to_half_open(boxes: Tensor) -> Tensor:
    r"""Turn (\*, 4) boxes whose right and bottom are their last pixels into half-open ones.

    Areas and overlaps then are those of the "+1" convention.

    Examples:
        >>> inclusive_to_half_open(torch.tensor([3, 4, 3, 4]))
        tensor([3, 4, 4, 5])
    """
    _check_boxes("boxes", boxes)
    return boxes + boxes.new_tensor([0, 0, 1, 1])


def clip_boxes(boxes: Tensor, size: Sequence[int]) -> Tensor:
    r"""Cut (\*, 4) boxes at the edges of an image of ``size`` (height, width).

    Examples:
        >>> clip_boxes(torch.tensor([[-2, 1, 9, 3], [8, 8, 9, 9]]), (4, 6))
        tensor([[0, 1, 6, 3],
                [0, 0, 0, 0]])
    """
    _check_boxes("boxes", boxes)
    height, width = size
    limits = boxes.new_tensor([width, height, width, height])
    clipped = torch.minimum(boxes.clamp_min(0), limits)
    return clipped * (box_area(clipped) > 0).unsqueeze(-1)


def box_sums(values: Tensor, boxes: Tensor) -> Tensor:
    """Sum an image's values over each of its boxes.

    Args:
        values: (N, H, W) numbers per pixel.
        boxes: (N, M, 4) int64 boxes within the image.

    Returns:
        (N, M) float64.

    Examples:
        >>> box_sums(torch.ones(1, 3, 3), torch.tensor([[[0, 0, 2, 3], [0, 0, 0, 0]]]))
        tensor([[6., 0.]], dtype=torch.float64)
    """
    _check_boxes("boxes", boxes)
    corners = F.pad(values.double().cumsum(1).cumsum(2), (1, 0, 1, 0))
    rows = torch.arange(len(values), device=values.device).unsqueeze(1)
    left, top, right, bottom = boxes.unbind(-1)
    return (
        corners[rows, bottom, right]
        - corners[rows, top, right]
        - corners[rows, bottom, left]
        + corners[rows, top, left]
    )


def _check_boxes(name: str, boxes: Tensor) -> None:
    if boxes.dim() == 0 or boxes.shape[-1] != 4:
        raise ValueError(
            f"{name} must have shape (*, 4), left, top, right, bottom; got {tuple(boxes.shape)}"
        )
