r"""Sparse softmax maps: sparsemax, 1.5-entmax and the whole alpha-entmax family.

All members answer one question, which distribution fits the logits best under a Tsallis entropy,

.. math::
    \operatorname{entmax}_\alpha(o)
    = \arg\max_{p \in \Delta}\; \langle p, o\rangle - \Omega_\alpha(p)
    = \bigl[(\alpha - 1) o - \tau\bigr]_+^{1/(\alpha - 1)},

and differ from one another in :math:`\alpha` only. The threshold :math:`\tau` is the one number
per row that makes the probabilities sum to 1; this file is about finding it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lastlayer._checks import can_look, check_at_least, check_floating
from lastlayer.functional.autograd import Function


def sparsemax(logits: Tensor, dim: int = -1) -> Tensor:
    r"""Euclidean projection of the logits on the probability simplex, with exact zeros.

    .. math:: p = [o - \tau]_+, \qquad \textstyle\sum_k p_k = 1

    Args:
        logits: (*, K, *) real or -inf; a class at -inf gets probability 0.
        dim: the class dimension.

    Returns:
        Probabilities, shape and dtype of ``logits``; half precision is computed in float32.

    Raises:
        TypeError: if ``logits`` is not floating point.
        ValueError: if ``logits`` has no class dimension or no class.

    Examples:
        >>> sparsemax(torch.tensor([1.0, 0.5, -1.0]))
        tensor([0.7500, 0.2500, 0.0000])

    References:
        Martins and Astudillo, "From Softmax to Sparsemax", ICML 2016, eq. 2.
    """
    return entmax(logits, 2.0, dim)


def entmax15(logits: Tensor, dim: int = -1) -> Tensor:
    r"""Alpha-entmax at alpha 1.5: sparse like sparsemax, smooth at the edge of its support.

    .. math:: p = [o / 2 - \tau]_+^2, \qquad \textstyle\sum_k p_k = 1

    Args:
        logits: (*, K, *) real or -inf; a class at -inf gets probability 0.
        dim: the class dimension.

    Returns:
        Probabilities, shape and dtype of ``logits``; half precision is computed in float32.

    Raises:
        TypeError: if ``logits`` is not floating point.
        ValueError: if ``logits`` has no class dimension or no class.

    Examples:
        >>> entmax15(torch.tensor([1.0, 0.5, -1.0]))
        tensor([0.6740, 0.3260, 0.0000])

    References:
        Peters, Niculae and Martins, "Sparse Sequence-to-Sequence Models", ACL 2019, eq. 9.
    """
    return entmax(logits, 1.5, dim)


def entmax(logits: Tensor, alpha: float, dim: int = -1) -> Tensor:
    r"""The alpha-entmax family: softmax at alpha 1, sparsemax at alpha 2.

    .. math:: p = [(\alpha - 1) o - \tau]_+^{1 / (\alpha - 1)}, \qquad \textstyle\sum_k p_k = 1

    Args:
        logits: (*, K, *) real or -inf; a class at -inf gets probability 0.
        alpha: at least 1; the larger, the sparser. Not differentiated.
        dim: the class dimension.

    Returns:
        Probabilities, shape and dtype of ``logits``; half precision is computed in float32.

    Raises:
        TypeError: if ``logits`` is not floating point.
        ValueError: if ``alpha`` is below 1 or not finite, or ``logits`` has no class.

    Examples:
        >>> entmax(torch.tensor([1.0, 0.5, -1.0]), alpha=1.0)
        tensor([0.5741, 0.3482, 0.0777])
        >>> entmax(torch.tensor([1.0, 0.5, -1.0]), alpha=4.0)
        tensor([1., 0., 0.])

    References:
        Peters, Niculae and Martins, "Sparse Sequence-to-Sequence Models", ACL 2019, eq. 10.
    """
    check_at_least("alpha", alpha, 1.0)
    check_floating("logits", logits)
    if logits.dim() == 0 or logits.shape[dim] == 0:
        raise ValueError(
            f"logits must have at least one class in dim={dim}; got {tuple(logits.shape)}"
        )
    dtype = torch.promote_types(logits.dtype, torch.float32)
    p: Tensor
    rows = logits.to(dtype).movedim(dim, -1)
    if alpha == 1.0:
        p = torch.softmax(rows, dim=-1)
    elif torch.compiler.is_compiling():
        p = _Entmax.apply(rows, float(alpha))  # type: ignore[no-untyped-call]
    else:
        p = _EagerEntmax.apply(rows, float(alpha))  # type: ignore[no-untyped-call]
    return p.movedim(-1, dim).to(logits.dtype)


class _Entmax(Function):
    """The map on the last dimension; its backward is made of differentiable operations on p."""

    @staticmethod
    def forward(logits: Tensor, alpha: float) -> Tensor:
        scaled = (alpha - 1.0) * (logits - logits.amax(-1, keepdim=True))
        if alpha <= 2.0:
            return _probabilities(scaled, _newton_threshold(scaled, alpha), alpha)
        p = _probabilities(scaled, _bisected_threshold(scaled, alpha), alpha)
        # Above alpha 2 the power is steep at 0: one ulp of the threshold shows in the sum.
        return p / p.sum(-1, keepdim=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.alpha = inputs[1]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad_p: Tensor | None) -> tuple[Tensor | None, None]:
        if grad_p is None:
            return None, None
        (p,) = ctx.saved_tensors
        return _jacobian_product(p, grad_p, ctx.alpha), None


class _EagerEntmax(_Entmax):
    """The same with torch.vmap and forward mode, whose rules torch.compile refuses."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        _Entmax.setup_context(ctx, inputs, output)
        ctx.save_for_forward(output)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        (p,) = ctx.saved_tensors
        return _jacobian_product(p, tangent, ctx.alpha)  # it is symmetric

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int, None], logits: Tensor, alpha: float
    ) -> tuple[Tensor, int]:
        batched = logits.movedim(in_dims[0], 0)
        return _EagerEntmax.apply(batched, alpha), 0  # type: ignore[no-untyped-call]


