r"""Expectations over sums of randomly kept terms: one-dimensional quadrature, not 2^K masks.

.. math:: S = B + \sum_k z_k D_k, \qquad z_k \sim \mathrm{Bernoulli}(\rho_k)
    \text{ independent}, \quad \rho = \sigma(a)

Shares :math:`D_k / S` and logarithms :math:`\log S` are integrals of :math:`e^{-sS}` over s, whose
expectation is a product over the terms: :mod:`lastlayer.functional.dropmax.trapezoid`. The nodes
that its march leaves out on the left are summed here, from the first two moments of :math:`S`.
Gradients are closed-form sums over the same nodes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lastlayer.functional.autograd import Function
from lastlayer.functional.dropmax.trapezoid import (
    Block,
    Nodes,
    Remaining,
    Terms,
    Workspace,
    evaluate,
    march,
)
from lastlayer.functional.numerics import softplus

Sums = tuple[Tensor, ...]

_TINY = 1e-250


def expected_shares(
    log_gain: Tensor, retain_logits: Tensor, log_base: Tensor, work: Workspace
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Expected share of every random term, and of the base, in their sum.

    .. math:: E \frac{z_k D_k}{S} = \int_0^\infty E[z_k D_k e^{-sS}]\,ds, \qquad
        E \frac{B}{S} = \int_0^\infty B\, E[e^{-sS}]\,ds

    From (N, K) :math:`\log D`, -inf for a term that is not there, (N, K) :math:`a` and (N,)
    :math:`\log B`, all float64 with :math:`B + \sum_k D_k \le 1`. Returns (N, K) and (N,), a row's
    shares summing to 1 within the rule's error; and (N,) :math:`E S`.
    """
    gain, base = _Shares.apply(log_gain, retain_logits, log_base, work)  # type: ignore[no-untyped-call]
    retain, scale, shift = torch.sigmoid(retain_logits), log_gain.exp(), log_base.exp()
    all_dropped = torch.sigmoid(-retain_logits).prod(-1)
    mean = retain * scale
    mean_sum = mean.sum(-1) + shift
    first, second = work.rule.missing(1), work.rule.missing(2)
    # E[X e^{-sS}] = E[X] - s E[X S] for the nodes left of the first one.
    gain = gain + mean * (first - second * (mean_sum.unsqueeze(-1) + scale - mean))
    left = first * (1.0 - all_dropped) - second * (mean_sum - all_dropped * shift)
    return gain, base + all_dropped + shift * left, mean_sum


def expected_log_ratio(
    log_gain: Tensor, retain_logits: Tensor, log_base: Tensor, log_end: Tensor, work: Workspace
) -> Tensor:
    r"""Expected logarithm of a random sum added to a constant, (N,), at least 0.

    .. math:: E \log\frac{\tau + S}{\tau} = (1 - P_0) \log\frac{\alpha}{\tau}
        + P_0 \log\frac{\tau + B}{\tau} + \int_0^\infty \bigl( (1 - P_0) e^{-s\alpha}
        - e^{-s\tau} (\Phi(s) - P_0 e^{-sB}) \bigr) \frac{ds}{s}

    with :math:`P_0` the probability that every term is dropped. It holds for any :math:`\alpha`;
    the mean of :math:`\tau + S` when a term is kept leaves least to the integral. Arguments are
    those of :func:`expected_shares`, and (N,) :math:`\log \tau` with :math:`\tau + B + \sum_k D_k
    \le 1`.
    """
    retain, scale, shift, end = (
        torch.sigmoid(retain_logits),
        log_gain.exp(),
        log_base.exp(),
        log_end.exp(),
    )
    all_dropped = torch.sigmoid(-retain_logits).prod(-1)
    some_kept = 1.0 - all_dropped
    mean = retain * scale
    mean_sum = mean.sum(-1)
    excess = (mean_sum / some_kept).nan_to_num(1.0).clamp(_TINY, 1.0).add(shift).detach()
    alpha = end.detach() + excess
    inputs = (log_gain, retain_logits, log_base, log_end, alpha.log())
    integral: Tensor = _LogRatio.apply(*inputs, work)  # type: ignore[no-untyped-call]
    # The integrand to second order, for the nodes left of the first one.
    below = end + shift
    order1 = some_kept * (below - alpha) + mean_sum
    variance = (mean * (scale - mean)).sum(-1)
    order2 = some_kept * alpha**2 + all_dropped * below**2 - (below + mean_sum) ** 2 - variance
    integral = integral + work.rule.missing(1) * order1 + 0.5 * work.rule.missing(2) * order2
    # log(alpha / tau), exact where alpha is close to tau; alpha is a constant to the gradient.
    constant = log_end.detach()
    log_alpha = softplus(excess.log() - constant) - (log_end - constant)
    value = some_kept * log_alpha + all_dropped * softplus(log_base - log_end) + integral
    return value.clamp_min(0.0)


