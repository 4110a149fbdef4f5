"""Herding: an order of examples whose every prefix keeps the mean."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_finite, check_matrix, check_whole
from lastlayer.functional.incremental.unit_rows import unit_rows

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
