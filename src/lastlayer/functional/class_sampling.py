r"""Softmax over a random subset of classes: class dropout and sampled softmax.

Both train on :math:`-\log p(t)` with the softmax taken over a random set of classes that always
holds the target t, and both predict with the plain softmax. Class dropout keeps every other class
independently with one probability; sampled softmax keeps a fixed number of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import can_look, check_class_weight
from lastlayer.functional.class_masks import class_dropout_mask, sampled_class_mask
from lastlayer.functional.layout import flatten_classes, flatten_target, float_rows, target_shape
from lastlayer.functional.reduction import reduce_rows, split_ignored

__all__ = [
    "class_dropout_loss",
    "class_dropout_mask",
    "masked_cross_entropy",
    "sampled_class_mask",
    "sampled_softmax_loss",
]


def masked_cross_entropy(
    logits: Tensor,
    target: Tensor,
    mask: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Cross entropy of the softmax over the classes that the mask keeps.

    .. math:: L = \log \sum_{k: z_k = 1} e^{o_k} - o_t

    Args:
        logits: (K,), (N, K) or (N, K, d1, ...); half precision is computed in float32.
        target: int64 class indices, (), (N,) or (N, d1, ...).
        mask: bool of the shape of ``logits``, True for the classes that take part; it must keep
            the target of every row that is not ignored.
        weight: (K,) weight of each class, at least 0.
        ignore_index: class index of the rows that take no part; their mask does not matter.
        reduction: ``"none"``, ``"mean"`` (0 over no row at all) or ``"sum"``.

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
    rows, index, keep = _hard_rows(logits, target, ignore_index)
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
    values = _reduced_nll(rows, index, keep, allowed, weight, reduction)
    return values.reshape(target_shape(logits)) if reduction == "none" else values


def class_dropout_loss(
    logits: Tensor,
    target: Tensor,
    retain_prob: float,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    r"""Cross entropy with every class but the target dropped at random.

    .. math:: L = \log \sum_k z_k e^{o_k} - o_t, \qquad z_t = 1,
        \quad z_k \sim \operatorname{Bernoulli}(\rho)

    A dropped class has log-probability -inf, so soft targets and label smoothing have no meaning.

    Args:
        logits: (K,), (N, K) or (N, K, d1, ...); half precision is computed in float32.
        target: int64 class indices, (), (N,) or (N, d1, ...).
        retain_prob: :math:`\rho` in [0, 1]; 1 gives the plain cross entropy.
        weight: (K,) weight of each class, at least 0.
        ignore_index: class index of the rows that take no part.
        reduction: ``"none"``, ``"mean"`` (0 over no row at all) or ``"sum"``.
        generator: source of the noise, on the device of ``logits``; None for torch's default.
        noise: uniform numbers in [0, 1) of the shape of ``logits`` to use instead.

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
    rows, index, keep = _hard_rows(logits, target, ignore_index)
    mask = class_dropout_mask(
        index,
        rows.shape[-1],
        retain_prob,
        generator=generator,
        noise=_noise_rows(noise, logits),
    )
    values = _reduced_nll(rows, index, keep, mask, weight, reduction)
    return values.reshape(target_shape(logits)) if reduction == "none" else values


def sampled_softmax_loss(
    logits: Tensor,
    target: Tensor,
    num_samples: int,
    proposal: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    r"""Cross entropy over the target and a fixed number of sampled negatives.

    .. math:: L = \log \sum_{k \in S} e^{o_k - \log E_k} - (o_t - \log E_t)

    S and the expected counts E are those of :func:`sampled_class_mask`; every row draws its own S.

    Args:
        logits: (K,), (N, K) or (N, K, d1, ...); half precision is computed in float32.
        target: int64 class indices, (), (N,) or (N, d1, ...).
        num_samples: number of negatives, in [0, K - 1]; K - 1 gives the plain cross entropy.
        proposal: (K,) positive weights; None for uniform, where the correction cancels.
        weight: (K,) weight of each class, at least 0.
        ignore_index: class index of the rows that take no part.
        reduction: ``"none"``, ``"mean"`` (0 over no row at all) or ``"sum"``.
        generator: source of the noise, on the device of ``logits``; None for torch's default.
        noise: uniform numbers in [0, 1] of the shape of ``logits`` to use instead.

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
    rows, index, keep = _hard_rows(logits, target, ignore_index)
    mask, log_expected_count = sampled_class_mask(
        index,
        rows.shape[-1],
        num_samples,
        proposal=proposal,
        generator=generator,
        noise=_noise_rows(noise, logits),
    )
    if proposal is not None:
        rows = rows - log_expected_count
    values = _reduced_nll(rows, index, keep, mask, weight, reduction)
    return values.reshape(target_shape(logits)) if reduction == "none" else values


def _hard_rows(
    logits: Tensor, target: Tensor, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows (M, K), safe class indices (M,) and kept rows (M,), None for all."""
    if target.is_floating_point():
        raise TypeError(
            "target must hold int64 class indices: a dropped class has log-probability -inf, which "
            "no soft target can weigh"
        )
    rows = float_rows(logits)
    index, keep = split_ignored(flatten_target(target, logits), rows.shape[-1], ignore_index)
    return rows, index, keep


def _noise_rows(noise: Tensor | None, logits: Tensor) -> Tensor | None:
    if noise is None:
        return None
    if noise.shape != logits.shape:
        raise ValueError(
            f"noise must have the logits' shape {tuple(logits.shape)}; got {tuple(noise.shape)}"
        )
    return flatten_classes(noise)


def _reduced_nll(
    rows: Tensor,
    index: Tensor,
    keep: Tensor | None,
    allowed: Tensor,
    weight: Tensor | None,
    reduction: str,
) -> Tensor:
    check_class_weight(weight, rows.shape[-1])
    log_p = rows.masked_fill(~allowed, -torch.inf).log_softmax(-1)
    nll = -log_p.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    row_weight = None if weight is None else weight.to(nll.dtype)[index]
    return reduce_rows(nll, keep=keep, row_weight=row_weight, reduction=reduction)
