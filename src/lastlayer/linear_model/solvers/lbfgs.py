"""Limited-memory BFGS whose start matrix is the inverse of an approximate Hessian."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.linear_model.float32_problem import Float32Problem
from lastlayer.linear_model.problem import Evaluation, SoftmaxProblem
from lastlayer.linear_model.solvers.preconditioner import Preconditioner, choose_kind
from lastlayer.linear_model.solvers.progress import Progress, inner

ARMIJO = 1e-4

#: A step and the evaluation behind it.
Step = tuple[Tensor, Evaluation]


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
    float32: Float32Problem | None = None,
) -> Tensor:
    """Minimize from theta; return the best theta.

    Costs a pass over the rows each iteration, and one for each shortened step. A float32 problem is
    computed with until an iteration gains less than a millionth: its objective has seven digits.
    The pairs and the start matrix stay.
    """
    kind = choose_kind(problem, preconditioner)
    gram = float32.sampled_gram if float32 else problem.sampled_gram
    scale = Preconditioner(problem, kind, gram=gram)
    pairs: deque[Pair] = deque(maxlen=memory)
    used: SoftmaxProblem | Float32Problem = float32 or problem
    here = used.evaluate(theta)
    done = progress.note(here, final=used is problem)
    for _ in range(max_iter):
        if used is float32 and (done or _gained_little(progress)):
            used = problem
            here = problem.evaluate(theta)
            done = progress.note(here)
        if done:
            break
        scale.update(here.curvature)
        direction = -_inverse_times(here.gradient, pairs, scale)
        slope = inner(here.gradient, direction)
        if not slope < 0:
            if not pairs:
                break
            pairs.clear()
            continue
        found = line_search(
            used.evaluate, theta, here, direction, slope, noise=objective_rounding(problem, here)
        )
        if found is None:
            if used is float32:
                done = True
            elif pairs:
                pairs.clear()
            else:
                break  # rounding hides any further decrease
            continue
        step, there = found
        change = there.gradient - here.gradient
        product = inner(step, change)
        if product > torch.finfo(theta.dtype).eps * inner(change, change):
            pairs.append(Pair(step, change, product))
        theta, here = theta + step, there
        done = progress.note(here, final=used is problem)
    return theta


def _gained_little(progress: Progress) -> bool:
    """Return whether the last iteration gained too little for float32 to see."""
    if len(progress.records) < 2:
        return False
    before, last = progress.records[-2].objective, progress.records[-1].objective
    return before - last < 1e-6 * abs(last)


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


def objective_rounding(problem: SoftmaxProblem, here: Evaluation) -> float:
    """Return the size of a rounding error in the objective.

    However small a row's loss is, it is a difference of logits of about 1 or more.
    """
    eps = torch.finfo(here.gradient.dtype).eps
    return 4 * eps * (abs(here.value) + problem.total_weight)


def line_search(
    evaluate: Callable[[Tensor], Evaluation],
    theta: Tensor,
    here: Evaluation,
    direction: Tensor,
    slope: float,
    *,
    noise: float,
) -> Step | None:
    """Return a step that lowers the objective enough, or None if rounding hides it.

    Enough is Armijo's condition. Where the decrease is below rounding the slope tells instead (the
    approximate condition of Hager and Zhang). Each try is the minimizer of the parabola through
    the last one. ``noise`` is the rounding error of the objective.
    """
    length = 1.0
    for _ in range(20):
        step = length * direction
        there = evaluate(theta + step)
        lower = there.value < here.value  # Armijo's share of a tiny step may round to nothing
        if lower and there.value <= here.value + ARMIJO * length * slope:
            return step, there
        near = there.value <= here.value + noise
        if near and abs(inner(there.gradient, direction)) <= 0.8 * abs(slope):
            return step, there
        bend = there.value - here.value - length * slope
        shorter = -slope * length * length / (2 * bend) if bend > 0 else 0.0
        if not 0.1 * length <= shorter <= 0.5 * length:
            shorter = 0.1 * length if shorter < 0.1 * length else 0.5 * length
        length = shorter
    return None
