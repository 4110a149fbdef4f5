"""The same problem in half the bits: twice as fast, and good enough until the last digits."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.linear_model import block_reductions
from lastlayer.linear_model.problem import Evaluation, SoftmaxProblem, centered_gram
from lastlayer.linear_model.rows.matrices import DenseMatrix
from lastlayer.linear_model.rows.memory import LocalRows

#: Below so many products (rows x features x classes) a copy of the features does not pay.
MIN_PRODUCTS = 5e7


class Float32Problem:
    """A float64 problem computed with in float32; theta and what comes back stay in float64.

    Args:
        exact: the problem; its rows must be dense, in float64 and of this process.
    """

    def __init__(self, exact: SoftmaxProblem) -> None:
        if not isinstance(exact.rows, LocalRows):
            raise TypeError("a float32 problem needs rows held by this process")
        self.exact = exact
        self._exact_blocks = exact.rows.blocks
        self._rows = exact.rows.rounded(exact.mean)
        self._mean = torch.zeros_like(exact.mean)

    def evaluate(self, theta: Tensor) -> Evaluation:
        """Return value, bound and gradient of about seven digits."""
        weights, bias = self._single(theta)
        sums = self._rows.reduce(block_reductions.evaluate, weights, bias, False)
        return self.exact.assemble(theta[: len(self._mean)], sums, self._mean)

    def hessian_times(self, direction: Tensor) -> Tensor:
        """Return the Hessian's product with a direction, at the exact problem's last kept point."""
        weights, bias = self._single(direction)
        along, sums = self._rows.reduce(block_reductions.hessian_times, weights, bias)
        along = along + self.exact.penalty.times(direction[: len(self._mean)])
        return self.exact.with_intercept(along, sums)

    def take_probabilities(self) -> None:
        """Take over the probabilities that the exact problem kept."""
        for own, block in zip(self._rows, self._exact_blocks, strict=True):
            own.state["probability"] = block.state["probability"].to(torch.float32)

    def sampled_gram(self) -> Tensor:
        """Return the exact problem's, a float64 sum of float32 products."""
        every = self.exact.sampling
        return every * centered_gram(self._rows.reduce(block_reductions.gram, every), self._mean)

    def _single(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        weights = theta[: len(self._mean)].to(torch.float32)
        bias = theta[-1].to(torch.float32) if self.exact.fit_intercept else weights.new_zeros(())
        return weights, bias


def float32_problem(problem: SoftmaxProblem) -> Float32Problem | None:
    """Return the problem in float32 if it is one in float64 where that pays, else None."""
    rows = problem.rows
    if not (isinstance(rows, LocalRows) and rows.in_memory) or rows.dtype != torch.float64:
        return None
    if not all(isinstance(block.matrix, DenseMatrix) for block in rows.blocks):
        return None
    if problem.num_rows * rows.num_features * problem.num_classes < MIN_PRODUCTS:
        return None
    spread = float(problem.square_sums.max()) / problem.total_weight
    if not 1e-20 < spread < 1e20:  # squares must stay within float32
        return None
    return Float32Problem(problem)
