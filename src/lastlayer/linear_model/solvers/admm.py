r"""ADMM-Softmax: the linear map and the softmax split from each other.

With :math:`Z = A W + b` as a constraint, its scaled multipliers U and the penalty
:math:`\rho` times the row's weight, an iteration is

1. :math:`W, b` minimize :math:`\tfrac{\rho}{2} \|A W + b - (Z + U)\|_S^2` plus the penalty, by the
   one factor of :math:`\rho A^\top S A + Q`;
2. :math:`Z_i = \mathrm{prox}(h_i - U_i)` for all rows, h being A W + b over-relaxed towards Z;
3. :math:`U \leftarrow U + Z - h`.

Steps 2 and 3 and the sums that the next step 1 needs are one pass over the rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lastlayer.functional.softmax_prox import softmax_prox
from lastlayer.linear_model import block_reductions
from lastlayer.linear_model.problem import SoftmaxProblem, centered
from lastlayer.linear_model.rows.protocol import Block
from lastlayer.linear_model.solvers.lbfgs import solve_lbfgs
from lastlayer.linear_model.solvers.least_squares import build_least_squares
from lastlayer.linear_model.solvers.preconditioner import DRIFT
from lastlayer.linear_model.solvers.progress import Progress

BOUND_EVERY = 5
#: ADMM is slow when its last iterations brought less than this share of all, and of F.
PATIENCE = 5
SLOW = 1e-2


def solve_admm(
    problem: SoftmaxProblem,
    theta: Tensor,
    progress: Progress,
    *,
    max_iter: int,
    rho: float | str = "auto",
    over_relaxation: float = 1.6,
    prox_steps: int = 2,
    polish: bool = True,
) -> Tensor:
    """Minimize from theta by ADMM, one pass over the rows an iteration; return the best theta.

    ``rho`` is the penalty of the constraint; ``"auto"`` is twice the curvature of the loss,
    followed while it drifts by more than 1.5 times. The bound is renewed every fifth iteration.
    With ``polish`` L-BFGS goes on where ADMM has become slow.
    """
    here = problem.evaluate(theta)
    best, least = theta, here.value
    if progress.note(here):
        return theta
    penalty = 2 * here.curvature if rho == "auto" else float(rho)
    system = build_least_squares(problem, penalty)
    features, sums = problem.rows.reduce(start_rows, *problem.split(theta), penalty)
    values = [here.value]
    for iteration in range(max_iter):
        theta = centered(system.solve(features, sums, theta))
        features, sums, loss, curvatures, *residuals = problem.rows.reduce(
            iterate_rows, *problem.split(theta), penalty, over_relaxation, prox_steps
        )
        apart, size, moved, pull = (float(value) for value in residuals)
        primal, dual = (math.sqrt(a / max(b, 1e-300)) for a, b in ((apart, size), (moved, pull)))
        if iteration % BOUND_EVERY == BOUND_EVERY - 1:
            here = problem.evaluate(theta)
        else:
            curvature = problem.mean_curvature(curvatures)
            here = problem.without_gradient(theta, float(loss), curvature)
        if here.value < least:
            best, least = theta, here.value
        if progress.note(here, primal=primal, dual=dual):
            break
        values.append(here.value)
        left = max_iter - iteration - 1
        if polish and left and _slow(values):
            # Looking at the start is L-BFGS's first record.
            return solve_lbfgs(problem, best, progress, max_iter=left - 1)
        wanted = 2 * here.curvature
        if rho == "auto" and not penalty / DRIFT <= wanted <= penalty * DRIFT:
            features, sums = problem.rows.reduce(rescale_rows, penalty / wanted)
            penalty = wanted
            system = build_least_squares(problem, penalty)
    return best


def start_rows(block: Block, weights: Tensor, bias: Tensor, penalty: float) -> tuple[Tensor, ...]:
    """Set Z to the logits and U to what makes it stationary; return the sums for a W-step."""
    logits = block.matrix.times(weights).add_(bias)
    probability = torch.softmax(logits, dim=1)
    multiplier = block_reductions.add_to_labels(block, probability.neg_(), 1)
    block.state.update(split=logits, multiplier=multiplier.div_(penalty))
    return _sums(block)


def iterate_rows(
    block: Block,
    weights: Tensor,
    bias: Tensor,
    penalty: float,
    over_relaxation: float,
    prox_steps: int,
) -> tuple[Tensor, ...]:
    """Take the Z-step and the step of U; return sums for the W-step, loss and residuals."""
    logits = block.matrix.times(weights).add_(bias)
    before, multiplier = block.state["split"], block.state["multiplier"]
    loss, curvature = block_reductions.loss_and_curvature(block, logits)
    relaxed = torch.lerp(before, logits, over_relaxation)
    point = relaxed - multiplier
    split = softmax_prox(point, block.target, penalty, start=before, steps=prox_steps, tol=0.0)
    block.state.update(split=split, multiplier=split - point)
    moved = penalty * (split - before)
    measured = (
        block_reductions.squares(logits - split),
        torch.maximum(block_reductions.squares(logits), block_reductions.squares(split)),
        block_reductions.squares(moved),
        penalty * penalty * block_reductions.squares(block.state["multiplier"]),
    )
    return (*_sums(block), loss, curvature, *measured)


def rescale_rows(block: Block, factor: float) -> tuple[Tensor, ...]:
    """Multiply the scaled multipliers; return the sums for a W-step."""
    block.state["multiplier"] *= factor
    return _sums(block)


def _sums(block: Block) -> tuple[Tensor, ...]:
    values = block.state["split"] + block.state["multiplier"]
    return block_reductions.weighted_sums(block, values)


def _slow(values: list[float]) -> bool:
    """Return whether the last iterations brought little of what all have brought, and of F."""
    if len(values) <= PATIENCE:
        return False
    gained = min(values[:-PATIENCE]) - min(values[-PATIENCE:])
    least = min(values)
    return gained < SLOW * max(values[0] - least, abs(least))
