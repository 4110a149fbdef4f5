r"""DropMax's exact expectations over all 2^K Bernoulli masks.

Prediction averages the class probabilities, training the cross-entropy, over hard masks
:math:`z_k \sim \mathrm{Bernoulli}(\sigma(a_k))`. Written with weights :math:`X_k`, which are
:math:`A_k` for a kept class and :math:`B_k` for a dropped one,

.. math:: p_y = \frac{X_y}{\sum_k X_k}, \qquad
    \text{neurips: } A = (1 + \epsilon) e^o,\ B = \epsilon e^o, \qquad
    \text{iclr: } A = e^o + \epsilon,\ B = \epsilon,

both are expectations over one random sum, :mod:`lastlayer.functional.dropmax.bernoulli_sum`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_choice, check_class_indices, check_floating, check_positive
from lastlayer.functional.autograd import by_rows
from lastlayer.functional.dropmax.bernoulli_sum import expected_log_ratio, expected_shares
from lastlayer.functional.dropmax.masks import one_hot_mask
from lastlayer.functional.dropmax.probability import FORMS
from lastlayer.functional.dropmax.trapezoid import (
    RULE_FLOAT32,
    RULE_FLOAT64,
    Rule,
    Workspace,
    chunks,
)

_TINY = 1e-300


def expected_log_prob(
    logits: Tensor, retain_logits: Tensor, *, form: str = "neurips", eps: float = 1e-20
) -> Tensor:
    r"""Log of the class probabilities averaged over all masks; any class may drop.

    .. math:: \log E_z\, p(y \mid x, z), \qquad z_k \sim \mathrm{Bernoulli}(\sigma(a_k))

    What is promised is the error of the probability itself: at most 1e-9 for float64 inputs and
    5e-6 for inputs of lower precision. A probability far smaller than that is returned no lower
    than its bound :math:`\rho_y A_y / (A_y + \bar R) + (1 - \rho_y) B_y / (B_y + \bar R)`,
    :math:`\bar R = E \sum_k X_k`, so that its logarithm stays finite. The time is that of a few
    dozen softmaxes. How many nodes the quadrature visits depends on the data: it cannot be
    exported, and breaks the graph under ``torch.compile``. Twice differentiable; memory beyond
    the inputs, outputs and their float64 copies is bounded, except in second derivatives.

    Args:
        logits: (\*, K) class logits :math:`o`.
        retain_logits: (\*, K) retain logits :math:`a`.
        form: where :math:`\epsilon` stands, ``"neurips"`` or ``"iclr"``, see
            :func:`lastlayer.functional.dropmax.masked_log_prob`.
        eps: :math:`\epsilon > 0`.

    Returns:
        (\*, K) log-probabilities, float32 for inputs of lower precision; computed in float64.

    Raises:
        TypeError: if an input is not floating-point.
        ValueError: if the shapes differ, ``form`` is unknown or ``eps`` is not above 0.

    Example:
        >>> expected_log_prob(torch.zeros(2), torch.tensor([0.0, 0.0])).exp()
        tensor([0.5000, 0.5000])

    Source: the exact value of DropMax (ICLR 2018) eq. 17.
    """
    o, a, rule = _prepare(logits, retain_logits, form, eps)
    dtype = _result_dtype(logits, retain_logits)
    if o.numel() == 0 or o.is_meta:
        return (o + a).to(dtype).reshape(logits.shape)

    def of_rows(o: Tensor, a: Tensor) -> Tensor:
        slices, work = chunks(o, rule)
        parts = [_log_prob(o[rows], a[rows], form, eps, work).to(dtype) for rows in slices]
        return torch.cat(parts)

    return by_rows(of_rows, o, a).reshape(logits.shape)


def expected_cross_entropy(
    logits: Tensor,
    retain_logits: Tensor,
    target: Tensor,
    *,
    form: str = "neurips",
    eps: float = 1e-20,
) -> Tensor:
    r"""Cross-entropy averaged over all masks of the other classes; the target is always kept.

    .. math:: E_z[-\log p(t \mid x, z)], \qquad z_t = 1, \quad
        z_k \sim \mathrm{Bernoulli}(\sigma(a_k)) \text{ for } k \ne t

    What is promised is an absolute error of at most 1e-9 for float64 inputs and 5e-6 for inputs of
    lower precision, beside the rounding of the result. The gradient is exact in the same sense
    and is summed in the forward pass. The remarks at :func:`expected_log_prob` hold here too.

    Args:
        logits: (\*, K) class logits :math:`o`.
        retain_logits: (\*, K) retain logits :math:`a` of the masks' law, prior or posterior; the
            target's entry is not used.
        target: (\*) int64 class indices in [0, K).
        form: ``"neurips"`` or ``"iclr"``.
        eps: :math:`\epsilon > 0`.

    Returns:
        (\*) cross-entropies in nats, float32 for inputs of lower precision; computed in float64.

    Raises:
        TypeError: if an input is not floating-point or ``target`` not int64.
        ValueError: if the shapes differ, a label is out of range, ``form`` is unknown or ``eps``
            is not above 0.

    Example:
        >>> expected_cross_entropy(torch.zeros(2), torch.zeros(2), torch.tensor(0))
        tensor(0.3466)

    Source: the exact value of the first term of DropMax's objective.
    """
    o, a, rule = _prepare(logits, retain_logits, form, eps)
    num_classes = logits.shape[-1]
    check_class_indices(target, num_classes)
    if target.shape != logits.shape[:-1]:
        raise ValueError(
            f"target must have shape {tuple(logits.shape[:-1])}; got {tuple(target.shape)}"
        )
    dtype = _result_dtype(logits, retain_logits)
    if num_classes == 1 or o.numel() == 0 or o.is_meta:
        return ((o + a).sum(-1) * 0.0).to(dtype).reshape(target.shape)
    # What is left out may last for some fifty units of log s.
    rule = rule._replace(tolerance=0.02 * rule.tolerance)

    def of_rows(o: Tensor, a: Tensor, target: Tensor) -> Tensor:
        slices, work = chunks(o, rule)
        parts = [
            _cross_entropy(o[rows], a[rows], target[rows], form, eps, work).to(dtype)
            for rows in slices
        ]
        return torch.cat(parts)

    return by_rows(of_rows, o, a, target.reshape(-1)).reshape(target.shape)


def _log_prob(o: Tensor, a: Tensor, form: str, eps: float, work: Workspace) -> Tensor:
    log_base = _log_base(o, form, eps)
    log_total_base = log_base.logsumexp(-1)
    scale = torch.logaddexp(o.logsumexp(-1), log_total_base).detach()
    gain, base, mean = expected_shares(o - scale[:, None], a, log_total_base - scale, work)
    prob = gain + base[:, None] * log_base.softmax(-1)
    prob = prob / prob.sum(-1, keepdim=True)
    log_mean = mean.clamp_min(_TINY).log() + scale
    return _floored_log(prob, o, a, log_base, log_mean, 1e-3 * work.rule.tolerance)


def _cross_entropy(
    o: Tensor, a: Tensor, target: Tensor, form: str, eps: float, work: Workspace
) -> Tensor:
    hit = one_hot_mask(target, o.shape[-1])
    others = o.masked_fill(hit, -math.inf)
    log_base = _log_base(o, form, eps).masked_fill(hit, -math.inf).logsumexp(-1)
    log_target = o.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    if form == "neurips":
        log_target = log_target + math.log1p(eps)
    else:
        log_target = torch.logaddexp(log_target, log_target.new_full((), math.log(eps)))
    scale = torch.logaddexp(torch.logaddexp(others.logsumexp(-1), log_base), log_target).detach()
    return expected_log_ratio(
        others - scale[:, None],
        a.masked_fill(hit, -math.inf),
        log_base - scale,
        log_target - scale,
        work,
    )


def _prepare(
    logits: Tensor, retain_logits: Tensor, form: str, eps: float
) -> tuple[Tensor, Tensor, Rule]:
    check_choice("form", form, FORMS)
    check_positive("eps", eps)
    check_floating("logits", logits)
    check_floating("retain_logits", retain_logits)
    if logits.dim() == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits must have shape (*, K), K >= 1; got {tuple(logits.shape)}")
    if retain_logits.shape != logits.shape:
        raise ValueError(
            f"retain_logits must have the shape of logits, {tuple(logits.shape)}; "
            f"got {tuple(retain_logits.shape)}"
        )
    double = _result_dtype(logits, retain_logits) == torch.float64
    rule = RULE_FLOAT64 if double else RULE_FLOAT32
    num_classes = logits.shape[-1]
    return (
        logits.reshape(-1, num_classes).double(),
        retain_logits.reshape(-1, num_classes).double(),
        rule,
    )


def _result_dtype(logits: Tensor, retain_logits: Tensor) -> torch.dtype:
    return torch.promote_types(
        torch.promote_types(logits.dtype, retain_logits.dtype), torch.float32
    )


def _log_base(o: Tensor, form: str, eps: float) -> Tensor:
    """Logarithm of the classes' weights when dropped, (N, K)."""
    log_eps = math.log(eps)
    return o + log_eps if form == "neurips" else torch.full_like(o, log_eps)


def _floored_log(
    prob: Tensor, o: Tensor, a: Tensor, log_base: Tensor, log_mean: Tensor, threshold: float
) -> Tensor:
    """Logarithm of ``prob``, where it is tiny not below a lower bound that cannot underflow."""
    log_prob = prob.clamp_min(_TINY).log()
    small = prob < threshold
    if not bool(small.any()):
        return log_prob
    impossible = log_base == -math.inf
    row, column = torch.nonzero(small & ~impossible, as_tuple=True)
    # Jensen: X / (X + R) is convex in R, and the mean of all classes bounds that of the others.
    dropped, mean, retain_logit = log_base[row, column], log_mean[row], a[row, column]
    kept = torch.logaddexp(o[row, column], dropped)
    floor = torch.logaddexp(
        F.logsigmoid(retain_logit) + kept - torch.logaddexp(kept, mean),
        F.logsigmoid(-retain_logit) + dropped - torch.logaddexp(dropped, mean),
    )
    computed = log_prob[row, column]
    floored = torch.where(prob[row, column] <= _TINY, floor, torch.maximum(computed, floor))
    return log_prob.masked_fill(impossible, -math.inf).index_put((row, column), floored)
