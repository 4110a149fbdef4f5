"""Feature matrices as the solvers see them: products with few columns, and Gram matrices."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Matrix(Protocol):
    """n rows of d features."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, d)."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the products."""

    @property
    def device(self) -> torch.device:
        """Return where the products are."""

    def times(self, weights: Tensor) -> Tensor:
        """Return A W: (n, K) of (d, K)."""

    def transposed_times(self, values: Tensor) -> Tensor:
        """Return A'V: (d, K) of (n, K)."""

    def gram(self, row_weight: Tensor | None) -> Tensor:
        """Return A' diag(s) A, (d, d)."""

    def square_sums(self, row_weight: Tensor | None) -> Tensor:
        """Return the diagonal of the Gram matrix, (d,)."""

    def row_squares(self) -> Tensor:
        """Return the squared norms of the rows, (n,)."""

    def rows(self, index: Tensor) -> Matrix:
        """Return some of the rows."""


class DenseMatrix:
    """A tensor of features, (n, d)."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, d)."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the products."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Return where the products are."""
        return self.values.device

    def times(self, weights: Tensor) -> Tensor:
        """Return A W."""
        return self.values @ weights

    def transposed_times(self, values: Tensor) -> Tensor:
        """Return A'V."""
        return self.values.T @ values

    def gram(self, row_weight: Tensor | None) -> Tensor:
        """Return A' diag(s) A."""
        weighted = self.values if row_weight is None else self.values * row_weight.unsqueeze(1)
        return weighted.T @ self.values

    def square_sums(self, row_weight: Tensor | None) -> Tensor:
        """Return the diagonal of the Gram matrix."""
        if row_weight is None:
            return (self.values * self.values).sum(0)
        return row_weight @ (self.values * self.values)

    def row_squares(self) -> Tensor:
        """Return the squared norms of the rows."""
        return (self.values * self.values).sum(1)

    def rows(self, index: Tensor) -> DenseMatrix:
        """Return some of the rows."""
        return DenseMatrix(self.values[index])


class SparseMatrix:
    """A compressed sparse row matrix of SciPy, (n, d)."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self._columns = values.T.tocsr()  # rows of the transpose: as fast a product

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, d)."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the products."""
        return torch.from_numpy(self.values.data[:0]).dtype

    @property
    def device(self) -> torch.device:
        """Return where the products are."""
        return torch.device("cpu")

    def times(self, weights: Tensor) -> Tensor:
        """Return A W."""
        return torch.from_numpy(self.values @ weights.numpy())

    def transposed_times(self, values: Tensor) -> Tensor:
        """Return A'V."""
        return torch.from_numpy(self._columns @ values.numpy())

    def gram(self, row_weight: Tensor | None) -> Tensor:
        """Return A' diag(s) A."""
        weighted = self.values
        if row_weight is not None:
            weighted = weighted.multiply(row_weight.numpy()[:, None]).tocsr()
        return torch.from_numpy((self._columns @ weighted).toarray())

    def square_sums(self, row_weight: Tensor | None) -> Tensor:
        """Return the diagonal of the Gram matrix."""
        squares = self._columns.multiply(self._columns).tocsr()
        weight = torch.ones(self.shape[0], dtype=self.dtype) if row_weight is None else row_weight
        return torch.from_numpy(squares @ weight.numpy())

    def row_squares(self) -> Tensor:
        """Return the squared norms of the rows."""
        squares = self.values.multiply(self.values).tocsr()
        return torch.from_numpy(squares @ torch.ones(self.shape[1], dtype=self.dtype).numpy())

    def rows(self, index: Tensor) -> SparseMatrix:
        """Return some of the rows."""
        return SparseMatrix(self.values[index.numpy()])
