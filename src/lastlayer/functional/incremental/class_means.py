"""Class means: examples that keep them, predictions by the nearest, directions to start from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import (
    check_class_indices,
    check_finite,
    check_floating,
    check_labels,
    check_last_dim,
    check_matrix,
    check_whole,
)
from lastlayer.functional.numerics import unit_rows


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


#: Distances closer than this are a tie: no order of additions in float64 tells them apart.
TIE = 1e-12


def herding_order(features: Tensor, size: int) -> Tensor:
    r"""Order the examples of one class so that means of prefixes are near the mean of all.

    .. math:: i_k = \arg\min_{i \notin \{i_1, \dots, i_{k-1}\}}
        \Bigl\lVert \mu - \frac1k \Bigl(u_i + \sum_{j<k} u_{i_j}\Bigr) \Bigr\rVert_2, \qquad
        u_i = \frac{f_i}{\lVert f_i \rVert_2}, \quad \mu = \frac1N \sum_i u_i

    without replacement; of equally near examples the first. A selection of m examples begins with
    that of any smaller number, so that a memory shrinks by cutting its end off. It is computed in
    float64, in m matrix-vector products: O(m N D).

    Args:
        features: (N, D) finite features of one class; a row of zeros stays one.
        size: m, how many are wanted; all N if there are no more.

    Returns:
        (min(m, N),) int64 indices in the order of selection, on the device of ``features``.

    Raises:
        TypeError: if ``features`` is not floating point.
        ValueError: if a shape or ``size`` does not fit, or a feature is not finite.

    Example:
        >>> features = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
        >>> herding_order(features, 3)
        tensor([1, 0, 2])

    Source: Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017,
    algorithm 4.
    """
    check_matrix("features", features)
    check_finite("features", features)
    check_whole("size", size, 0)
    size = min(size, len(features))
    order = torch.empty(size, dtype=torch.int64, device=features.device)
    if not size:
        return order
    rows = unit_rows(features.detach().double())
    mean, squares = rows.mean(dim=0), rows.square().sum(dim=-1)
    missing = mean.clone()  # k mu minus the sum of the k - 1 chosen rows
    for k in range(size):
        # |missing - u|^2 without |missing|^2, negated: the largest is the nearest.
        nearness = 2.0 * (rows @ missing) - squares
        chosen = (nearness >= nearness.amax() - TIE * (1.0 + missing.norm())).int().argmax()
        order[k] = chosen
        squares[chosen] = torch.inf
        missing = missing + mean - rows[chosen]
    return order


def class_directions(features: Tensor, target: Tensor, classes: Tensor) -> Tensor:
    r"""Mean direction of the features (N, D) of each of the (C,) classes; (C, D) unit vectors.

    .. math:: u_c = \frac{m_c}{\lVert m_c \rVert}, \qquad
        m_c = \frac{1}{n_c} \sum_{i: y_i = c} \frac{h_i}{\lVert h_i \rVert}

    Half precision is computed in float32. Raises ``ValueError`` if a class has no example, or its
    directions cancel out.
    """
    check_floating("features", features)
    if features.dim() != 2:
        raise ValueError(f"features must have shape (N, D); got {tuple(features.shape)}")
    check_labels("target", target, len(features))
    check_finite("features", features)
    exact = features if features.dtype == torch.float64 else features.float()
    directions = F.normalize(exact, dim=-1)
    means = exact.new_zeros(len(classes), exact.shape[1])
    for row, label in enumerate(classes.tolist()):
        of_class = directions[target == label]
        if not len(of_class):
            raise ValueError(f"target must have an example of every class; class {label} has none")
        means[row] = of_class.mean(dim=0)
    norms: Tensor = torch.linalg.vector_norm(means, dim=-1, keepdim=True)
    vanished = (norms.squeeze(-1) <= 4 * torch.finfo(exact.dtype).eps).nonzero()
    if len(vanished):
        label = int(classes[int(vanished[0])])
        raise ValueError(f"features of class {label} must have a mean direction; theirs cancel out")
    return means / norms