def _jacobian_product(p: Tensor, vector: Tensor, alpha: float) -> Tensor:
    r"""Jacobian times vector: :math:`d (v - \langle d, v\rangle / \sum d)`, d = p^(2 - alpha)."""
    support = p > 0
    if alpha == 2.0:
        d = support.to(p.dtype)
    else:
        # The inner where keeps the derivative of the power finite off the support.
        d = torch.where(support, torch.where(support, p, 1.0).pow(2.0 - alpha), 0.0)
    return d * (vector - (d * vector).sum(-1, keepdim=True) / d.sum(-1, keepdim=True))


# --- the threshold -----------------------------------------------------------------------------
#
# With s = (alpha - 1)(o - max o) <= 0 the base of the power is s - tau, and tau lies in
# [-1, -K^(1 - alpha)]: at the left end the largest class alone has probability 1, at the right end
# no class exceeds 1/K. For alpha 1.5 and 2 the code holds tau itself. Elsewhere it holds
# tau + 1, so that near alpha = 1, where s and tau + 1 both shrink with alpha - 1, log1p keeps all
# digits.


def _probabilities(scaled: Tensor, threshold: Tensor, alpha: float) -> Tensor:
    base = scaled - threshold
    if alpha == 2.0:
        return base.clamp_min(0.0)
    if alpha == 1.5:
        return base.clamp_min(0.0).square()
    return (base.clamp_min(-1.0).log1p() / (alpha - 1.0)).exp()


