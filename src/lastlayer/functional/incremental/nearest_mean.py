"""Nearest mean of exemplars: prediction without a classifier's weights."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import (
    check_class_indices,
    check_floating,
    check_labels,
    check_last_dim,
    check_matrix,
    check_whole,
)
from lastlayer.functional.incremental.unit_rows import unit_rows


def class_means(features: Tensor, target: Tensor, num_classes: int) -> Tensor:
    r"""Mean direction of every class.

    .. math:: \mu_k = \frac{m_k}{\lVert m_k \rVert_2}, \qquad
        m_k = \frac{1}{n_k} \sum_{i: y_i = k} \frac{f_i}{\lVert f_i \rVert_2}

    Args:
        features: (N, D) features; half precision is computed in float32.
        target: (N,) int64 labels in [0, K).
        num_classes: K, at least 1.

    Returns:
        (K, D) rows of length 1; NaN for a class without an example, which
        :func:`nearest_mean_scores` never predicts; zeros where the directions cancel.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape, a label or ``num_classes`` does not fit.

    Example:
        >>> features = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
        >>> class_means(features, torch.tensor([0, 1, 1]), num_classes=2)
        tensor([[1., 0.],
                [0., 1.]])

    Source: Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017.
    """
    check_matrix("features", features)
    check_whole("num_classes", num_classes, 1)
    check_labels("target", target, len(features))
    check_class_indices(target, num_classes)
    rows = unit_rows(features)
    sums = rows.new_zeros(num_classes, rows.shape[1]).index_add(0, target, rows)
    counts = torch.zeros_like(sums[:, 0]).index_add(0, target, torch.ones_like(rows[:, 0]))
    # The length of the sum does not matter, only its direction.
    return torch.where(counts.unsqueeze(-1) > 0, unit_rows(sums), torch.nan)


def nearest_mean_scores(features: Tensor, means: Tensor) -> Tensor:
    r"""Negative squared distances to the class means; the largest is the nearest class.

    .. math:: s_k = -\Bigl\lVert \frac{f}{\lVert f \rVert_2} - \mu_k \Bigr\rVert_2^2

    Args:
        features: (*, D) features; half precision is computed in float32.
        means: (K, D) of :func:`class_means`; a row of NaN is a class without an example.

    Returns:
        (*, K) scores of at most 0; -inf for a class without an example.

    Raises:
        TypeError: if a dtype is not floating point.
        ValueError: if a shape does not fit.

    Example:
        >>> means = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> nearest_mean_scores(torch.tensor([[5.0, 0.0]]), means)
        tensor([[ 0., -2.]])

    Source: Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017.
    """
    check_floating("features", features)
    check_matrix("means", means)
    check_last_dim("features", features, means.shape[1])
    rows = unit_rows(features)
    missing = means.isnan().any(dim=-1)
    known = torch.where(missing.unsqueeze(-1), 0.0, means).to(rows)
    squares = rows.square().sum(dim=-1, keepdim=True) + known.square().sum(dim=-1)
    scores = (2.0 * rows @ known.T - squares).clamp_max(0.0)
    return scores.masked_fill(missing, -torch.inf)
