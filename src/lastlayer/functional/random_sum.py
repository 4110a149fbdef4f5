r"""Expectations over sums of randomly kept terms: one-dimensional quadrature, not 2^K masks.

.. math:: S = B + \sum_k z_k D_k, \qquad z_k \sim \mathrm{Bernoulli}(\rho_k)
    \text{ independent}, \quad \rho = \sigma(a)

Shares :math:`D_k / S` and logarithms :math:`\log S` are integrals of :math:`e^{-sS}` over s, whose
expectation is a product over the terms: :mod:`lastlayer.functional.laplace`. The nodes that its
march leaves out on the left are summed here, from the first two moments of :math:`S`. Gradients
are closed-form sums over the same nodes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lastlayer.functional.laplace import (
    Block,
    Nodes,
    Remaining,
    Rule,
    Terms,
    chunks,
    evaluate,
    march,
)

Sums = tuple[Tensor, ...]


def expected_shares(
    log_gain: Tensor, retain_logits: Tensor, log_base: Tensor, rule: Rule
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Expected share of every random term, and of the base, in their sum.

    .. math:: E \frac{z_k D_k}{S} = \int_0^\infty E[z_k D_k e^{-sS}]\,ds, \qquad
        E \frac{B}{S} = \int_0^\infty B\, E[e^{-sS}]\,ds

    Args:
        log_gain: (N, K) float64 :math:`\log D`; -inf for a term that is not there.
        retain_logits: (N, K) float64 :math:`a`.
        log_base: (N,) float64 :math:`\log B`, with :math:`B + \sum_k D_k \le 1`.
        rule: the quadrature.

    Returns:
        (N, K) and (N,), a row's shares summing to 1 within the rule's error; and (N,) :math:`E S`.
    """
    gain, base = _Shares.apply(log_gain, retain_logits, log_base, rule)
    retain, scale, shift = torch.sigmoid(retain_logits), log_gain.exp(), log_base.exp()
    all_dropped = torch.sigmoid(-retain_logits).prod(-1)
    mean = retain * scale
    mean_sum = mean.sum(-1) + shift
    first, second = rule.missing(1), rule.missing(2)
    # E[X e^{-sS}] = E[X] - s E[X S] for the nodes left of the first one.
    gain = gain + mean * (first - second * (mean_sum.unsqueeze(-1) + scale - mean))
    left = first * (1.0 - all_dropped) - second * (mean_sum - all_dropped * shift)
    return gain, base + all_dropped + shift * left, mean_sum


def expected_log_ratio(
    log_gain: Tensor, retain_logits: Tensor, log_base: Tensor, log_end: Tensor, rule: Rule
) -> Tensor:
    r"""Expected logarithm of a random sum added to a constant.

    .. math:: E \log\Bigl(1 + \frac{S}{\tau}\Bigr)
        = \int_0^\infty \frac{e^{-s\tau}}{s} \bigl(1 - E\,e^{-sS}\bigr)\,ds

    Args:
        log_gain: (N, K) float64 :math:`\log D`; -inf for a term that is not there.
        retain_logits: (N, K) float64 :math:`a`.
        log_base: (N,) float64 :math:`\log B`.
        log_end: (N,) float64 :math:`\log \tau`, with :math:`\tau + B + \sum_k D_k \le 1`.
        rule: the quadrature.

    Returns:
        (N,), at least 0.
    """
    value: Tensor = _LogRatio.apply(log_gain, retain_logits, log_base, log_end, rule)
    retain, scale, end = torch.sigmoid(retain_logits), log_gain.exp(), log_end.exp()
    mean = retain * scale
    mean_sum = mean.sum(-1) + log_base.exp()
    variance = (mean * (scale - mean)).sum(-1)
    # e^{-s tau} - E e^{-s (tau + S)} to second order, for the nodes left of the first one.
    second = end * mean_sum + 0.5 * (mean_sum.square() + variance)
    value = value + rule.missing(1) * mean_sum - rule.missing(2) * second
    return value.clamp_min(0.0)


