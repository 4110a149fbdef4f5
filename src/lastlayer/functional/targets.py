"""Class indices, class probabilities, smoothing and class weights brought to one form."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lastlayer._checks import check_class_weight, check_ignore_index, check_probability
from lastlayer.functional.reduction import split_ignored


class Targets(NamedTuple):
    """The target side of the loss, y weighted by class, as the formula needs it.

    Attributes:
        score: (M,) weighted <o, y>.
        mass: (M,) sum of the weighted y.
        probabilities: (M, K) the weighted y normalised to sum 1; None for plain class indices.
        keep: (M,) False for ignored rows; None where every row is known to count.
        denominator: scalar denominator of the mean.
    """

    score: Tensor
    mass: Tensor
    probabilities: Tensor | None
    keep: Tensor | None
    denominator: Tensor


def weighted_targets(
    rows: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    *,
    smoothed_over: Tensor | None = None,
) -> Targets:
    r"""Weight and smooth a target as ``torch.nn.functional.cross_entropy`` does.

    .. math:: \tilde y_k = w_k \bigl((1 - \varepsilon) y_k + \varepsilon / K\bigr)

    Args:
        rows: (M, K) logits.
        target: (M,) int64 class indices or (M, K) class probabilities.
        weight: (K,) weight of each class, at least 0, or None for 1.
        ignore_index: class index of the rows that take no part.
        label_smoothing: the share epsilon of the uniform distribution, in [0, 1].
        smoothed_over: (K,) bool, the classes of that uniform distribution; None for all.

    Returns:
        ``Targets``; plain class indices stay indices, no (M, K) tensor is made for them.

    Raises:
        TypeError: if ``target`` is neither floating point nor int64.
        ValueError: if a class index, the weight or the smoothing is out of range, or
            ``ignore_index`` names a class while ``target`` holds probabilities.

    Examples:
        >>> rows = torch.tensor([[2.0, -1.0]])
        >>> weighted_targets(rows, torch.tensor([1]), None, -100, 0.5).probabilities
        tensor([[0.2500, 0.7500]])
    """
    num_classes = rows.shape[-1]
    check_probability("label_smoothing", label_smoothing)
    check_ignore_index(ignore_index)
    check_class_weight(weight, num_classes)
    class_weight = None if weight is None else weight.to(rows.dtype)
    if target.is_floating_point():
        if ignore_index >= 0:
            raise ValueError(
                "ignore_index applies to class indices only; got class probabilities and "
                f"ignore_index={ignore_index}"
            )
        y = target.to(rows.dtype)
        keep = None
        denominator = rows.new_full((), len(rows))
    else:
        index, keep = split_ignored(target, num_classes, ignore_index)
        row_weight = rows.new_ones(()) if class_weight is None else class_weight[index]
        counted = row_weight.expand(index.shape)
        denominator = (counted if keep is None else torch.where(keep, counted, 0.0)).sum()
        if label_smoothing == 0.0:
            score = rows.gather(-1, index.unsqueeze(-1)).squeeze(-1)
            # A weight of 0 removes a row whose score is -inf, too.
            if class_weight is not None:
                score = torch.where(row_weight > 0, row_weight * score, 0.0)
            if keep is not None:
                score = torch.where(keep, score, 0.0)
            return Targets(score, row_weight, None, keep, denominator)
        y = torch.zeros_like(rows).scatter(-1, index.unsqueeze(-1), 1.0)
    if label_smoothing > 0.0:
        share: Tensor | float = label_smoothing / num_classes
        if smoothed_over is not None:
            share = label_smoothing * smoothed_over.to(y) / smoothed_over.sum()
        y = (1.0 - label_smoothing) * y + share
    if class_weight is not None:
        y = y * class_weight
    mass = y.sum(-1)
    score = (torch.where(y == 0, 0.0, rows) * y).sum(-1)
    probabilities = y / torch.where(mass > 0, mass, 1.0).unsqueeze(-1)
    return Targets(score, mass, probabilities, keep, denominator)
