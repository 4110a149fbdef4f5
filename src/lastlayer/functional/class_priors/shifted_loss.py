"""The one cross entropy of prior-shifted logits behind Balanced Softmax and PC-Softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import can_look
from lastlayer.functional.layout import flatten_target, float_rows
from lastlayer.functional.loss_arguments import explained, weighted_targets
from lastlayer.functional.numerics import centered_partition


@explained
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
        logits: {logits}
        target: {target}
        log_prior: (K,) shift :math:`\ell` in the dtype of the computation; -inf leaves a class out.
        include_label_prior: c.
        undefined: what is wrong with a target whose shift is -inf, for the message.
        weight: {weight}
        ignore_index: {ignore_index}
        reduction: {reduction}
        label_smoothing: {label_smoothing}
        smooth_seen_only: whether that distribution leaves out the classes of shift -inf.

    Returns:
        A scalar, or one value per row for ``"none"``, in nats.

    Raises:
        ValueError: if a shape, a class index or an option does not fit, or a target has a shift of
            -inf (looked at on the CPU only; elsewhere the loss is NaN).
    """
    rows, log_partition = centered_partition(float_rows(logits), log_prior)
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
    return targets.reduced(targets.mass * log_partition - targets.score, logits, reduction)


def _refuse_undefined(score: Tensor, rows: Tensor, undefined: str) -> None:
    """Raise if a score is NaN for the prior's sake; NaN logits give a NaN loss, as in torch."""
    if not can_look(rows, score):
        return
    wrong = score.detach().isnan()
    if bool(wrong.any()) and not bool(rows.detach().isnan().any()):
        raise ValueError(f"target row {int(wrong.nonzero()[0])} names {undefined}")
