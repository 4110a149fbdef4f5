"""Limited-memory BFGS whose start matrix is the inverse of an approximate Hessian."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.linear_model.problem import Evaluation, SoftmaxProblem
from lastlayer.linear_model.solvers.preconditioner import Preconditioner, choose_kind
from lastlayer.linear_model.solvers.progress import Progress, inner

ARMIJO = 1e-4


@dataclass(frozen=True)
class Pair:
    """A step and what it changed of the gradient."""

    step: Tensor
    change: Tensor
    product: float


def solve_lbfgs(
    problem: SoftmaxProblem,
    theta: Tensor,
    progress: Progress,
    *,
    max_iter: int,
    memory: int = 10,
    preconditioner: str = "auto",
) -> Tensor:
    """Minimise from theta: a pass over the rows each iteration, and one for each shortened step.

    Args:
        problem: what to minimise.
        theta: where to start.
        progress: stopping rule and history.
        max_iter: most iterations.
        memory: pairs that are kept.
        preconditioner: ``"gram"``, ``"diagonal"``, ``"none"``, or ``"auto"`` by cost.

    Returns:
        The best theta.
    """
    scale = Preconditioner(problem, choose_kind(problem, preconditioner))
    pairs: deque[Pair] = deque(maxlen=memory)
    here = problem.evaluate(theta)
    if progress.note(here):
        return theta
    for _ in range(max_iter):
        scale.update(here.curvature)
        direction = -_inverse_times(here.gradient, pairs, scale)
        slope = inner(here.gradient, direction)
        if not slope < 0:
            if not pairs:
                break
            pairs.clear()
            continue
        found = line_search(problem, theta, here, direction, slope)
        if found is None:
            if not pairs:
                break  # rounding hides any further decrease
            pairs.clear()
            continue
        step, there = found
        change = there.gradient - here.gradient
        product = inner(step, change)
        if product > torch.finfo(theta.dtype).eps * inner(change, change):
            pairs.append(Pair(step, change, product))
        theta, here = theta + step, there
        if progress.note(here):
            break
    return theta


def _inverse_times(gradient: Tensor, pairs: deque[Pair], scale: Preconditioner) -> Tensor:
    """Return the quasi-Newton direction by the two-loop recursion."""
    result = gradient.clone()
    shares = []
    for pair in reversed(pairs):
        share = inner(pair.step, result) / pair.product
        result.add_(pair.change, alpha=-share)
        shares.append(share)
    result = scale(result)
    if pairs:
        last = pairs[-1]
        result = result * (last.product / inner(last.change, scale(last.change)))
    for pair, share in zip(pairs, reversed(shares), strict=True):
        result.add_(pair.step, alpha=share - inner(pair.change, result) / pair.product)
    return result


def line_search(
    problem: SoftmaxProblem,
    theta: Tensor,
    here: Evaluation,
    direction: Tensor,
    slope: float,
    *,
    keep: bool = False,
) -> tuple[Tensor, Evaluation] | None:
    """Return a step that lowers the objective enough, or None if rounding hides it.

    Enough is Armijo's condition. Where the decrease is below rounding the slope tells instead (the
    approximate condition of Hager and Zhang). Each try is the minimiser of the parabola through
    the last one.
    """
    length = 1.0
    # However small a row's loss is, it is a difference of logits of about 1 or more.
    size = abs(here.value) + problem.total_weight
    rounding = 4 * torch.finfo(theta.dtype).eps * size
    for _ in range(20):
        step = length * direction
        there = problem.evaluate(theta + step, keep=keep)
        lower = there.value < here.value  # Armijo's share of a tiny step may round to nothing
        if lower and there.value <= here.value + ARMIJO * length * slope:
            return step, there
        near = there.value <= here.value + rounding
        if near and abs(inner(there.gradient, direction)) <= 0.8 * abs(slope):
            return step, there
        bend = there.value - here.value - length * slope
        shorter = -slope * length * length / (2 * bend) if bend > 0 else 0.0
        if not 0.1 * length <= shorter <= 0.5 * length:
            shorter = 0.1 * length if shorter < 0.1 * length else 0.5 * length
        length = shorter
    return None
