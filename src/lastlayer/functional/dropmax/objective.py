r"""DropMax's training objective in one pass: all terms, and their gradients in closed form.

The same values as the functions of :mod:`lastlayer.functional.dropmax` composed, at a fraction of
the passes over the (N, K) arrays and of what is kept for the backward pass. With the noise
:math:`L`, :math:`\gamma = a + r`, :math:`z = \sigma((\gamma + L) / \tau)`, :math:`q =
\sigma(\gamma)`, :math:`\rho = \sigma(a)`, for :math:`k \ne t`:

================  ==============================  ======================  ====================
term              logits                          retain logits           correction logits
================  ==============================  ======================  ====================
nll               :math:`p_k`                     0                       :math:`c_k`
kl                0                               :math:`\rho_k - q_k`    :math:`q_k(1-q_k)r_k`
entropy           0                               :math:`\rho_k(1-\rho_k)a_k`  0
auxiliary         0                               0                       :math:`\sigma(r_k)`
================  ==============================  ======================  ====================

with :math:`c_k = p_k (1 - z_k) z_k / ((z_k + \epsilon) \tau)`; at the target the entries are
:math:`p_t - 1`, :math:`\rho_t - 1`, 0, :math:`\rho_t(1-\rho_t)a_t` and :math:`\sigma(r_t) - 1`.
Where masks come from the prior, :math:`r = 0` and :math:`c_k` goes to the retain logits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lastlayer._checks import in_torch_func
from lastlayer.functional.autograd import Function
from lastlayer.functional.dropmax.masks import concrete_log_mask, retain_target
from lastlayer.functional.dropmax.probability import masked_log_prob
from lastlayer.functional.dropmax.terms import (
    auxiliary_loss,
    bernoulli_kl,
    negative_entropy,
    target_retention_loss,
)
from lastlayer.functional.numerics import softplus

# Below this, eps added to a float32 probability is no longer a normal number.
SMALLEST_EPS = 1e-30
# Up to so many numbers one call on a joint array is cheaper than a call each.
SMALL = 2**14


class ObjectiveRows(NamedTuple):
    """The objective's terms per row, (N,) each, unweighted."""

    nll: Tensor
    kl: Tensor
    entropy: Tensor
    auxiliary: Tensor


def objective_rows(
    logits: Tensor,
    retain_logits: Tensor,
    correction_logits: Tensor | None,
    target: Tensor,
    noise: Tensor,
    *,
    temperature: float = 0.1,
    eps: float = 1e-20,
) -> ObjectiveRows:
    """Return all terms of DropMax's objective for one relaxed mask per row (form ``"neurips"``).

    Args:
        logits: (N, K) class logits.
        retain_logits: (N, K) prior retain logits.
        correction_logits: (N, K) correction logits, or None to draw masks from the prior.
        target: (N,) int64 class indices in [0, K).
        noise: (N, K) logistic noise of the masks.
        temperature: above 0.
        eps: at least 1e-30.

    Returns:
        ``ObjectiveRows``; ``auxiliary`` is 0 where masks come from the prior. Differentiable
        twice; only the first derivative is fast.

    Example:
        >>> zeros = torch.zeros(1, 3)
        >>> rows = objective_rows(zeros, zeros, zeros, torch.tensor([0]), zeros)
        >>> round(float(rows.kl + rows.entropy + rows.auxiliary), 4)  # log 2
        0.6931

    Source: DropMax (NeurIPS 2018), the objective; gradients derived here.
    """
    if in_torch_func():  # the function of its own has no rules for vmap and forward mode
        given = (logits, retain_logits, correction_logits, target, noise)
        return composed_rows(*given, temperature, eps)
    out = _Objective.apply(  # type: ignore[no-untyped-call]
        logits, retain_logits, correction_logits, target, noise, temperature, eps
    )
    return ObjectiveRows(*out[:4])


