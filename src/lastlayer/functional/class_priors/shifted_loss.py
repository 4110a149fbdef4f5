"""The one cross entropy of prior-shifted logits behind Balanced Softmax and PC-Softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import REDUCTIONS, can_look, check_choice
from lastlayer.functional.layout import flatten_target, float_rows, target_shape
from lastlayer.functional.numerics import centred_partition
from lastlayer.functional.targets import weighted_targets


def prior_shifted_loss(
    logits: Tensor,
    target: Tensor,
    log_prior: Tensor,
    *,
    include_label_prior: bool,
    undefined: str,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    smooth_seen_only: bool = False,
) -> Tensor:
    r"""Cross entropy of logits shifted by a log prior, with the label's own prior or without.

    .. math:: L = \log \sum_j e^{n_j + \ell_j} - n_y - c\,\ell_y

    With c = 1 it is the cross entropy of :math:`n + \ell` (Balanced Softmax), with c = 0 the
    negative log density ratio (PC-Softmax); their gradients are the same.

    Args:
        logits: (K,), (N, K) or (N, K, d1, ...); half precision is computed in float32.
        target: class indices (), (N,) or (N, d1, ...), or probabilities of the logits' shape.
        log_prior: (K,) shift :math:`\ell` in the dtype of the computation; -inf leaves a class out.
        include_label_prior: c.
        undefined: what is wrong with a target whose shift is -inf, for the message.
        weight: (K,) weight of each class, at least 0; multiplies the target distribution.
        ignore_index: class index of the rows that take no part.
        reduction: ``"none"``, ``"mean"`` (0 over no row at all) or ``"sum"``.
        label_smoothing: share of the uniform distribution in the target, in [0, 1].
        smooth_seen_only: whether that distribution leaves out the classes of shift -inf.

    Returns:
        A scalar, or one value per row for ``"none"``, in nats.

    Raises:
        ValueError: if a shape, a class index or an option does not fit, or a target has a shift of
            -inf (looked at on the CPU only; elsewhere the loss is NaN).
    """
    check_choice("reduction", reduction, REDUCTIONS)
    rows, log_partition = centred_partition(float_rows(logits), log_prior)
    absent = log_prior == -torch.inf
    targets = weighted_targets(
        # NaN where the score is undefined; a target that does not name the class leaves it out.
        (rows + log_prior if include_label_prior else rows).masked_fill(absent, torch.nan),
        flatten_target(target, logits),
        weight,
        ignore_index,
        label_smoothing,
        smoothed_over=~absent if smooth_seen_only else None,
    )
    _refuse_undefined(targets.score, rows, undefined)
    values = targets.mass * log_partition - targets.score
    if targets.keep is not None:
        values = torch.where(targets.keep, values, 0.0)
    if reduction == "none":
        return values.reshape(target_shape(logits))
    if reduction == "sum":
        return values.sum()
    return values.sum() / torch.where(targets.denominator > 0, targets.denominator, 1.0)


def _refuse_undefined(score: Tensor, rows: Tensor, undefined: str) -> None:
    """Raise if a score is NaN for the prior's sake; NaN logits give a NaN loss, as in torch."""
    if not can_look(rows, score):
        return
    wrong = score.detach().isnan()
    if bool(wrong.any()) and not bool(rows.detach().isnan().any()):
        raise ValueError(f"target row {int(wrong.nonzero()[0])} names {undefined}")
