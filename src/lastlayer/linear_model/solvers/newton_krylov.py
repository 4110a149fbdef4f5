"""Inexact Newton: conjugate gradients on products with the Hessian."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lastlayer.linear_model.problem import SoftmaxProblem
from lastlayer.linear_model.solvers.lbfgs import line_search
from lastlayer.linear_model.solvers.preconditioner import Preconditioner, choose_kind
from lastlayer.linear_model.solvers.progress import Progress, inner


def solve_newton_krylov(
    problem: SoftmaxProblem,
    theta: Tensor,
    progress: Progress,
    *,
    max_iter: int,
    max_products: int = 200,
    preconditioner: str = "auto",
) -> Tensor:
    r"""Minimise from theta; each iteration costs a pass, and one for each Hessian product.

    The residual of the Newton system may be :math:`\min(0.3, \sqrt{|g| / |g_0|})` of the gradient,
    both in the norm of the preconditioner.

    Args:
        problem: what to minimise.
        theta: where to start.
        progress: stopping rule and history.
        max_iter: most Newton steps.
        max_products: most Hessian products for one step.
        preconditioner: ``"gram"``, ``"diagonal"``, ``"none"``, or ``"auto"`` by cost.

    Returns:
        The best theta.
    """
    scale = Preconditioner(problem, choose_kind(problem, preconditioner))
    here = problem.evaluate(theta, keep=True)
    first: float | None = None
    if progress.note(here):
        return theta
    for _ in range(max_iter):
        scale.update(here.curvature)
        size = math.sqrt(max(0.0, inner(here.gradient, scale(here.gradient))))
        first = first or size
        if size == 0:
            break
        forcing = min(0.3, math.sqrt(size / first))
        direction = _newton_direction(problem, here.gradient, scale, forcing, max_products)
        slope = inner(here.gradient, direction)
        found = line_search(problem, theta, here, direction, slope, keep=True)
        if found is None:
            break  # rounding hides any further decrease
        step, here = found
        theta = theta + step
        if progress.note(here):
            break
    return theta


def _newton_direction(
    problem: SoftmaxProblem, gradient: Tensor, scale: Preconditioner, forcing: float, most: int
) -> Tensor:
    """Solve H d = -g to the forcing term."""
    direction = torch.zeros_like(gradient)
    residual = -gradient
    scaled = scale(residual)
    search = scaled.clone()
    product = first = inner(residual, scaled)
    for _ in range(most):
        along = problem.hessian_times(search)
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
