r"""Cheap inverses of an approximate Hessian.

At probabilities p the Hessian of the loss is :math:`\sum_i s_i (\mathrm{diag}\,p_i - p_i p_i^\top)
\otimes a_i a_i^\top`. With every :math:`\mathrm{diag}\,p - p p^\top` replaced by its mean
curvature c on the differences of classes it is :math:`c A^\top S A`, the same for all
classes: the matrix that ADMM factorizes as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lastlayer.linear_model.problem import SoftmaxProblem, centered

#: Refactor when the curvature has moved by more than this factor.
DRIFT = 1.5
#: A Gram matrix may cost as much as this many passes over the rows.
AFFORDABLE_PASSES = 24


class Preconditioner:
    """The inverse of c A'SA + Q, or of its diagonal, at the curvature of the moment.

    ``gram`` computes the Gram matrix of the centered features, or an estimate.
    """

    def __init__(self, problem: SoftmaxProblem, kind: str, gram: Callable[[], Tensor]) -> None:
        self.problem = problem
        self.kind = kind
        self._compute = gram
        self._gram: Tensor | None = None
        self.curvature = 0.0
        self._inverse: Tensor | None = None

    def update(self, curvature: float) -> bool:
        """Follow the curvature; return whether anything changed."""
        low, high = self.curvature / DRIFT, self.curvature * DRIFT
        if self._inverse is not None and low <= curvature <= high:
            return False
        self.curvature = curvature
        if self.kind == "gram":
            if self._gram is None:
                self._gram = self._compute()
            self._inverse = cholesky(self.problem.penalty.add_to(curvature * self._gram))
        elif self.kind == "diagonal":
            squares = self.problem.square_sums
            diagonal = curvature * squares + self.problem.penalty.diagonal(squares)
            floor = 1e-12 * diagonal.max().clamp_min(torch.finfo(diagonal.dtype).tiny)
            self._inverse = diagonal.clamp_min(floor).reciprocal().unsqueeze(1)
        else:
            self._inverse = self.problem.square_sums.new_ones(())
        return True

    def __call__(self, gradient: Tensor) -> Tensor:
        """Return the inverse times a matrix like theta, without what all classes share.

        The loss does not bend along that, so that rounding errors would grow there.
        """
        gradient = centered(gradient)
        if self._inverse is None or self.kind == "none":
            return gradient
        width = self.problem.rows.num_features
        weights = gradient[:width]
        if self.kind == "gram":
            weights = torch.cholesky_solve(weights, self._inverse)
        else:
            weights = self._inverse * weights
        if not self.problem.fit_intercept:
            return weights
        bias = gradient[width:] / (self.curvature * self.problem.total_weight)
        return torch.cat([weights, bias])


def choose_kind(problem: SoftmaxProblem, asked: str = "auto") -> str:
    r"""Return which preconditioner pays.

    The Gram matrix of m rows costs as much as :math:`m d / (2 K n)` passes over all n
    (:math:`2 m d^2` against :math:`4 n d K` operations). It is taken when that is at most 24.
    """
    if asked != "auto":
        return asked
    passes = problem.rows.num_features / (2 * problem.num_classes * problem.sampling)
    return "gram" if passes <= AFFORDABLE_PASSES else "diagonal"


def cholesky(matrix: Tensor) -> Tensor:
    """Return the lower factor of a matrix that is positive definite but for rounding.

    Raises:
        FloatingPointError: if the matrix holds NaN or infinity.
    """
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(matrix)
    shift = torch.finfo(matrix.dtype).eps * float(matrix.diagonal().abs().max())
    shift = max(shift, torch.finfo(matrix.dtype).tiny)
    while int(info):
        shift *= 10
        if not math.isfinite(shift):
            raise FloatingPointError(
                "the Gram matrix is not finite; scale the features, or use float64"
            )
        lifted = matrix.clone()
        lifted.diagonal().add_(shift)
        factor, info = torch.linalg.cholesky_ex(lifted)
    return factor
