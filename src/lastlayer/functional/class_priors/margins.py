"""Label-distribution-aware margins: larger for rare classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_positive
from lastlayer.functional.class_priors.counts import as_class_counts
from lastlayer.functional.loss_arguments import HardLossArguments, explained, hard_target_loss


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


@explained
def ldam_loss(
    cosines: Tensor,
    target: Tensor,
    class_counts: Tensor | Sequence[float],
    *,
    max_margin: float = 0.5,
    scale: float = 30.0,
    **arguments: Unpack[HardLossArguments],
) -> Tensor:
    r"""Cross entropy of scaled cosines with the true class's margin taken off.

    .. math:: L(z; y) = -\log \frac{e^{s (z_y - m_y)}}{e^{s (z_y - m_y)} + \sum_{j \ne y} e^{s z_j}}

    The margin needs one true class: neither class probabilities nor label smoothing are defined.
    Unlike Balanced Softmax it is not consistent for the balanced error; its authors weight the
    classes late in training as well (:func:`deferred_class_weight`).

    Args:
        cosines: (K,), (N, K) or (N, K, d1, ...) cosines of features and class weights, not scaled.
        target: {class indices}
        class_counts: (K,) positive counts of the classes in training.
        max_margin: margin of the rarest class, above 0.
        scale: s, above 0.
        **arguments: {arguments}

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
    check_positive("scale", scale)

    def row_losses(rows: Tensor, index: Tensor, _: Tensor | None) -> Tensor:
        counts = as_class_counts(class_counts, rows.shape[-1], offers_mask=False).to(rows.device)
        margin = ldam_margins(counts, max_margin=max_margin).to(rows)[index]
        shifted = rows.scatter_add(-1, index.unsqueeze(-1), -margin.unsqueeze(-1))
        return F.cross_entropy(scale * shifted, index, reduction="none")

    return hard_target_loss(
        cosines,
        target,
        row_losses,
        no_soft_targets="the margin is that of one true class",
        **arguments,
    )
