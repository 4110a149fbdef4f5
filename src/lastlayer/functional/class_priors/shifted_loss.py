"""The one cross entropy of prior-shifted logits behind Balanced Softmax and PC-Softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import can_look
from lastlayer.functional.layout import flatten_target, float_rows
from lastlayer.functional.loss_arguments import weighted_targets
from lastlayer.functional.numerics import centered_partition


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

    With c = 1 (``include_label_prior``) it is the cross entropy of :math:`n + \ell` (Balanced
    Softmax), with c = 0 the negative log density ratio (PC-Softmax); their gradients are the same.
    A class of shift -inf is left out, with ``smooth_seen_only`` also of label smoothing; a target
    that names it raises ``ValueError`` with the words ``undefined`` on the CPU, elsewhere the loss
    is NaN.
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