def composed_rows(
    logits: Tensor,
    retain_logits: Tensor,
    correction_logits: Tensor | None,
    target: Tensor,
    noise: Tensor,
    temperature: float,
    eps: float,
) -> ObjectiveRows:
    """Return the same from :mod:`lastlayer.functional.dropmax`'s functions, one by one."""
    if correction_logits is None:
        posterior = retain_logits
        kl = target_retention_loss(retain_logits, target)
        auxiliary = torch.zeros_like(kl)
    else:
        posterior = retain_logits.detach() + correction_logits
        kl = bernoulli_kl(correction_logits, retain_logits, target)
        auxiliary = auxiliary_loss(correction_logits, target)
    log_mask = concrete_log_mask(posterior, temperature=temperature, noise=noise)
    log_prob = masked_log_prob(logits, retain_target(log_mask, target), eps=eps)
    nll = -log_prob.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return ObjectiveRows(nll, kl, negative_entropy(retain_logits), auxiliary)


class _Folded(NamedTuple):
    """A logit told by both its outcomes, so that neither tail cancels."""

    prob: Tensor  # sigmoid(x)
    rest: Tensor  # sigmoid(-x)
    log_common: Tensor  # log of the larger of both, in [-log 2, 0]


def _fold(x: Tensor) -> _Folded:
    prob, rest = x.sigmoid(), x.neg().sigmoid_()
    return _Folded(prob, rest, torch.maximum(prob, rest).log_())


def _fold_each(*logits: Tensor) -> list[_Folded]:
    if sum(x.numel() for x in logits) > SMALL:
        return [_fold(x) for x in logits]
    return [_Folded(*parts) for parts in zip(*_fold(torch.stack(logits)), strict=True)]