def _mass_and_slope(scaled: Tensor, threshold: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Sums over classes of p and of p^(2 - alpha)."""
    base = scaled - threshold
    if alpha == 2.0:
        p = base.clamp_min_(0.0)
        return p.sum(-1, keepdim=True), p.sign_().sum(-1, keepdim=True)
    if alpha == 1.5:
        root = base.clamp_min_(0.0)
        slope = root.sum(-1, keepdim=True)
        return root.square_().sum(-1, keepdim=True), slope
    p = (base.clamp_min_(-1.0).log1p() / (alpha - 1.0)).exp()
    tiny = torch.finfo(p.dtype).tiny
    ratio = p / (1.0 + base).clamp_min(tiny)
    return p.sum(-1, keepdim=True), ratio.sum(-1, keepdim=True)


def _newton_threshold(scaled: Tensor, alpha: float) -> Tensor:
    r"""Threshold for 1 < alpha <= 2 by Newton's method from the left.

    The iteration runs on :math:`g(\tau) = \lVert [s - \tau]_+ \rVert_q = 1` with
    q = 1/(alpha - 1) >= 1. A norm is convex, so every iterate stays left of the root; for
    sparsemax, where g is piecewise linear, it ends at the exact root.
    """
    num_classes = scaled.shape[-1]
    start = -1.0 if alpha in (1.5, 2.0) else 0.0
    threshold = torch.full_like(scaled[..., :1], start)
    may_stop_early = can_look(scaled, wait=True)
    for _ in range(_newton_steps(num_classes, alpha, scaled.dtype)):
        mass, slope = _mass_and_slope(scaled, threshold, alpha)
        moved = threshold + (_excess(mass, alpha) / slope).clamp_min(0.0)
        if may_stop_early and not bool((moved > threshold).any()):
            break
        threshold = moved
    return threshold


def _excess(mass: Tensor, alpha: float) -> Tensor:
    """(g - 1) g^(q - 1) in terms of mass = g^q: the Newton step times the slope."""
    if alpha == 2.0:
        return mass - 1.0
    if alpha == 1.5:
        return mass - mass.sqrt()
    return torch.expm1((alpha - 1.0) * mass.log()) * mass.pow(2.0 - alpha)


def _newton_steps(num_classes: int, alpha: float, dtype: torch.dtype) -> int:
    r"""Number of Newton steps that is always enough.

    On a convex decreasing function each step at least quarters residual times slope. Both start at
    no more than :math:`K^{\alpha - 1}` and the slope stays at least 1, so after n steps the
    residual, and with it the error of the threshold, is at most :math:`K^{2(\alpha - 1)} / 4^n`.
    Common rows need about six.
    """
    tolerance = torch.finfo(dtype).eps * (alpha - 1.0)
    return 2 + math.ceil((alpha - 1.0) * math.log2(num_classes) - 0.5 * math.log2(tolerance))


def _bisected_threshold(scaled: Tensor, alpha: float) -> Tensor:
    """Threshold for alpha > 2, where the mass is not convex, by halving its bracket."""
    low = torch.zeros_like(scaled[..., :1])
    width = 1.0 - scaled.shape[-1] ** (1.0 - alpha)
    bits = round(-math.log2(torch.finfo(scaled.dtype).eps))
    for _ in range(bits + 2):
        width *= 0.5
        mass = _probabilities(scaled, low + width, alpha).sum(-1, keepdim=True)
        low = torch.where(mass >= 1.0, low + width, low)
    return low


def tsallis_negentropy(p: Tensor, alpha: float) -> Tensor:
    r"""Negative Tsallis entropy of (*, K) probabilities, the regularizer of alpha-entmax.

    .. math:: \Omega_\alpha(p) = \frac{\sum_k p_k^\alpha - p_k}{\alpha (\alpha - 1)},
        \qquad \Omega_1(p) = \sum_k p_k \log p_k

    Source: Peters, Niculae and Martins, "Sparse Sequence-to-Sequence Models", ACL 2019, eq. 9.
    """
    check_at_least("alpha", alpha, 1.0)
    if alpha == 2.0:
        return 0.5 * (p * (p - 1.0)).sum(-1)
    safe = torch.where(p > 0, p, 1.0)
    if alpha == 1.5:
        return (p * (safe.sqrt() - 1.0)).sum(-1) / 0.75
    if alpha == 1.0:
        return (p * safe.log()).sum(-1)
    return (p * torch.expm1((alpha - 1.0) * safe.log())).sum(-1) / (alpha * (alpha - 1.0))