class _Shares(Function):
    @staticmethod
    def forward(
        ctx: Any, log_gain: Tensor, retain_logits: Tensor, log_base: Tensor, work: Workspace
    ) -> Sums:
        terms = Terms.lay_out(log_gain, retain_logits, log_base, work)
        no_others = torch.full_like(terms.log_base, -math.inf)
        sums: Sums = ()
        ctx.blocks, ctx.work = [], work
        for block, nodes, left in march(terms, no_others, _without_dropped(terms)):
            weight = nodes.weight * nodes.growth * nodes.transform
            gain = terms.retain * nodes.scale * terms.over_nodes(nodes.odds, weight)
            sums = _add(sums, (gain, (nodes.weight * nodes.base * left).sum(0)))
            ctx.blocks.append(block)
        ctx.save_for_backward(log_gain, retain_logits, log_base)
        return terms.by_rows(sums, class_wise=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # Differentiable operations throughout: under create_graph they yield second derivatives.
        log_gain, retain_logits, log_base = ctx.saved_tensors
        terms = Terms.lay_out(log_gain, retain_logits, log_base, ctx.work)
        grad_gain, grad_base = terms.by_class(grads[0]), grads[1].unsqueeze(terms.dim)
        remaining = _without_dropped(terms)
        sums: Sums = ()
        for block in ctx.blocks:
            nodes = evaluate(terms, block)
            left = remaining(nodes, block)
            sums = _add(sums, _share_gradients(terms, nodes, left, grad_gain, grad_base))
        return (*terms.by_rows(sums, class_wise=2), None)


def _without_dropped(terms: Terms) -> Remaining:
    """Phi less the part of the state in which every term is dropped, which has a closed form."""
    dropped = terms.drop.prod(terms.dim, keepdim=True)
    return lambda nodes, block: nodes.transform - dropped * nodes.decay


def _share_gradients(
    terms: Terms, nodes: Nodes, left: Tensor, grad_gain: Tensor, grad_base: Tensor
) -> Sums:
    """Gradients with respect to log D, a, log B of sum(grad_gain gain) + sum(grad_base base)."""
    shape = nodes.odds.shape
    tilted = torch.mul(nodes.odds, terms.retain, out=terms.work.take(0, shape))
    weight = nodes.weight * nodes.transform
    steep = weight * nodes.growth
    # Phi multiplies every term: its own derivative carries the whole integrand.
    pulled = torch.mul(tilted, grad_gain * nodes.scale, out=terms.work.take(2, shape))
    pulled = pulled.sum(terms.dim + 1, keepdim=True) * nodes.growth
    based = nodes.weight * grad_base * nodes.base
    total = weight * (pulled + grad_base * nodes.base)
    constant = based * (left - nodes.transform)
    through_product = terms.over_nodes(tilted, total)
    own = terms.over_nodes(tilted, steep) * grad_gain - terms.over_nodes(
        tilted, total * nodes.growth
    )
    # The variance of the mask under the tilted law is the derivative of its mean.
    spread = torch.addcmul(tilted, tilted, tilted, value=-1.0, out=terms.work.take(1, shape))
    slope = grad_gain * nodes.scale
    return (
        nodes.scale * (own - slope * terms.over_nodes(spread, steep * nodes.growth)),
        through_product
        - terms.retain * (total + constant).sum(0)
        + slope * terms.over_nodes(spread, steep),
        (based * left - nodes.base * (total + constant)).sum(0),
    )


class _LogRatio(Function):
    @staticmethod
    def forward(
        ctx: Any,
        log_gain: Tensor,
        retain_logits: Tensor,
        log_base: Tensor,
        log_end: Tensor,
        log_alpha: Tensor,
        work: Workspace,
    ) -> Tensor:
        inputs = (log_gain, retain_logits, log_base, log_end, log_alpha)
        ratio = _Ratio.lay_out(inputs, work)
        with_grad = any(ctx.needs_input_grad)
        sums: Sums = ()
        ctx.blocks, ctx.work = [], work
        others = torch.cat([ratio.log_end, ratio.log_alpha], dim=ratio.terms.dim)
        for block, nodes, left in march(ratio.terms, others, ratio.remaining):
            more: Sums = (ratio.value(block, nodes, left),)
            if with_grad:  # the same nodes serve both, so that backward is a product
                more = ratio.slopes(block, nodes, left) + more
            sums = _add(sums, more)
            ctx.blocks.append(block)
        *slopes, value = ratio.terms.by_rows(sums, class_wise=2 if with_grad else 0)
        ctx.save_for_backward(*inputs, *slopes)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: under checkpointing each reading unpacks anew
        inputs, slopes = saved[:5], saved[5:]
        if torch.is_grad_enabled():  # create_graph: the slopes again, as differentiable operations
            ratio = _Ratio.lay_out(inputs, ctx.work)
            sums: Sums = ()
            for block in ctx.blocks:
                nodes = evaluate(ratio.terms, block)
                sums = _add(sums, ratio.slopes(block, nodes, ratio.remaining(nodes, block)))
            slopes = ratio.terms.by_rows(sums, class_wise=2)
        row, by_class = grads[0], grads[0].unsqueeze(-1)
        of_class = (by_class * slopes[0], by_class * slopes[1])
        return (*of_class, row * slopes[2], row * slopes[3], None, None)


class _Ratio(NamedTuple):
    """The integral of :func:`expected_log_ratio` for one chunk of rows."""

    terms: Terms
    log_end: Tensor
    log_alpha: Tensor
    dropped: Tensor

    @classmethod
    def lay_out(cls, inputs: Sums, work: Workspace) -> _Ratio:
        log_gain, retain_logits, log_base, log_end, log_alpha = inputs
        terms = Terms.lay_out(log_gain, retain_logits, log_base, work)
        dropped = terms.drop.prod(terms.dim, keepdim=True)
        return cls(terms, log_end.unsqueeze(terms.dim), log_alpha.unsqueeze(terms.dim), dropped)

    def remaining(self, nodes: Nodes, block: Block) -> Tensor:
        return self.ended(nodes, block) * (nodes.transform - self.dropped * nodes.decay)

    def ended(self, nodes: Nodes, block: Block) -> Tensor:
        return block.vanishing(block.scaled(self.log_end), nodes.growth)

    def compared(self, nodes: Nodes, block: Block) -> Tensor:
        return block.vanishing(block.scaled(self.log_alpha), nodes.growth)

    def value(self, block: Block, nodes: Nodes, left: Tensor) -> Tensor:
        compared = (1.0 - self.dropped) * self.compared(nodes, block)
        return (nodes.weight * (compared - left)).sum(0)

    def slopes(self, block: Block, nodes: Nodes, left: Tensor) -> Sums:
        """Gradients of :meth:`value` with respect to log D, a, log B and log tau."""
        retain, ended = self.terms.retain, self.ended(nodes, block)
        weight = nodes.weight * ended * nodes.transform
        moved = self.terms.over_nodes(nodes.odds, weight * nodes.growth)
        still = self.terms.over_nodes(nodes.odds, weight)
        vanishing = self.dropped * (self.compared(nodes, block) - ended * nodes.decay)
        rest = nodes.weight * left
        return (
            retain * nodes.scale * moved,
            retain * ((weight + nodes.weight * vanishing).sum(0) - still),
            (rest * nodes.base).sum(0),
            (rest * block.scaled(self.log_end) * nodes.growth).sum(0),
        )


def _add(sums: Sums, more: Sums) -> Sums:
    return tuple(a + b for a, b in zip(sums, more, strict=True)) if sums else more
