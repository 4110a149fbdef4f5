"""Joint tables of two discrete variables and their canonical dependence matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_finite, check_labels


def joint_table(
    x: Tensor, y: Tensor, *, num_x: int | None = None, num_y: int | None = None
) -> Tensor:
    r"""Relative frequencies of paired samples.

    .. math:: \hat P(x, y) = \frac{1}{n} \sum_i [x_i = x] [y_i = y]

    Args:
        x: (N,) integers in [0, num_x).
        y: (N,) integers in [0, num_y).
        num_x: number of values of X; None for the largest seen and one.
        num_y: number of values of Y; None for the largest seen and one.

    Returns:
        (num_x, num_y) float64, of sum 1; values that never occur have rows or columns of 0.

    Raises:
        TypeError: if ``x`` or ``y`` does not hold integers.
        ValueError: if there is no sample, the lengths differ or a value is out of range.

    Example:
        >>> joint_table(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1]))
        tensor([[0.2500, 0.2500],
                [0.0000, 0.5000]], dtype=torch.float64)
    """
    check_labels("x", x, x.numel())
    check_labels("y", y, x.numel())
    if x.numel() == 0:
        raise ValueError("x must hold at least one sample; got none")
    rows, columns = _size("x", x, num_x), _size("y", y, num_y)
    counts = torch.bincount(x.long() * columns + y.long(), minlength=rows * columns)
    return counts.double().reshape(rows, columns) / x.numel()


def normalized_joint(joint: Tensor) -> Tensor:
    """Return a table (|X|, |Y|) of probabilities or counts in float64 with sum 1, or raise."""
    if joint.dim() != 2 or joint.numel() == 0:
        raise ValueError(
            f"joint must have shape (|X|, |Y|), neither of them 0; got {tuple(joint.shape)}"
        )
    check_finite("joint", joint)
    table = joint.double()
    total = table.sum()
    if bool((table < 0).any()) or not bool(total > 0):
        raise ValueError(
            "joint must hold probabilities or counts of at least 0, not all of them 0; "
            f"got entries from {float(table.min()):g} to {float(table.max()):g}"
        )
    return table / total


def dependence_matrix(joint: Tensor) -> Tensor:
    r"""Canonical dependence matrix of a joint table.

    .. math:: \tilde B(x, y) = \frac{P(x, y) - P(x) P(y)}{\sqrt{P(x) P(y)}}

    Its squares sum to the chi-square divergence of the table from independence, and
    :math:`\tilde B(x, y) / \sqrt{P(x) P(y)} = e^{\mathrm{pmi}(x, y)} - 1`.

    Args:
        joint: (|X|, |Y|) probabilities or counts, rows X, columns Y; for paired samples see
            :func:`joint_table`.

    Returns:
        (|X|, |Y|) float64; 0 in rows and columns of probability 0. The papers print its transpose.

    Raises:
        ValueError: if ``joint`` is no table of probabilities or counts.

    Example:
        >>> dependence_matrix(torch.tensor([[0.5, 0.0], [0.0, 0.5]]))
        tensor([[ 0.5000, -0.5000],
                [-0.5000,  0.5000]], dtype=torch.float64)

    Source: Huang, Makur, Wornell, Zheng, arXiv 1911.09105.
    """
    table = normalized_joint(joint)
    p_x, p_y = table.sum(1, keepdim=True), table.sum(0, keepdim=True)
    scale = p_x.sqrt() * p_y.sqrt()
    # An impossible value has no dependence: its 0 / 0 is 0.
    possible = scale > 0
    return torch.where(possible, (table - p_x * p_y) / scale.where(possible, 1.0), 0.0)


def _size(name: str, values: Tensor, given: int | None) -> int:
    smallest, largest = (int(bound) for bound in values.aminmax())
    size = largest + 1 if given is None else given
    if smallest < 0 or largest >= size:
        wrong = smallest if smallest < 0 else largest
        raise ValueError(f"{name} must lie in [0, {size - 1}]; got {wrong}")
    return size
