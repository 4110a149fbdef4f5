"""The proximal step of the softmax loss: every row at once, O(K) a Newton step."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_count, check_positive
from lastlayer.functional.entmax import sparsemax


def softmax_prox(
    point: Tensor,
    target: Tensor,
    penalty: float,
    *,
    start: Tensor | None = None,
    steps: int = 60,
    tol: float | None = None,
) -> Tensor:
    r"""Return what balances the softmax loss of every row against the distance to a point.

    .. math:: z_i = \arg\min_z \; \mathrm{lse}(z) - z_{y_i} + \tfrac{\rho}{2} \|z - v_i\|^2

    Newton's method. The Hessian :math:`\mathrm{diag}(p + \rho) - p p^\top` is inverted by the
    formula of Sherman and Morrison. A step s is shortened to :math:`\log(1 + r) / r` of itself,
    :math:`r = \max s - \min s`: the third derivative of lse along s is at most r times its second,
    so a step so damped never raises the objective, and no search along it is needed.

    Args:
        point: (N, K) points :math:`v`.
        target: (N,) class indices.
        penalty: :math:`\rho` above 0.
        start: (N, K) where to start, such as the last solution. If None, the minimizer with the
            largest entry in the place of lse, by sparsemax: at most log K above the minimum, so
            that few steps do wherever the point is. From afar, a step moves by a logarithm only.
        steps: most steps of Newton's method.
        tol: largest entry of a gradient at which all rows are done; 100 rounding errors if None,
            and 0 takes all steps without looking.

    Returns:
        (N, K) minimizers.

    Raises:
        ValueError: if a shape or range does not fit.

    Example:
        >>> z = softmax_prox(torch.zeros(1, 2), torch.tensor([0]), penalty=1.0)
        >>> bool((torch.softmax(z, 1) + z - torch.tensor([1.0, 0.0])).abs().max() < 1e-6)
        True

    Source: Fung et al., "ADMM-Softmax", arXiv 1901.09450 (the Z-step); the damping is that of
    generalized self-concordant functions, Sun and Tran-Dinh, Mathematical Programming 2019.
    """
    check_positive("penalty", penalty)
    check_count("steps", steps)
    if point.dim() != 2 or target.shape != point.shape[:1]:
        raise ValueError(
            f"point must be (N, K) and target (N,); got {tuple(point.shape)} and "
            f"{tuple(target.shape)}"
        )
    if tol is None:
        tol = 100 * torch.finfo(point.dtype).eps * max(1.0, penalty)
    column = target.unsqueeze(1)
    one = torch.ones((), dtype=point.dtype, device=point.device).expand(column.shape)
    z = _near(point, column, one, penalty) if start is None else start
    for _ in range(steps):
        probability = torch.softmax(z, dim=1)
        gradient = torch.add(probability, z - point, alpha=penalty)
        gradient.scatter_add_(1, column, -one)
        if tol > 0 and bool((gradient.abs() <= tol).all()):
            break
        z = z - _damped(_newton_step(probability, gradient, penalty))
    return z


def _near(point: Tensor, column: Tensor, one: Tensor, penalty: float) -> Tensor:
    """Minimize max(z) - z_y + penalty / 2 |z - v|^2, the limit of a small penalty."""
    dual = sparsemax((penalty * point).scatter_add_(1, column, one))
    return point + dual.neg().scatter_add_(1, column, one) / penalty


def _newton_step(probability: Tensor, gradient: Tensor, penalty: float) -> Tensor:
    inverse = (probability + penalty).reciprocal_()
    scaled = probability * inverse
    # 1 - p'D^-1 p = penalty * sum(p / (p + penalty)): the right side does not cancel.
    rest = penalty * scaled.sum(1, keepdim=True)
    share = (scaled * gradient).sum(1, keepdim=True) / rest
    return inverse.mul_(gradient).addcmul_(scaled, share)


def _damped(step: Tensor) -> Tensor:
    width = step.amax(1, keepdim=True) - step.amin(1, keepdim=True)
    # log(1 + r) / r, 1 at r = 0
    factor = torch.where(width > 0, torch.log1p(width) / width, 1.0)
    return step.mul_(factor)
