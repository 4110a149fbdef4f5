"""The W-step of ADMM: one symmetric positive definite system for all classes."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from lastlayer.linear_model import block_reductions
from lastlayer.linear_model.problem import SoftmaxProblem
from lastlayer.linear_model.solvers.preconditioner import cholesky

#: More features than this are not factorized: the Gram matrix alone takes 0.5 GB in float64.
FACTORIZED = 8192
#: Most conjugate gradient steps of a W-step.
STEPS = 50


class LeastSquares:
    r"""Solves :math:`(\rho A^\top S A + Q) W = \rho A^\top S T` and for the intercept."""

    def __init__(self, problem: SoftmaxProblem, rho: float) -> None:
        self.problem, self.rho = problem, rho

    def solve(self, features: Tensor, sums: Tensor, start: Tensor) -> Tensor:
        """Return theta from A'ST, (d, K), and 1'ST, (K,); ``start`` is near it."""
        right = self.rho * (features - torch.outer(self.problem.mean, sums))
        weights = self._weights(right, start[: len(right)])
        return self.problem.with_intercept(weights, sums / self.problem.total_weight)

    @abstractmethod
    def _weights(self, right: Tensor, start: Tensor) -> Tensor:
        """Return W of the right side, (d, K)."""


def build_least_squares(problem: SoftmaxProblem, rho: float) -> LeastSquares:
    """Return the solver for the number of features."""
    if problem.rows.num_features <= FACTORIZED:
        return FactorizedLeastSquares(problem, rho)
    return IterativeLeastSquares(problem, rho)


class FactorizedLeastSquares(LeastSquares):
    """By the Cholesky factor, computed once."""

    def __init__(self, problem: SoftmaxProblem, rho: float) -> None:
        super().__init__(problem, rho)
        self.factor = cholesky(problem.penalty.add_to(rho * problem.gram()))

    def _weights(self, right: Tensor, start: Tensor) -> Tensor:
        return torch.cholesky_solve(right, self.factor)


class IterativeLeastSquares(LeastSquares):
    """By conjugate gradients from the last solution, a pass over the rows an iteration."""

    def __init__(self, problem: SoftmaxProblem, rho: float) -> None:
        super().__init__(problem, rho)
        squares = problem.square_sums
        diagonal = rho * squares + problem.penalty.diagonal(squares)
        self.scale = diagonal.clamp_min(1e-12 * float(diagonal.max())).reciprocal().unsqueeze(1)

    def _weights(self, right: Tensor, start: Tensor) -> Tensor:
        weights = start.clone()
        residual = right - self._times(weights)
        scaled = self.scale * residual
        search = scaled.clone()
        product = (residual * scaled).sum(0)
        goal = 1e-12 * (right * self.scale * right).sum(0)
        for _ in range(STEPS):
            if bool((product <= goal).all()):
                break
            along = self._times(search)
            # Every class is a system of its own; a solved one takes steps of 0.
            length = product / (search * along).sum(0).clamp_min(1e-300)
            weights += length * search
            residual -= length * along
            scaled = self.scale * residual
            after = (residual * scaled).sum(0)
            search = scaled + after / product.clamp_min(1e-300) * search
            product = after
        return weights

    def _times(self, weights: Tensor) -> Tensor:
        problem = self.problem
        bias = -(problem.mean @ weights)
        products, sums = problem.rows.reduce(block_reductions.gram_times, weights, bias)
        centered = products - torch.outer(problem.mean, sums)
        return self.rho * centered + problem.penalty.times(weights)
