"""TransRate: how much coding length the classes of features save."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_choice, check_labelled_features, check_positive

WEIGHTINGS = ("frequency", "equal")

# Bounds the condition number of what a Cholesky factor is taken of.
_LARGEST_TRACE = 1e8


def trans_rate(
    features: Tensor,
    target: Tensor,
    *,
    weighting: str = "frequency",
    normalise_rows: bool = True,
    epsilon: float = 1e-4,
) -> Tensor:
    r"""Coding rate of features less the mean coding rate within classes.

    .. math:: R(F) - \sum_c w_c R(F_c), \qquad
        R(F) = \tfrac12 \log\det\bigl(I + \tfrac{1}{n \epsilon} F^\top F\bigr)

    with the overall mean taken from every row. The determinant is read from a
    Cholesky factor, or from singular values where the rows are long for :math:`\epsilon`.

    Args:
        features: (N, D), finite, N >= 2; computed in float64.
        target: (N,) integer labels; they need not be contiguous.
        weighting: ``"frequency"``, w = n_c / n, as the authors' code; ``"equal"``, w = 1 / K, as
            the Transfer-Learning-Library. They differ where the classes do in size.
        normalise_rows: scale the centred rows to length 1, as the authors' code; the other library
            does not.
        epsilon: squared distortion that the code allows, above 0.

    Returns:
        A 0-d float64 tensor, nats; higher is better; 0 for a single class.

    Raises:
        TypeError: if ``features`` are not floating-point or ``target`` not integers.
        ValueError: if an argument does not fit, N < 2, or a feature is not finite.

    Example:
        >>> target = torch.tensor([0, 1, 2])
        >>> trans_rate(torch.eye(3), target, normalise_rows=False, epsilon=1 / 3)
        tensor(0.1438, dtype=torch.float64)

    Source: Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022.
    """
    check_labelled_features(features, target)
    check_choice("weighting", weighting, WEIGHTINGS)
    check_positive("epsilon", epsilon)
    rows = features.detach().double()
    rows = rows - rows.mean(0)
    if normalise_rows:
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        rows = rows / length.where(length > 0, 1.0)
    labels, counts = torch.unique(target, return_counts=True)
    total = _coding_rate(rows, epsilon)
    within = torch.zeros_like(total)
    for label, count in zip(labels, counts, strict=True):
        share = int(count) / len(rows) if weighting == "frequency" else 1.0 / len(labels)
        within = within + share * _coding_rate(rows[target == label], epsilon)
    return total - within


def _coding_rate(rows: Tensor, epsilon: float) -> Tensor:
    n, width = rows.shape
    products = rows @ rows.T if n < width else rows.T @ rows
    matrix = products / (n * epsilon) + torch.eye(len(products)).to(products)
    if float(matrix.trace()) < _LARGEST_TRACE:
        factor: Tensor = torch.linalg.cholesky(matrix)
        return factor.diagonal().log().sum()
    # Squares would drown the small singular values.
    square = torch.linalg.svdvals(rows).square()
    return 0.5 * torch.log1p(square / (n * epsilon)).sum()
