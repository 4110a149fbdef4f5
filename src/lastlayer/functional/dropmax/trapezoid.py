r"""The Laplace transform of a sum of randomly kept terms, at the nodes of a trapezoid rule.

.. math:: S = B + \sum_k z_k D_k, \qquad z_k \sim \mathrm{Bernoulli}(\rho_k)
    \text{ independent}, \quad \rho = \sigma(a)

.. math:: \Phi(s) = E\, e^{-sS} = e^{-sB} \prod_k \phi_k(s), \qquad
    \phi_k(s) = 1 - \rho_k + \rho_k e^{-s D_k}

Expectations of functions of :math:`S` are integrals of :math:`\Phi` over :math:`x = \log s`. The
trapezoid rule's error is known: under a fixed mask the integrand is a shift of
:math:`s e^{-s}`, so the rule errs by at most :math:`2 |\Gamma(1 + 2 \pi i / h)|` relative to the
true value (4e-10 at step h = 0.4, 1.2e-6 at h = 0.6). The march over nodes goes from left to right,
stops once what is left is below a tolerance, and jumps over intervals on which :math:`\Phi` is
constant. How many nodes it visits depends on the data, so that it runs eagerly and is not exported.

All arithmetic is in float64 and scales are relative: :math:`B + \sum_k D_k \le 1` is expected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# s D stops growing at 600: exp(-600) is 0 for every purpose, while exp that underflows is 40 times
# slower. In a block of a span up to _MAX_SPAN it is enough to cap s D at the first node: terms so
# capped are gone, exp(-40), there already.
_LOG_CAP = math.log(600.0)
_MAX_SPAN = math.log(600.0 / 40.0)
# Nodes with log s below this are no place to look for long constant intervals.
_JUMP_FROM = 10.0
_TINY = 1e-300
# Elements of one block of nodes: on the CPU its temporaries fit the second-level cache.
_BLOCK_ELEMENTS_CPU = 2**17
_BLOCK_ELEMENTS = 2**22
# Small problems take longer blocks, of so many elements and up to so many nodes.
_FEW_ELEMENTS, _MAX_NODES = 2**14, 16
# Below this many classes the rows become the contiguous dimension.
_FEW_CLASSES = 48


class Rule(NamedTuple):
    """A trapezoid rule in log s.

    Attributes:
        step: distance h of the nodes.
        start: s of the first node.
        tolerance: how much may be left beyond the last node.
    """

    step: float
    start: float
    tolerance: float

    def missing(self, order: int) -> float:
        """Sum of h s^order over the nodes before the first one."""
        return self.step * self.start**order / math.expm1(order * self.step)

    def first_block(self) -> int:
        """Nodes up to the s at which exp(-s) falls below the tolerance."""
        return math.ceil(math.log(-math.log(self.tolerance) / self.start) / self.step) + 1

    def later_block(self, elements: int) -> int:
        """Nodes of the blocks after the first, for so many elements a node."""
        return max(1 + int(_MAX_SPAN / self.step), min(_MAX_NODES, _FEW_ELEMENTS // elements))


RULE_FLOAT32 = Rule(step=0.6, start=0.025, tolerance=1e-7)
RULE_FLOAT64 = Rule(step=0.4, start=1.5e-3, tolerance=2e-11)


class Block(NamedTuple):
    """Consecutive nodes.

    Attributes:
        log_start: log s of the first node.
        length: how many nodes.
        step: their distance in log s.
        repeats: (n, 1), how often the last node counts, for those after it at which nothing
            changes; None for once.
    """

    log_start: float
    length: int
    step: float
    repeats: Tensor | None = None

    @property
    def log_last(self) -> float:
        """Log s of the last node."""
        return self.log_start + (self.length - 1) * self.step

    def weight(self, like: Tensor) -> Tensor:
        """(J, 1, 1) or (J, n, 1) weights of the nodes."""
        weight = torch.full_like(like, self.step)
        if self.repeats is not None:
            weight = weight.repeat(1, *self.repeats.shape)
            weight[-1] *= self.repeats
        return weight

    def scaled(self, log_value: Tensor) -> Tensor:
        """S times a quantity at the first node, capped for the sake of the last node."""
        span = self.log_last - self.log_start
        cap = _LOG_CAP - span if span <= _MAX_SPAN else _LOG_CAP
        return torch.exp((log_value + self.log_start).clamp_max(cap))

    def vanishing(self, value: Tensor, growth: Tensor, out: Tensor | None = None) -> Tensor:
        """exp(-s times a quantity) at every node, from its value at the first one."""
        exponent = torch.mul(value, growth, out=out).neg_()
        # Quantities are at most 1, so that the first block never needs this.
        if self.log_last > _LOG_CAP and self.log_last - self.log_start > _MAX_SPAN:
            exponent = exponent.clamp_min_(-math.exp(_LOG_CAP))
        return exponent.exp_()


class Workspace:
    """What marches share: the rule, growth factors, and buffers for a block's temporaries.

    Fresh memory for every temporary would cost more than the arithmetic.
    """

    def __init__(self, rule: Rule, elements: int, device: torch.device) -> None:
        self.rule = rule
        self._buffers = torch.empty(3, elements, dtype=torch.float64, device=device)
        self._views: dict[tuple[int, torch.Size], Tensor] = {}
        self._growth: dict[tuple[int, float], Tensor] = {}

    def growth(self, block: Block) -> Tensor:
        """(J, 1, 1) s relative to the first node of ``block``."""
        key = (block.length, block.step)
        if key not in self._growth:
            index = torch.arange(block.length, dtype=torch.float64, device=self._buffers.device)
            self._growth[key] = torch.exp(block.step * index)[:, None, None]
        return self._growth[key]

    def take(self, index: int, shape: torch.Size) -> Tensor | None:
        """Buffer ``index`` in ``shape``, or None where autograd must own its temporaries."""
        if torch.is_grad_enabled():
            return None
        key = (index, shape)
        if key not in self._views:
            self._views[key] = self._buffers[index, : shape.numel()].view(shape)
        return self._views[key]


class Terms(NamedTuple):
    """One chunk of rows; ``dim`` is the class dimension, 1 of (n, K) or 0 of (K, n)."""

    log_gain: Tensor
    retain: Tensor
    drop: Tensor
    log_base: Tensor
    dim: int
    work: Workspace

    @classmethod
    def lay_out(
        cls, log_gain: Tensor, retain_logits: Tensor, log_base: Tensor, work: Workspace
    ) -> Terms:
        """Take (n, K) log D, (n, K) a and (n,) log B."""
        dim = 1
        if log_gain.shape[1] < _FEW_CLASSES:
            log_gain, retain_logits = log_gain.t().contiguous(), retain_logits.t().contiguous()
            dim = 0
        # drop > 0 even for a class kept for certain, or exp(-sD) / phi would become 0 / 0.
        drop = torch.sigmoid(-retain_logits).clamp_min(_TINY)
        retain = torch.sigmoid(retain_logits)
        return cls(log_gain, retain, drop, log_base.unsqueeze(dim), dim, work)

    def by_class(self, tensor: Tensor) -> Tensor:
        """Exchange (n, K) and the layout of these terms."""
        return tensor if self.dim == 1 else tensor.t()

    def by_rows(self, sums: tuple[Tensor, ...], class_wise: int) -> tuple[Tensor, ...]:
        """Bring results back: the first ``class_wise`` ones to (n, K), the others to (n,)."""
        return tuple(
            self.by_class(tensor) if index < class_wise else tensor.squeeze(self.dim)
            for index, tensor in enumerate(sums)
        )

    def over_nodes(self, values: Tensor, weight: Tensor) -> Tensor:
        """Weighted sum over the nodes."""
        return torch.mul(values, weight, out=self.work.take(2, values.shape)).sum(0)


class Nodes(NamedTuple):
    """The integrands' parts at the J nodes of a block, shapes for ``dim`` 1.

    Attributes:
        growth: (J, 1, 1) s relative to the first node.
        weight: (J, 1, 1) or (J, n, 1) weight of the node in the sum.
        scale: (n, K) s D at the first node.
        odds: (J, n, K) exp(-sD) / phi; times rho, the retain probability under the tilted law. It
            lies in the workspace, where the next block replaces it.
        base: (J, n, 1) sB.
        decay: (J, n, 1) exp(-sB).
        transform: (J, n, 1) Phi.
    """

    growth: Tensor
    weight: Tensor
    scale: Tensor
    odds: Tensor
    base: Tensor
    decay: Tensor
    transform: Tensor


Remaining = Callable[[Nodes, Block], Tensor]


def evaluate(terms: Terms, block: Block) -> Nodes:
    """The integrands' parts at the nodes of ``block``."""
    growth = terms.work.growth(block)
    scale = block.scaled(terms.log_gain)
    first_base = block.scaled(terms.log_base)
    shape = torch.Size((block.length, *scale.shape))
    first, second = terms.work.take(0, shape), terms.work.take(1, shape)
    kept = block.vanishing(scale, growth, out=first)
    factor = torch.addcmul(terms.drop, terms.retain, kept, out=second)
    decay = block.vanishing(first_base, growth)
    transform = factor.prod(terms.dim + 1, keepdim=True) * decay
    odds = torch.div(kept, factor, out=first)
    base = first_base * growth
    return Nodes(growth, block.weight(growth), scale, odds, base, decay, transform)


