r"""Step sizes of stochastic gradient descent from what the rows are like.

The Hessian of the mean loss is about :math:`2 c \, A^\top S A / n`, c the mean curvature of the
loss at the moment (at zero weights 1/K, where 1/2 is the worst case). A batch of b rows adds noise:
if :math:`E[(a a^\top)^2] \preceq R^2 E[a a^\top]`, batches of independent rows have
:math:`E[H_b^2] \preceq 2c (\lambda + R^2 / b) E[H_b]` with :math:`\lambda` the largest eigenvalue
of :math:`E[a a^\top]`. Momentum m adds up the noise of 1 / (1 - m) steps. So the step is

.. math:: \eta = \left[2 c \left(\lambda + h \, \frac{R^2}{b} \left(1 - \frac{b}{n}\right)\right)
    + \frac{q}{n}\right]^{-1}, \qquad h = \max\left(10, \frac{1}{1 - m}\right)

with q the penalty's largest eigenvalue; without momentum the noise is given no more room than with
0.9. The intercept's column of ones is orthogonal to centered features and has a step of its own, as
weights and intercept may differ in scale by much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.linear_model import block_reductions
from lastlayer.linear_model.problem import SoftmaxProblem
from lastlayer.linear_model.rows.memory import LocalRows
from lastlayer.linear_model.rows.protocol import Block

#: Rows that the largest eigenvalue is estimated from.
SAMPLE = 1024
#: Rounds and columns of the power iteration, which then misses some per cent at most.
ROUNDS, COLUMNS = 8, 4
#: Steps whose noise there is room for at least: those that a momentum of 0.9 adds up.
HEADROOM = 10.0


@dataclass(frozen=True)
class RowScale:
    r"""What the rows and their penalty are like, per unit of weight.

    Attributes:
        largest: :math:`\lambda`, largest eigenvalue of the features' second moment.
        noise: :math:`R^2`, the mean fourth power of a row's norm over its mean square.
        intercept_noise: the same of the intercept's column of ones.
        penalty: q / n, largest eigenvalue of the penalty over the weight of all rows.
    """

    largest: float
    noise: float
    intercept_noise: float
    penalty: float

    def rates(self, curvature: float, share: float, momentum: float) -> tuple[float, float]:
        """Return the steps of weights and intercept, of the mean loss.

        ``share`` is (1 - b / n) / b of batches of b of n rows.
        """
        noisy = share * max(HEADROOM, 1 / (1 - momentum))
        weights = 2 * curvature * (self.largest + noisy * self.noise) + self.penalty
        intercept = 2 * curvature * (1 + noisy * self.intercept_noise)
        return 1 / weights if weights > 0 else 0.0, 1 / intercept


def row_scale(problem: SoftmaxProblem, rows: LocalRows) -> RowScale:
    """Return what the rows of a problem are like, by one pass over them and a sample's Gram matrix.

    A row of weight s counts as one of the features times the root of s over the mean weight.
    """
    total = float(problem.class_weight.sum())
    squares = float(problem.square_sums.sum())
    every = max(1, problem.num_rows // SAMPLE)
    fourth = weights = 0.0
    sample = []
    for block in rows:
        own = norms(block, problem.mean)
        weight = torch.ones_like(own) if block.weight is None else block.weight.double()
        fourth += float((weight * own).square().sum())
        weights += float(weight.square().sum())
        index = torch.arange(0, len(own), every, device=own.device)
        picked = None if block.weight is None else block.weight[index]
        sample.append(Block(block.matrix.rows(index), block.target[index], picked))
    ratio = problem.num_rows / total
    mean = squares / total
    largest = _largest_of(problem, LocalRows(sample, rows.dtype, rows.device))
    if not largest <= mean:  # of a sample that has no weight, or by rounding
        largest = mean
    return RowScale(
        largest=largest,
        noise=ratio * fourth / squares if squares > 0 else 0.0,
        intercept_noise=ratio * weights / total,
        penalty=largest_eigenvalue(problem.penalty.times, problem.mean) / total,
    )


def norms(block: Block, mean: Tensor) -> Tensor:
    """Return the squared norms of a block's rows less a mean, (n,) float64."""
    cross = block.matrix.times(mean.unsqueeze(1)).squeeze(1)
    squares = block.matrix.row_squares().double() - 2 * cross.double()
    return (squares + float(mean.double().square().sum())).clamp_min(0.0)


def _largest_of(problem: SoftmaxProblem, sample: LocalRows) -> float:
    """Return the largest eigenvalue of the sample's second moment about the mean of all rows."""
    mean = problem.mean
    (weight,) = sample.reduce(block_reductions.weight_by_class, problem.num_classes)

    def times(columns: Tensor) -> Tensor:
        along, sums = sample.reduce(block_reductions.gram_times, columns, -(mean @ columns))
        return (along - torch.outer(mean, sums)) / weight.sum()

    return largest_eigenvalue(times, mean)


def largest_eigenvalue(times: Callable[[Tensor], Tensor], like: Tensor) -> float:
    """Return about the largest eigenvalue of a positive semidefinite matrix, seldom less.

    ``times`` is its product with a matrix (d, k); ``like``, (d,), gives dtype and device.
    """
    source = torch.Generator().manual_seed(0)
    columns = torch.randn((len(like), COLUMNS), generator=source, dtype=torch.float64).to(like)
    for _ in range(ROUNDS):
        columns = times(torch.linalg.qr(columns).Q)
    basis = torch.linalg.qr(columns).Q
    small = basis.T @ times(basis)
    return float(torch.linalg.eigvalsh(small)[-1]) if bool(small.isfinite().all()) else math.inf
