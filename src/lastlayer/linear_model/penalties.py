"""Quadratic penalties of the weights, and what the solvers need of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from lastlayer._checks import check_at_least, check_count


class Penalty(Protocol):
    r"""A penalty :math:`\tfrac{1}{2} \mathrm{tr}(W^\top Q W)`."""

    def times(self, weights: Tensor) -> Tensor:
        """Return Q W, the penalty's gradient."""

    def add_to(self, gram: Tensor) -> Tensor:
        """Return a Gram matrix (d, d) plus Q."""

    def diagonal(self, like: Tensor) -> Tensor:
        """Return the diagonal of Q, (d,), in the dtype of ``like``."""

    def conjugate(self, gradient: Tensor) -> float:
        r"""Return :math:`\tfrac{1}{2} \mathrm{tr}(M^\top Q^{-1} M)`; infinity if Q is singular."""

    def largest_conjugate(self, norm: float) -> float:
        """Return the largest conjugate of all M of a Frobenius norm."""


class Tikhonov:
    """Q = strength times the identity.

    Args:
        strength: 1/C, at least 0.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def times(self, weights: Tensor) -> Tensor:
        """Return Q W."""
        return self.strength * weights

    def add_to(self, gram: Tensor) -> Tensor:
        """Return a Gram matrix plus Q."""
        total = gram.clone()
        total.diagonal().add_(self.strength)
        return total

    def diagonal(self, like: Tensor) -> Tensor:
        """Return the diagonal of Q."""
        return torch.full_like(like, self.strength)

    def conjugate(self, gradient: Tensor) -> float:
        """Return half the trace of M'Q^-1 M, or infinity."""
        if self.strength == 0:
            return math.inf
        return float(gradient.square().sum()) / (2 * self.strength)

    def largest_conjugate(self, norm: float) -> float:
        """Return half the squared norm over the strength, or infinity."""
        return math.inf if self.strength == 0 else norm * norm / (2 * self.strength)


class Smoothing:
    """Q = strength times L'L.

    Args:
        strength: 1/C, at least 0.
        operator: L, (m, d).
    """

    def __init__(self, strength: float, operator: Tensor) -> None:
        self.matrix = strength * (operator.T @ operator)

    def times(self, weights: Tensor) -> Tensor:
        """Return Q W."""
        return self.matrix @ weights

    def add_to(self, gram: Tensor) -> Tensor:
        """Return a Gram matrix plus Q."""
        return gram + self.matrix

    def diagonal(self, like: Tensor) -> Tensor:
        """Return the diagonal of Q."""
        return self.matrix.diagonal().to(like)

    @cached_property
    def _factor(self) -> Tensor | None:
        factor, info = torch.linalg.cholesky_ex(self.matrix)
        diagonal = factor.diagonal().square()
        # A singular L'L may pass by rounding; its bound would be noise.
        tiny = len(diagonal) * torch.finfo(diagonal.dtype).eps * diagonal.max()
        return None if int(info) or bool((diagonal <= tiny).any()) else factor

    def conjugate(self, gradient: Tensor) -> float:
        """Return half the trace of M'Q^-1 M, or infinity."""
        if self._factor is None:
            return math.inf
        half = torch.linalg.solve_triangular(self._factor, gradient, upper=False)
        return 0.5 * float(half.square().sum())

    @cached_property
    def _least(self) -> float:
        return float(torch.linalg.eigvalsh(self.matrix)[0])

    def largest_conjugate(self, norm: float) -> float:
        """Return half the squared norm over the least eigenvalue, or infinity."""
        if self._factor is None or self._least <= 0:
            return math.inf
        return norm * norm / (2 * self._least)


def discrete_laplacian(shape: Sequence[int], *, identity: float = 0.0) -> Tensor:
    r"""Return the Laplacian on a grid of features, for smooth weights.

    .. math:: (L w)_a = \sum_{b \sim a} (w_a - w_b) + \epsilon w_a

    Neighbors differ by one in one coordinate; there are none across the border, so that constant
    weights cost nothing without the identity. L has as many rows as features.

    Args:
        shape: sides of the grid, such as (height, width); more than one channel is
            ``torch.block_diag`` of one Laplacian a channel.
        identity: :math:`\epsilon`, at least 0; above 0 makes L'L invertible.

    Returns:
        (d, d) float64, d the product of the sides.

    Raises:
        ValueError: if a side is below 1 or the identity's share below 0.

    Example:
        >>> discrete_laplacian([3])
        tensor([[ 1., -1.,  0.],
                [-1.,  2., -1.],
                [ 0., -1.,  1.]], dtype=torch.float64)

    Source: Fung et al., "ADMM-Softmax", arXiv 1901.09450 (the smoothness regularizer).
    """
    for side in shape:
        check_count("shape", side)
    check_at_least("identity", identity, 0.0)
    total = torch.zeros((1, 1), dtype=torch.float64)
    for side in shape:
        path = torch.zeros((side, side), dtype=torch.float64)
        step = torch.arange(side - 1)
        path[step, step + 1] = path[step + 1, step] = -1.0
        path.diagonal().sub_(path.sum(0))
        # The Laplacian of a product of graphs is the Kronecker sum of theirs.
        size = len(total)
        own, other = torch.eye(side, dtype=torch.float64), torch.eye(size, dtype=torch.float64)
        total = torch.kron(total, own) + torch.kron(other, path)
    return total + identity * torch.eye(len(total), dtype=torch.float64)
