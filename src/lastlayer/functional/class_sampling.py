r"""Softmax over a random subset of classes: class dropout and sampled softmax.

Both train on :math:`-\log p(t)` with the softmax taken over a random set of classes that always
holds the target t, and both predict with the plain softmax. Class dropout keeps every other class
independently with one probability; sampled softmax keeps a fixed number of them.
"""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from lastlayer._checks import can_look, check_class_indices, check_probability, check_whole
from lastlayer.functional.layout import flatten_classes
from lastlayer.functional.loss_arguments import HardLossArguments, explained, hard_target_loss
from lastlayer.functional.numerics import drawn_by

_NO_SOFT = "a dropped class has log-probability -inf, which no soft target can weigh"


@explained
def masked_cross_entropy(
    logits: Tensor, target: Tensor, mask: Tensor, **arguments: Unpack[HardLossArguments]
) -> Tensor:
    r"""Cross entropy of the softmax over the classes that the mask keeps.

    .. math:: L = \log \sum_{k: z_k = 1} e^{o_k} - o_t

    Args:
        logits: {logits}
        target: {class indices}
        mask: bool of the shape of ``logits``, True for the classes that take part; it must keep
            the target of every row that is not ignored.
        **arguments: {arguments}

    Returns:
        A scalar, or one value per row for ``"none"``.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape, a class index or an option does not fit, or the mask drops a target
            (looked at on the CPU only; elsewhere the loss is infinite).

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0, 0.0]])
        >>> masked_cross_entropy(logits, torch.tensor([0]), torch.tensor([[True, True, False]]))
        tensor(0.1269)
    """
    if mask.shape != logits.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be bool of the logits' shape {tuple(logits.shape)}; "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )

    def row_losses(rows: Tensor, index: Tensor, keep: Tensor | None) -> Tensor:
        allowed = flatten_classes(mask)
        if keep is not None:
            allowed = allowed | ~keep.unsqueeze(-1)
        if can_look(allowed):
            dropped = ~allowed.gather(-1, index.unsqueeze(-1)).squeeze(-1)
            if bool(dropped.any()):
                row = int(dropped.nonzero()[0])
                raise ValueError(
                    f"mask must keep the target of every row; row {row} drops its target "
                    f"{int(index[row])}"
                )
        return _nll_among(allowed, rows, index)

    return hard_target_loss(logits, target, row_losses, no_soft_targets=_NO_SOFT, **arguments)


@explained
def class_dropout_loss(
    logits: Tensor,
    target: Tensor,
    retain_prob: float,
    *,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    **arguments: Unpack[HardLossArguments],
) -> Tensor:
    r"""Cross entropy with every class but the target dropped at random.

    .. math:: L = \log \sum_k z_k e^{o_k} - o_t, \qquad z_t = 1,
        \quad z_k \sim \operatorname{Bernoulli}(\rho)

    A dropped class has log-probability -inf, so soft targets and label smoothing have no meaning.

    Args:
        logits: {logits}
        target: {class indices}
        retain_prob: :math:`\rho` in [0, 1]; 1 gives the plain cross entropy.
        generator: source of the noise, on the device of ``logits``; None for torch's default.
        noise: uniform numbers in [0, 1) of the shape of ``logits`` to use instead.
        **arguments: {arguments}

    Returns:
        A scalar, or one value per row for ``"none"``.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape, a class index or an option does not fit.

    Examples:
        >>> class_dropout_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]), 1.0)
        tensor(0.2395)

    References:
        Lee et al., "DropMax: Adaptive Variational Softmax", NeurIPS 2018 (baseline); "Random
        DropMax" in its first version, arXiv 1712.07834.
    """
    noise_rows = _noise_rows(noise, logits)

    def row_losses(rows: Tensor, index: Tensor, _: Tensor | None) -> Tensor:
        mask = class_dropout_mask(
            index, rows.shape[-1], retain_prob, generator=generator, noise=noise_rows
        )
        return _nll_among(mask, rows, index)

    return hard_target_loss(logits, target, row_losses, no_soft_targets=_NO_SOFT, **arguments)


