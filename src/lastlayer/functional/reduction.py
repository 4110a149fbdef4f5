"""Targets with ignored rows, and torch's reductions, in one place for every loss and head."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lastlayer._checks import REDUCTIONS, check_choice, check_class_indices, check_ignore_index


class Rows(NamedTuple):
    """Class indices made safe to gather with, and which rows count.

    Attributes:
        target: (N,) int64, ignored rows replaced by class 0.
        keep: (N,) bool, False where the row is ignored; None where every row is known to count.
    """

    target: Tensor
    keep: Tensor | None


def split_ignored(target: Tensor, num_classes: int, ignore_index: int = -100) -> Rows:
    """Separate ignored rows from class indices.

    Args:
        target: (N,) int64 class indices in [0, num_classes) or ``ignore_index``.
        num_classes: number of classes K.
        ignore_index: the label of rows that take no part in the loss.

    Returns:
        ``Rows(target, keep)``.

    Raises:
        TypeError: if ``target`` is not int64 or ``ignore_index`` no integer.
        ValueError: if a label is out of range.
    """
    check_ignore_index(ignore_index)
    if check_class_indices(target, num_classes, ignore_index):
        return Rows(target, None)
    keep = target != ignore_index
    return Rows(torch.where(keep, target, 0), keep)


def reduce_rows(
    values: Tensor,
    *,
    keep: Tensor | None,
    row_weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Reduce one value per row as ``torch.nn.functional.cross_entropy`` does.

    With weights :math:`w_i` (0 for ignored rows): ``"none"`` returns :math:`w_i v_i`, ``"sum"``
    their sum, ``"mean"`` :math:`\sum_i w_i v_i / \sum_i w_i`. One deviation from torch: the mean
    over no row at all is 0 with zero gradient, not NaN.

    Args:
        values: (N,) one value per row.
        keep: (N,) bool, False for ignored rows; None if all rows count.
        row_weight: (N,) weight of each row, or None for 1.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.

    Returns:
        A scalar, or (N,) for ``"none"``.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    if keep is not None:
        # where, not a product: an ignored row may hold inf or NaN.
        values = torch.where(keep, values, 0.0)
        row_weight = (
            keep.to(values.dtype) if row_weight is None else torch.where(keep, row_weight, 0.0)
        )
    weighted = values if row_weight is None else values * row_weight
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    if row_weight is None:
        return weighted.sum() / max(1, values.numel())
    total = row_weight.sum()
    return weighted.sum() / torch.where(total > 0, total, 1.0)