def march(
    terms: Terms, log_others: Tensor, remaining: Remaining
) -> Iterator[tuple[Block, Nodes, Tensor]]:
    """Yield blocks of nodes until ``remaining`` is below the tolerance in every row.

    ``log_others`` (n, M) are logarithms of scales, beside those of ``terms``, at which the
    integrand changes.
    """
    rule = terms.work.rule
    block = Block(math.log(rule.start), rule.first_block(), rule.step)
    while True:
        nodes = evaluate(terms, block)
        left = remaining(nodes, block)
        active = left[-1] > rule.tolerance
        finished = not bool(active.any())
        skipped = 0
        if not finished and block.log_last > _JUMP_FROM:
            change = torch.where(active, nodes.transform[0] - nodes.transform[-1], 0.0)
            if float(change.max()) < 1e-3 * rule.tolerance:
                skipped = _constant_nodes(terms, block.log_last, log_others, active)
        if skipped:
            block = block._replace(repeats=1.0 + skipped * active.double())
            nodes = nodes._replace(weight=block.weight(nodes.growth))
        yield block, nodes, left
        if finished:
            return
        following = block.log_last + (1 + skipped) * rule.step
        block = Block(following, rule.later_block(terms.retain.numel()), rule.step)


def _constant_nodes(terms: Terms, log_last: float, log_others: Tensor, active: Tensor) -> int:
    """Nodes after ``log_last`` up to the next scale at which an active row can change."""
    rule = terms.work.rule
    scales = torch.cat([terms.log_gain, terms.log_base], dim=terms.dim)
    # Terms with sD > 1 are past: had they not decayed already, Phi would not be constant.
    terms_ahead = scales.masked_fill(scales + log_last > 0, -math.inf)
    others_ahead = log_others.masked_fill(log_others + log_last > math.log(40.0), -math.inf)
    ahead = torch.cat([terms_ahead, others_ahead], dim=terms.dim).logsumexp(terms.dim, keepdim=True)
    distance = float((math.log(1e-2 * rule.tolerance) - log_last - ahead)[active].min())
    return max(0, int(min(distance, 1e6) / rule.step))


def chunks(like: Tensor, rule: Rule) -> tuple[list[slice], Workspace]:
    """Chunks of the rows of an (N, K) tensor, and a workspace that serves each in turn."""
    rows, classes = like.shape
    limit = _BLOCK_ELEMENTS_CPU if like.device.type == "cpu" else _BLOCK_ELEMENTS
    size = max(1, min(rows, limit // (classes * rule.first_block())))
    nodes = max(rule.first_block(), rule.later_block(size * classes))
    work = Workspace(rule, size * classes * nodes, like.device)
    return [slice(start, start + size) for start in range(0, rows, size)], work