class _Objective(Function):
    """Terms forward; every term's gradient is known then and kept for the backward pass."""

    @staticmethod
    def forward(
        logits: Tensor,
        retain_logits: Tensor,
        correction: Tensor | None,
        target: Tensor,
        noise: Tensor,
        temperature: float,
        eps: float,
    ) -> tuple[Tensor, ...]:
        index = target.unsqueeze(-1)
        posterior_logits = retain_logits if correction is None else retain_logits + correction
        nll, prob, mask_gradient = _masked_nll(
            logits, posterior_logits, index, noise, temperature, eps
        )
        at_target = retain_logits.gather(-1, index)
        target_kl = softplus(-at_target)
        if correction is None:
            prior = _fold(retain_logits)
            kl, auxiliary = target_kl.squeeze(-1), torch.zeros_like(nll)
            kl_prior_gradient = at_target.sigmoid_().sub_(1)
        else:
            prior, posterior, own = _fold_each(retain_logits, posterior_logits, correction)
            rows = (posterior.prob * correction).add_(retain_logits.relu())
            rows.sub_(posterior_logits.relu_()).sub_(prior.log_common).add_(posterior.log_common)
            kl = rows.scatter_(-1, index, target_kl).sum(dim=-1)
            kl_gradient = posterior.rest.mul_(posterior.prob).mul_(correction)
            kl_gradient.scatter_(-1, index, 0.0)
            kl_prior_gradient = prior.prob - posterior.prob.scatter_(-1, index, 1.0)
            auxiliary, auxiliary_gradient = _auxiliary(correction, own, index)
        # rho a - softplus(a) at -|a|, where it has the same value.
        rare = torch.minimum(prior.prob, prior.rest)
        entropy = rare.mul_(retain_logits.abs()).sub_(prior.log_common).sum(dim=-1).neg_()
        entropy_gradient = prior.rest.mul_(prior.prob).mul_(retain_logits)
        return (
            nll,
            kl,
            entropy,
            auxiliary,
            prob,
            mask_gradient,
            entropy_gradient,
            kl_prior_gradient,
            *(() if correction is None else (kl_gradient, auxiliary_gradient)),
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        logits, retain_logits, correction, target, noise, temperature, eps = inputs
        gradients = output[4:]
        ctx.mark_non_differentiable(*gradients)
        ctx.set_materialize_grads(False)
        ctx.has_correction = correction is not None
        given = (logits, retain_logits, target, noise)
        ctx.save_for_backward(*given, *((correction,) if ctx.has_correction else ()), *gradients)
        ctx.temperature, ctx.eps = temperature, eps

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # the gradient itself is to be differentiated
            return _composed_gradients(ctx, upstream[:4])
        rows = [None if g is None else g.unsqueeze(-1) for g in upstream[:4]]
        saved = ctx.saved_tensors
        target, own = saved[2].unsqueeze(-1), saved[5 if ctx.has_correction else 4 :]
        g_nll, g_kl, g_entropy, g_auxiliary = rows
        prob, mask_gradient, entropy_gradient, kl_prior_gradient = own[:4]
        logits_gradient = _scaled(g_nll, prob)
        if logits_gradient is not None and g_nll is not None:
            logits_gradient.scatter_add_(-1, target, -g_nll)
        retain_gradient = _scaled(g_entropy, entropy_gradient)
        if not ctx.has_correction:
            retain_gradient = _plus(retain_gradient, g_nll, mask_gradient)
            if g_kl is not None:
                at_target = g_kl * kl_prior_gradient
                if retain_gradient is None:
                    retain_gradient = torch.zeros_like(prob)
                retain_gradient.scatter_add_(-1, target, at_target)
            return logits_gradient, retain_gradient, None, None, None, None, None
        kl_gradient, auxiliary_gradient = own[4:]
        retain_gradient = _plus(retain_gradient, g_kl, kl_prior_gradient)
        correction_gradient = _plus(_scaled(g_nll, mask_gradient), g_kl, kl_gradient)
        correction_gradient = _plus(correction_gradient, g_auxiliary, auxiliary_gradient)
        return logits_gradient, retain_gradient, correction_gradient, None, None, None, None


def _masked_nll(
    logits: Tensor, posterior: Tensor, index: Tensor, noise: Tensor, temperature: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return nll, class probabilities, and the gradient of nll by the posterior's logits."""
    mask = (posterior + noise).mul_(1 / temperature).sigmoid_().scatter_(-1, index, 1.0)
    weight = mask + eps
    # log of a number that eps keeps from 0: as exact as the log-domain form.
    log_prob = torch.log_softmax(weight.log().add_(logits), dim=-1)
    nll = -log_prob.gather(-1, index).squeeze(-1)
    prob = log_prob.exp_()
    mask_gradient = (1 - mask).mul_(mask).div_(weight).mul_(prob).mul_(1 / temperature)
    return nll, prob, mask_gradient


def _auxiliary(correction: Tensor, folded: _Folded, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the auxiliary loss and its gradient by the correction logits, told twice."""
    rows = correction.relu().sub_(folded.log_common)
    at_target = softplus(-correction.gather(-1, index))
    loss = rows.scatter_(-1, index, at_target).sum(dim=-1)
    gradient = folded.prob
    minus_one = gradient.gather(-1, index) - 1
    return loss, gradient.scatter_(-1, index, minus_one)


def _scaled(scale: Tensor | None, values: Tensor) -> Tensor | None:
    return None if scale is None else scale * values


def _plus(total: Tensor | None, scale: Tensor | None, values: Tensor) -> Tensor | None:
    if scale is None:
        return total
    return scale * values if total is None else total.addcmul_(scale, values)


def _composed_gradients(ctx: Any, upstream: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    logits, retain_logits, target, noise, *rest = ctx.saved_tensors
    correction = rest[0] if ctx.has_correction else None
    given = (logits, retain_logits) if correction is None else (logits, retain_logits, correction)

    def rows(*inputs: Tensor) -> tuple[Tensor, ...]:
        third = inputs[2] if len(inputs) == 3 else None
        return tuple(
            composed_rows(inputs[0], inputs[1], third, target, noise, ctx.temperature, ctx.eps)
        )

    values, pull_back = torch.func.vjp(rows, *given)  # type: ignore[misc]
    filled = tuple(
        torch.zeros_like(value) if g is None else g
        for g, value in zip(upstream, values, strict=True)
    )
    gradients = pull_back(filled)
    third_gradient = gradients[2] if len(gradients) == 3 else None
    return gradients[0], gradients[1], third_gradient, None, None, None, None
