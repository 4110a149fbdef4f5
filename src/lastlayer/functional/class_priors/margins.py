"""Label-distribution-aware margins: larger for rare classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import REDUCTIONS, check_choice, check_class_weight, check_positive
from lastlayer.functional.class_priors.counts import as_class_counts
from lastlayer.functional.layout import flatten_target, float_rows, target_shape
from lastlayer.functional.reduction import reduce_rows, split_ignored


def ldam_margins(class_counts: Tensor | Sequence[float], *, max_margin: float = 0.5) -> Tensor:
    r"""Margins that fall with the fourth root of the counts.

    .. math:: m_j = m_{\max} \, (n_j / \min_i n_i)^{-1/4}

    Args:
        class_counts: (K,) positive counts.
        max_margin: margin of the rarest class, above 0.

    Returns:
        (K,) in float32, or float64 for counts in float64.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> ldam_margins([160, 10])
        tensor([0.2500, 0.5000])

    Source: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
    NeurIPS 2019.
    """
    check_positive("max_margin", max_margin)
    counts = as_class_counts(class_counts, offers_mask=False)
    exact = counts.double()
    margins = max_margin * (exact / exact.min()).pow(-0.25)
    return margins.to(counts.dtype if counts.is_floating_point() else torch.float32)


def ldam_loss(
    cosines: Tensor,
    target: Tensor,
    class_counts: Tensor | Sequence[float],
    *,
    max_margin: float = 0.5,
    scale: float = 30.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Cross entropy of scaled cosines with the true class's margin taken off.

    .. math:: L(z; y) = -\log \frac{e^{s (z_y - m_y)}}{e^{s (z_y - m_y)} + \sum_{j \ne y} e^{s z_j}}

    Unlike Balanced Softmax it is not consistent for the balanced error; its authors weight the
    classes late in training as well (:func:`deferred_class_weight`).

    Args:
        cosines: (K,), (N, K) or (N, K, d1, ...) cosines of features and class weights, not scaled.
        target: class indices (), (N,) or (N, d1, ...). The margin needs one true class: neither
            class probabilities nor label smoothing are defined.
        class_counts: (K,) positive counts of the classes in training.
        max_margin: margin of the rarest class, above 0.
        scale: s, above 0.
        weight: (K,) weight of each class, at least 0.
        ignore_index: class index of the rows that take no part.
        reduction: ``"none"``, ``"mean"`` (0 over no row at all) or ``"sum"``.

    Returns:
        A scalar, or one value per row for ``"none"``, in nats.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape, a count, a class index or an option does not fit.

    Example:
        >>> ldam_loss(torch.tensor([[0.5, 0.0]]), torch.tensor([0]), [10, 10], scale=1.0)
        tensor(0.6931)

    Source: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
    NeurIPS 2019.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    check_positive("scale", scale)
    rows = float_rows(cosines)
    num_classes = rows.shape[-1]
    check_class_weight(weight, num_classes)
    if target.is_floating_point():
        raise TypeError("target must hold class indices, for the margin is that of one true class")
    index, keep = split_ignored(flatten_target(target, cosines), num_classes, ignore_index)
    counts = as_class_counts(class_counts, num_classes, offers_mask=False).to(rows.device)
    margin = ldam_margins(counts, max_margin=max_margin).to(rows)[index]
    shifted = rows.scatter_add(-1, index.unsqueeze(-1), -margin.unsqueeze(-1))
    values = F.cross_entropy(scale * shifted, index, reduction="none")
    row_weight = None if weight is None else weight.to(rows)[index]
    values = reduce_rows(values, keep=keep, row_weight=row_weight, reduction=reduction)
    return values.reshape(target_shape(cosines)) if reduction == "none" else values
