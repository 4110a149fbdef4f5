"""The maximally correlated functions of two discrete variables, by singular value decomposition."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lastlayer._checks import check_count
from lastlayer.functional.dependence.table import dependence_matrix, normalized_joint


class Modes(NamedTuple):
    """Pairs of functions in falling order of their correlation.

    Attributes:
        sigma: (k,) correlations in [0, 1].
        f: (|X|, k) functions of X, or (N, k) their values on N samples.
        g: (|Y|, k) functions of Y, or (N, k) their values on N samples.
    """

    sigma: Tensor
    f: Tensor
    g: Tensor


class Complement(NamedTuple):
    r"""Coordinates for zero-mean functions: the complement of :math:`\sqrt P` by one reflection.

    A function h with :math:`\sum_x P(x) h(x) = 0` is stored as :math:`\sqrt P h`, reflected so
    that the constant function takes the first coordinate, which is left out.

    Attributes:
        root: (M,) square roots of the probabilities of the possible values.
        possible: (M',) bool, which values have probability above 0.
    """

    root: Tensor
    possible: Tensor

    @classmethod
    def of(cls, prob: Tensor) -> Complement:
        """Take in the probabilities, (M',), of a variable."""
        possible = prob > 0
        return cls(prob[possible].sqrt(), possible)

    def coordinates(self, rows: Tensor) -> Tensor:
        """(M', c) columns sqrt(P) h to their (M - 1, c) coordinates."""
        return self._reflect(rows[self.possible])[1:]

    def function(self, coordinates: Tensor) -> Tensor:
        """(M - 1, c) coordinates to the (M', c) functions; 0 at impossible values."""
        rows = torch.cat([torch.zeros_like(coordinates[:1]), coordinates])
        if len(coordinates) == 0:
            rows = coordinates.new_zeros(len(self.root), coordinates.shape[1])
        values = self._reflect(rows) / self.root[:, None]
        full = values.new_zeros(len(self.possible), values.shape[1])
        full[self.possible] = values
        return full

    def _reflect(self, rows: Tensor) -> Tensor:
        axis = self.root.clone()
        axis[0] += 1.0  # every root is positive: no cancellation
        return rows - torch.outer(axis, (2.0 / axis.square().sum()) * (axis @ rows))


def reduced_dependence(joint: Tensor) -> tuple[Tensor, Complement, Complement]:
    """Return the dependence matrix without its constant functions, and the coordinates of X and Y.

    It is (M_x - 1, M_y - 1), M the number of possible values, with the same singular values above
    0; the coordinates turn its singular vectors into functions.
    """
    table = normalized_joint(joint)
    of_x, of_y = Complement.of(table.sum(1)), Complement.of(table.sum(0))
    matrix = of_x.coordinates(dependence_matrix(table))
    return of_y.coordinates(matrix.T).T, of_x, of_y


def dependence_modes(joint: Tensor, num_modes: int | None = None) -> Modes:
    r"""Functions of X and of Y in falling order of their correlation.

    With :math:`\tilde B = \sum_i \sigma_i \phi_i \psi_i^\top` (:func:`dependence_matrix`),

    .. math:: f_i^*(x) = \phi_i(x) / \sqrt{P(x)}, \qquad g_i^*(y) = \psi_i(y) / \sqrt{P(y)}

    have mean 0 and variance 1, are uncorrelated among themselves, and
    :math:`\operatorname{E} f_i^* g_j^* = \sigma_i \delta_{ij}`,
    :math:`\operatorname{E}[g_i^*(Y) \mid X = x] = \sigma_i f_i^*(x)`. Modes of equal correlation
    are defined up to a rotation; of each pair's two signs, the one is taken that makes the largest
    entry of :math:`\phi_i` positive (the first of several).

    Args:
        joint: (|X|, |Y|) probabilities or counts, rows X, columns Y.
        num_modes: number k of modes; None for all, one less than the smaller number of values of
            probability above 0.

    Returns:
        The :class:`Modes` in float64; functions are 0 at values of probability 0.

    Raises:
        ValueError: if ``joint`` is no table of probabilities or counts, or has fewer modes.

    Example:
        >>> modes = dependence_modes(torch.tensor([[0.4, 0.1], [0.1, 0.4]]))
        >>> modes.sigma
        tensor([0.6000], dtype=torch.float64)
        >>> modes.f.T.round(decimals=6)
        tensor([[ 1., -1.]], dtype=torch.float64)

    Source: Huang, Makur, Wornell, Zheng, arXiv 1911.09105.
    """
    matrix, of_x, of_y = reduced_dependence(joint)
    k = available_modes(matrix, num_modes)
    left, sigma, right = torch.linalg.svd(matrix, full_matrices=False)
    return signed_modes(sigma[:k], left[:, :k], right.T[:, :k], of_x, of_y)


def maximal_correlation(joint: Tensor) -> Tensor:
    r"""Hirschfeld-Gebelein-Rényi maximal correlation of two discrete variables.

    .. math:: \rho(X, Y) = \sup_{f, g} \operatorname{E}[f(X) g(Y)] = \sigma_1

    over functions of mean 0 and variance 1.

    Args:
        joint: (|X|, |Y|) probabilities or counts.

    Returns:
        A 0-d float64 tensor in [0, 1]; 0 if either variable has one possible value.

    Raises:
        ValueError: if ``joint`` is no table of probabilities or counts.

    Example:
        >>> round(maximal_correlation(torch.eye(2)).item(), 9)
        1.0
    """
    sigma = dependence_modes(joint).sigma
    return sigma[0] if len(sigma) else sigma.new_zeros(())


def available_modes(matrix: Tensor, num_modes: int | None) -> int:
    """Return ``num_modes``, or all that a reduced matrix has; raise if it has fewer."""
    available = min(matrix.shape)
    if num_modes is None:
        return available
    check_count("num_modes", num_modes)
    if num_modes > available:
        raise ValueError(
            f"num_modes must be at most {available}, one less than the smaller number of values "
            f"of probability above 0; got {num_modes}"
        )
    return num_modes


def signed_modes(
    sigma: Tensor, left: Tensor, right: Tensor, of_x: Complement, of_y: Complement
) -> Modes:
    """Turn singular vectors in coordinates into functions, with the signs fixed."""
    f, g = of_x.function(left), of_y.function(right)
    sign = column_signs(f[of_x.possible] * of_x.root[:, None])
    return Modes(sigma.clamp(0.0, 1.0), f * sign, g * sign)


def column_signs(columns: Tensor) -> Tensor:
    """Return (k,) signs of the largest entries; of entries equal but for rounding, the first."""
    if columns.shape[1] == 0:
        return columns.new_ones(0)
    size = columns.abs()
    first = (size >= size.amax(0) * (1 - 1e-9)).int().argmax(0, keepdim=True)
    return torch.where(columns.gather(0, first)[0] < 0, -1.0, 1.0).to(columns)
