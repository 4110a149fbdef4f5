"""Inexact Newton: conjugate gradients on products with the Hessian."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lastlayer.linear_model.float32_problem import Float32Problem
from lastlayer.linear_model.problem import Evaluation, SoftmaxProblem
from lastlayer.linear_model.solvers.lbfgs import Step, line_search, objective_rounding
from lastlayer.linear_model.solvers.preconditioner import Preconditioner, choose_kind
from lastlayer.linear_model.solvers.progress import Progress, inner

FLOAT32_FORCING = 1e-3


def solve_newton_krylov(
    problem: SoftmaxProblem,
    theta: Tensor,
    progress: Progress,
    *,
    max_iter: int,
    max_products: int = 200,
    preconditioner: str = "auto",
    float32: Float32Problem | None = None,
) -> Tensor:
    r"""Minimize from theta; return the best theta.

    Each iteration costs a pass, and one for each Hessian product; those are taken of the float32
    problem, if there is one, where that is exact enough. The residual of the Newton system may be
    :math:`\min(0.3, \sqrt{|g| / |g_0|})` of the gradient, both in the norm of the preconditioner.
    """
    kind = choose_kind(problem, preconditioner)
    gram = float32.sampled_gram if float32 else problem.sampled_gram
    scale = Preconditioner(problem, kind, gram=gram)
    here = problem.evaluate(theta, keep=True)
    first: float | None = None

    def search(theta: Tensor, here: Evaluation, direction: Tensor) -> Step | None:
        slope, noise = inner(here.gradient, direction), objective_rounding(problem, here)
        evaluate = partial(problem.evaluate, keep=True)
        return line_search(evaluate, theta, here, direction, slope, noise=noise)

    if progress.note(here):
        return theta
    for _ in range(max_iter):
        scale.update(here.curvature)
        size = math.sqrt(max(0.0, inner(here.gradient, scale(here.gradient))))
        first = first or size
        if size == 0:
            break
        forcing = min(0.3, math.sqrt(size / first))
        # Float32 products are good for a residual of some per mille, not more.
        used = float32 if float32 is not None and forcing > FLOAT32_FORCING else problem
        if used is float32:
            float32.take_probabilities()
        times = used.hessian_times
        direction = _newton_direction(times, here.gradient, scale, forcing, max_products)
        # Where rows are wrong for certain the Hessian says nothing of how far to go.
        tries = (direction, -scale(here.gradient))
        found = next(filter(None, (search(theta, here, one) for one in tries)), None)
        if found is None:
            break  # rounding hides any further decrease
        step, here = found
        theta = theta + step
        if progress.note(here):
            break
    return theta


def _newton_direction(
    times: Callable[[Tensor], Tensor],
    gradient: Tensor,
    scale: Preconditioner,
    forcing: float,
    most: int,
) -> Tensor:
    """Solve H d = -g to the forcing term."""
    direction = torch.zeros_like(gradient)
    residual = -gradient
    scaled = scale(residual)
    search = scaled.clone()
    product = first = inner(residual, scaled)
    for _ in range(most):
        along = times(search)
        bend = inner(search, along)
        if bend <= 0:  # by rounding only: the Hessian is positive semidefinite
            break
        length = product / bend
        direction.add_(search, alpha=length)
        residual = residual.sub(along, alpha=length)
        scaled = scale(residual)
        after = inner(residual, scaled)
        if after <= forcing * forcing * first:
            break
        search = scaled.add(search, alpha=after / product)
        product = after
    return direction if bool(direction.any()) else scale(-gradient)