@explained
def sampled_softmax_loss(
    logits: Tensor,
    target: Tensor,
    num_samples: int,
    proposal: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    **arguments: Unpack[HardLossArguments],
) -> Tensor:
    r"""Cross entropy over the target and a fixed number of sampled negatives.

    .. math:: L = \log \sum_{k \in S} e^{o_k - \log E_k} - (o_t - \log E_t)

    S and the expected counts E are those of :func:`sampled_class_mask`; every row draws its own S.

    Args:
        logits: {logits}
        target: {class indices}
        num_samples: number of negatives, in [0, K - 1]; K - 1 gives the plain cross entropy.
        proposal: (K,) positive weights; None for uniform, where the correction cancels.
        generator: source of the noise, on the device of ``logits``; None for torch's default.
        noise: uniform numbers in [0, 1] of the shape of ``logits`` to use instead.
        **arguments: {arguments}

    Returns:
        A scalar, or one value per row for ``"none"``.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape, a class index or an option does not fit.

    Examples:
        >>> logits, target = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])
        >>> sampled_softmax_loss(logits, target, num_samples=1)
        tensor(0.1269)
        >>> sampled_softmax_loss(logits, target, num_samples=2)
        tensor(0.2395)

    References:
        Jean et al., "On Using Very Large Target Vocabulary for Neural Machine Translation", ACL
        2015, section 3.
    """
    noise_rows = _noise_rows(noise, logits)

    def row_losses(rows: Tensor, index: Tensor, _: Tensor | None) -> Tensor:
        mask, log_expected_count = sampled_class_mask(
            index,
            rows.shape[-1],
            num_samples,
            proposal=proposal,
            generator=generator,
            noise=noise_rows,
        )
        return _nll_among(mask, rows if proposal is None else rows - log_expected_count, index)

    return hard_target_loss(logits, target, row_losses, no_soft_targets=_NO_SOFT, **arguments)


def _noise_rows(noise: Tensor | None, logits: Tensor) -> Tensor | None:
    if noise is None:
        return None
    if noise.shape != logits.shape:
        raise ValueError(
            f"noise must have the logits' shape {tuple(logits.shape)}; got {tuple(noise.shape)}"
        )
    return flatten_classes(noise)