class _Shares(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, log_gain: Tensor, retain_logits: Tensor, log_base: Tensor, rule: Rule
    ) -> Sums:
        parts = []
        ctx.visited = []
        slices, ctx.work = chunks(log_gain, rule)
        for rows in slices:
            terms = Terms.lay_out(log_gain[rows], retain_logits[rows], log_base[rows], ctx.work)
            no_end = torch.full_like(terms.log_base, -math.inf)
            sums: Sums = ()
            blocks = []
            for block, nodes, left in march(terms, rule, no_end, _without_dropped(terms)):
                sums = _add(sums, _share_sums(terms, nodes, left))
                blocks.append(block)
            parts.append(terms.by_rows(sums, class_wise=1))
            ctx.visited.append((rows, blocks))
        ctx.save_for_backward(log_gain, retain_logits, log_base)
        return _join(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # Differentiable operations throughout: under create_graph they yield second derivatives.
        parts = []
        for rows, blocks in ctx.visited:
            terms = Terms.lay_out(*(tensor[rows] for tensor in ctx.saved_tensors), ctx.work)
            grad_gain = terms.by_class(grads[0][rows])
            grad_base = grads[1][rows].unsqueeze(terms.dim)
            remaining = _without_dropped(terms)
            sums: Sums = ()
            for block in blocks:
                nodes = evaluate(terms, block)
                left = remaining(nodes, block)
                sums = _add(sums, _share_gradients(terms, nodes, left, grad_gain, grad_base))
            parts.append(terms.by_rows(sums, class_wise=2))
        return (*_join(parts), None)


def _without_dropped(terms: Terms) -> Remaining:
    """Phi less the part of the state in which every term is dropped, which has a closed form."""
    dropped = terms.drop.prod(terms.dim, keepdim=True)
    return lambda nodes, block: nodes.transform - dropped * nodes.decay


def _share_sums(terms: Terms, nodes: Nodes, left: Tensor) -> Sums:
    weight = nodes.weight * nodes.growth * nodes.transform
    gain = terms.retain * nodes.scale * terms.over_nodes(nodes.odds, weight)
    return gain, (nodes.weight * nodes.base * left).sum(0)


def _share_gradients(
    terms: Terms, nodes: Nodes, left: Tensor, grad_gain: Tensor, grad_base: Tensor
) -> Sums:
    """Gradients with respect to log D, a, log B of sum(grad_gain gain) + sum(grad_base base)."""
    shape = tuple(nodes.odds.shape)
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


class _LogRatio(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        log_gain: Tensor,
        retain_logits: Tensor,
        log_base: Tensor,
        log_end: Tensor,
        rule: Rule,
    ) -> Tensor:
        parts = []
        ctx.visited = []
        slices, ctx.work = chunks(log_gain, rule)
        with_grad = any(ctx.needs_input_grad)
        for rows in slices:
            terms = Terms.lay_out(log_gain[rows], retain_logits[rows], log_base[rows], ctx.work)
            end_row = log_end[rows].unsqueeze(terms.dim)
            sums: Sums = ()
            blocks = []
            for block, nodes, end in march(terms, rule, end_row, _end_decay(end_row)):
                more: Sums = ((nodes.weight * end * (1.0 - nodes.transform)).sum(0),)
                if with_grad:  # the same nodes serve both, so that backward is a product
                    more = _ratio_gradients(terms, block, nodes, end, end_row) + more
                sums = _add(sums, more)
                blocks.append(block)
            parts.append(terms.by_rows(sums, class_wise=2 if with_grad else 0))
            ctx.visited.append((rows, blocks))
        *slopes, value = _join(parts)
        ctx.save_for_backward(log_gain, retain_logits, log_base, log_end, *slopes)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs, slopes = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
        if torch.is_grad_enabled():  # create_graph: the slopes again, as differentiable operations
            slopes = _LogRatio.slopes(ctx, *inputs)
        by_class = grads[0].unsqueeze(-1)
        return (
            by_class * slopes[0],
            by_class * slopes[1],
            grads[0] * slopes[2],
            grads[0] * slopes[3],
            None,
        )

    @staticmethod
    def slopes(
        ctx: Any, log_gain: Tensor, retain_logits: Tensor, log_base: Tensor, log_end: Tensor
    ) -> Sums:
        parts = []
        for rows, blocks in ctx.visited:
            terms = Terms.lay_out(log_gain[rows], retain_logits[rows], log_base[rows], ctx.work)
            end_row = log_end[rows].unsqueeze(terms.dim)
            remaining = _end_decay(end_row)
            sums: Sums = ()
            for block in blocks:
                nodes = evaluate(terms, block)
                end = remaining(nodes, block)
                sums = _add(sums, _ratio_gradients(terms, block, nodes, end, end_row))
            parts.append(terms.by_rows(sums, class_wise=2))
        return _join(parts)


def _end_decay(log_end: Tensor) -> Remaining:
    return lambda nodes, block: torch.exp(-block.scaled(log_end) * nodes.growth)


def _ratio_gradients(
    terms: Terms, block: Block, nodes: Nodes, end: Tensor, log_end: Tensor
) -> Sums:
    """Gradients of the sum with respect to log D, a, log B and log_end."""
    weight = nodes.weight * end * nodes.transform
    moved = terms.over_nodes(nodes.odds, weight * nodes.growth)
    still = terms.over_nodes(nodes.odds, weight)
    end_scale = block.scaled(log_end) * nodes.growth
    return (
        terms.retain * nodes.scale * moved,
        terms.retain * (weight.sum(0) - still),
        (weight * nodes.base).sum(0),
        -(nodes.weight * end_scale * end * (1.0 - nodes.transform)).sum(0),
    )


def _add(sums: Sums, more: Sums) -> Sums:
    return tuple(a + b for a, b in zip(sums, more, strict=True)) if sums else more


def _join(parts: list[Sums]) -> Sums:
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))