def _nll_among(allowed: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    log_p = rows.masked_fill(~allowed, -torch.inf).log_softmax(-1)
    return -log_p.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def class_dropout_mask(
    target: Tensor,
    num_classes: int,
    retain_prob: float,
    *,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    r"""Draw the classes that take part in the softmax, each with one probability.

    .. math:: z_t = 1, \qquad z_k \sim \operatorname{Bernoulli}(\rho) \text{ for } k \ne t

    Args:
        target: (N,) int64 class indices in [0, K).
        num_classes: K.
        retain_prob: :math:`\rho` in [0, 1].
        generator: source of the noise, on the device of ``target``; None for torch's default.
        noise: (N, K) uniform numbers in [0, 1) to use instead.

    Returns:
        (N, K) bool, True for the classes that take part.

    Raises:
        TypeError: if ``target`` is not int64.
        ValueError: if ``retain_prob``, a class index or the shape of ``noise`` does not fit.

    Examples:
        >>> class_dropout_mask(torch.tensor([0, 2]), num_classes=3, retain_prob=0.0)
        tensor([[ True, False, False],
                [False, False,  True]])

    References:
        Lee et al., "DropMax: Adaptive Variational Softmax", NeurIPS 2018 (baseline).
    """
    check_probability("retain_prob", retain_prob)
    noise = _uniform_noise(target, num_classes, generator, noise)
    return (noise < retain_prob).scatter(-1, target.unsqueeze(-1), True)


def sampled_class_mask(
    target: Tensor,
    num_classes: int,
    num_samples: int,
    *,
    proposal: Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Draw a fixed number of negative classes per row, without replacement.

    Negatives are drawn one after another from the proposal q restricted to the classes that are
    neither the target nor drawn yet, in one step as the largest :math:`\log q_k + g_k` with Gumbel
    noise g. The expected count of a class is its probability to be among the m drawn,

    .. math:: E_k = 1 - e^{-q_k T}, \qquad \textstyle\sum_{k \ne t} E_k = m,

    with the second equation fixing T (the approximation of Rosen, exact for a uniform proposal and
    for m = K - 1, where every E is 1). The target gets the same formula, as if it had been a
    candidate: its correction then is that of any other class, and a uniform one cancels.

    Args:
        target: (N,) int64 class indices in [0, K).
        num_classes: K.
        num_samples: number of negatives m, in [0, K - 1].
        proposal: (K,) positive weights, not necessarily of sum 1; None for uniform.
        generator: source of the noise, on the device of ``target``; None for torch's default.
        noise: (N, K) uniform numbers in [0, 1] to use instead.

    Returns:
        The mask, (N, K) bool, and the log expected counts: (K,) for a uniform proposal, else
        (N, K), for T depends on the target. They are 0 where m is 0.

    Raises:
        TypeError: if ``target`` is not int64.
        ValueError: if ``num_samples``, ``proposal``, a class index or the shape of ``noise`` does
            not fit.

    Examples:
        >>> target = torch.tensor([0, 2])
        >>> mask, log_expected_count = sampled_class_mask(target, num_classes=3, num_samples=1)
        >>> mask.sum(-1)
        tensor([2, 2])
        >>> log_expected_count.exp()
        tensor([0.5000, 0.5000, 0.5000])

    References:
        Jean et al., "On Using Very Large Target Vocabulary for Neural Machine Translation", ACL
        2015. Rosen, "Asymptotic Theory for Order Sampling", J. Stat. Plan. Inference 1997.
    """
    check_whole("num_samples", num_samples, 0, num_classes - 1)
    noise = _uniform_noise(target, num_classes, generator, noise)
    score = noise  # a uniform proposal: Gumbel noise would only relabel the order
    if proposal is not None:
        proposal = _normalized_proposal(proposal, num_classes).to(noise.dtype)
        limits = torch.finfo(noise.dtype)
        # Keep noise of exactly 0 or 1 finite: -inf is left to the target.
        gumbel = -(-noise.clamp(limits.tiny, 1.0 - limits.eps).log()).log()
        score = proposal.log() + gumbel
    score = score.scatter(-1, target.unsqueeze(-1), -torch.inf)
    drawn = score.topk(num_samples, dim=-1, sorted=False).indices
    members = torch.cat((drawn, target.unsqueeze(-1)), dim=-1)
    mask = torch.zeros_like(score, dtype=torch.bool).scatter(-1, members, True)
    return mask, _log_expected_count(target, num_classes, num_samples, proposal, noise.dtype)


def _uniform_noise(
    target: Tensor, num_classes: int, generator: torch.Generator | None, noise: Tensor | None
) -> Tensor:
    """Check target and noise; draw (N, K) uniform numbers in [0, 1) where none are given."""
    if target.dim() != 1:
        raise ValueError(f"target must have shape (N,); got {tuple(target.shape)}")
    check_class_indices(target, num_classes)
    shape = (target.shape[0], num_classes)
    if noise is None:
        return torch.rand(shape, dtype=torch.float32, device=target.device, **drawn_by(generator))
    if noise.shape != shape:
        raise ValueError(f"noise must have shape {shape}; got {tuple(noise.shape)}")
    return noise.to(torch.promote_types(noise.dtype, torch.float32))


def _normalized_proposal(proposal: Tensor, num_classes: int) -> Tensor:
    if proposal.shape != (num_classes,):
        raise ValueError(
            f"proposal must have shape ({num_classes},), one weight per class; "
            f"got {tuple(proposal.shape)}"
        )
    proposal = proposal.detach().to(torch.promote_types(proposal.dtype, torch.float32))
    if can_look(proposal) and not bool(((proposal > 0) & proposal.isfinite()).all()):
        raise ValueError("proposal must hold finite numbers above 0")
    return proposal / proposal.sum()


def _log_expected_count(
    target: Tensor, num_classes: int, num_samples: int, proposal: Tensor | None, dtype: torch.dtype
) -> Tensor:
    if num_samples in (0, num_classes - 1):  # no class is drawn, or every one is
        return torch.zeros(num_classes, dtype=dtype, device=target.device)
    if proposal is None:
        log_count = math.log(num_samples / (num_classes - 1))
        return torch.full((num_classes,), log_count, dtype=dtype, device=target.device)
    horizon = _sampling_horizon(target, num_samples, proposal)
    tiny = torch.finfo(proposal.dtype).tiny
    return torch.log(-torch.expm1(-(proposal * horizon).clamp_min(tiny)))


def _sampling_horizon(target: Tensor, num_samples: int, proposal: Tensor) -> Tensor:
    r"""The (N, 1) times T with :math:`\sum_{k \ne t} e^{-q_k T} = K - 1 - m`.

    Newton's method on the logarithm of both sides. The left side is a log-sum-exp, convex and
    decreasing in T, so the iterates rise to the root from T = 0 without passing it, and each step
    at least quarters residual times slope: 80 steps are enough for any float32 proposal. Where it
    may not stop early, as on an accelerator, it takes 32: proposals 10^36 apart need 24.
    """
    missed = float(proposal.shape[0] - 1 - num_samples)
    others = proposal.expand(target.shape[0], -1).scatter(-1, target.unsqueeze(-1), 0.0)
    horizon = torch.zeros_like(others[:, :1])
    tolerance = 1.0 + 4.0 * torch.finfo(proposal.dtype).eps
    may_stop_early = can_look(others)
    for _ in range(80 if may_stop_early else 32):
        lateness = torch.expm1(-others * horizon)  # 0 for the target, it counts nowhere
        # Of the two sums it is this difference that keeps its digits when m is far below K.
        surplus = num_samples + lateness.sum(-1, keepdim=True)
        excess = torch.log1p(surplus / missed)
        slope = (others * (1.0 + lateness)).sum(-1, keepdim=True) / (missed + surplus)
        moved = horizon + excess.clamp_min(0.0) / slope
        if may_stop_early and not bool((moved > horizon * tolerance).any()):
            break
        horizon = moved
    return horizon
