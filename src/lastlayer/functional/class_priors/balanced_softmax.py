"""Balanced Softmax: the cross entropy of logits that hold no class prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import REDUCTIONS, check_at_least, check_choice, check_floating
from lastlayer.functional.class_priors.counts import as_class_counts, log_class_counts
from lastlayer.functional.class_priors.shifted_loss import prior_shifted_loss
from lastlayer.functional.layout import float_rows
from lastlayer.functional.loss_arguments import LossArguments, explained
from lastlayer.functional.numerics import at_least_float32


@explained
def balanced_softmax_loss(
    logits: Tensor,
    target: Tensor,
    class_counts: Tensor | Sequence[float],
    *,
    tau: float = 1.0,
    zero_counts: str = "error",
    **arguments: Unpack[LossArguments],
) -> Tensor:
    r"""Cross entropy of logits with the log of the training counts added.

    .. math:: L(\eta; y) = -\log \frac{n_y^\tau e^{\eta_y}}{\sum_j n_j^\tau e^{\eta_j}}, \qquad
        \nabla_\eta L = \mathrm{softmax}(\eta + \tau \log n) - y

    Trained so, :math:`\mathrm{softmax}(\eta)` without the counts is the posterior under a uniform
    prior; for another one add its logarithm (:func:`adjust_logits` with a target prior). Training
    accuracy is read with the counts, accuracy on balanced data without. With :math:`\tau = 0` it is
    the cross entropy; a later correction by :math:`\tau_2` makes :math:`\tau + \tau_2` in all.

    The gradient of a row is bounded, unlike that of weights 1/n. Logits that are cosines must be
    scaled first, or the counts outweigh them. Counts are those of the whole training set, never of
    a batch or of one process's share; with mixed-up inputs, those of the unmixed labels. Label
    smoothing is of the shifted logits, so its share on rare classes raises their logits.

    Args:
        logits: {logits}
        target: {target}
        class_counts: (K,) how often each class occurs in training; only ratios matter.
        tau: exponent :math:`\tau` of the counts, at least 0.
        zero_counts: ``"error"`` refuses a class that never occurs. ``"mask"`` leaves it out of the
            softmax, of its gradient and of label smoothing; it may then be no target.
        **arguments: {arguments}

    Returns:
        A scalar, or one value per row for ``"none"``, in nats.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape, a count, a class index or an option does not fit, or a target never
            occurs according to the counts (on the CPU only; elsewhere the loss is NaN).

    Examples:
        >>> counts = torch.tensor([90, 10])
        >>> balanced_softmax_loss(torch.zeros(1, 2), torch.tensor([1]), counts)
        tensor(2.3026)
        >>> balanced_softmax_loss(torch.zeros(1, 2), torch.tensor([1]), counts, tau=0.0)
        tensor(0.6931)

    Source: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020,
    theorem 1. With an exponent: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
    """
    check_at_least("tau", tau, 0.0)
    rows = float_rows(logits)
    counts = as_class_counts(class_counts, rows.shape[-1], zero_counts=zero_counts)
    return prior_shifted_loss(
        logits,
        target,
        log_prior_shift(counts, rows, tau),
        include_label_prior=True,
        undefined=(
            "a class that never occurs according to class_counts; count it, or ignore the row"
        ),
        smooth_seen_only=zero_counts == "mask",
        **arguments,
    )


def log_prior_shift(class_counts: Tensor, like: Tensor, tau: float) -> Tensor:
    """Return the (K,) shift tau log n, up to a constant; -inf for a class that never occurs."""
    shift = tau * log_class_counts(class_counts, like)
    # 0 times -inf: a class that never occurs stays left out when tau is 0.
    return shift.masked_fill(class_counts.to(shift.device) == 0, -torch.inf)


def balanced_sigmoid_offsets(
    class_counts: Tensor | Sequence[float],
    *,
    total: float | None = None,
    relative: bool = True,
) -> Tensor:
    r"""Offsets of the sigmoid form of Balanced Softmax, one binary problem per class.

    .. math:: o_j = \log \frac{n - n_j}{n_j} - \log \frac{n - n / K}{n / K}

    Equal counts have offset 0. Without the second term (``relative=False``) it is the negative log
    odds of the class, which detectors use with image frequencies.

    Args:
        class_counts: (K,) positive counts, each below n.
        total: n; the sum of the counts if None. Of image frequencies it is the number of images.
        relative: whether the second term is there; it needs K >= 2.

    Returns:
        (K,) in float32, or float64 for counts in float64.

    Raises:
        ValueError: if a count is not in (0, n).

    Example:
        >>> balanced_sigmoid_offsets([5, 5, 5]).tolist()
        [0.0, 0.0, 0.0]

    Source: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020,
    supplement.
    """
    counts = as_class_counts(class_counts, offers_mask=False)
    exact = counts.double()
    n = float(exact.sum()) if total is None else float(total)
    if not bool((exact < n).all()):
        raise ValueError(
            f"class_counts must be below their total {n:g}, for a class that always occurs has no "
            f"odds; got {float(exact.max()):g}"
        )
    offsets = torch.log((n - exact) / exact)
    if relative:
        if len(exact) < 2:
            raise ValueError("class_counts must be of at least 2 classes where relative=True")
        offsets = offsets - math.log(len(exact) - 1)
    return offsets.to(counts.dtype if counts.is_floating_point() else torch.float32)


def balanced_sigmoid_loss(
    logits: Tensor,
    target: Tensor,
    class_counts: Tensor | Sequence[float],
    *,
    foreground: Tensor | None = None,
    total: float | None = None,
    relative: bool = True,
    reduction: str = "mean",
) -> Tensor:
    r"""Binary cross entropy per class of logits moved by the class's odds.

    .. math:: L = -\sum_j \bigl[y_j \log \sigma(\eta_j - o_j)
        + (1 - y_j) \log (1 - \sigma(\eta_j - o_j))\bigr]

    with o of :func:`balanced_sigmoid_offsets`. Predict with :math:`\sigma(\eta)`. Rows that are
    background keep the plain sigmoid. The logits are not changed in place.

    Args:
        logits: (*, K) logits :math:`\eta`; half precision is computed in float32.
        target: (*, K) floating point in [0, 1]; several classes may hold.
        class_counts: (K,) positive counts.
        foreground: (*) bool, the rows that are moved; None for all.
        total: see :func:`balanced_sigmoid_offsets`.
        relative: see :func:`balanced_sigmoid_offsets`.
        reduction: ``"none"`` (one value per row), ``"mean"`` over rows, or ``"sum"``.

    Returns:
        A scalar, or (*) for ``"none"``, in nats.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape or a count does not fit.

    Example:
        >>> target = torch.tensor([[0.0, 1.0]])
        >>> balanced_sigmoid_loss(torch.zeros(1, 2), target, [90, 10])
        tensor(4.6052)

    Source: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020,
    supplement.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    check_floating("logits", logits)
    check_floating("target", target)
    if target.shape != logits.shape or logits.dim() == 0:
        raise ValueError(
            f"target must have the shape of logits, (*, K); got {tuple(target.shape)} for "
            f"{tuple(logits.shape)}"
        )
    scores = at_least_float32(logits)
    counts = as_class_counts(class_counts, logits.shape[-1], offers_mask=False)
    offsets = balanced_sigmoid_offsets(counts.double(), total=total, relative=relative).to(scores)
    if foreground is not None:
        if foreground.shape != logits.shape[:-1] or foreground.dtype != torch.bool:
            raise ValueError(
                f"foreground must be bool of shape {tuple(logits.shape[:-1])}; got "
                f"{foreground.dtype} of shape {tuple(foreground.shape)}"
            )
        offsets = torch.where(foreground.unsqueeze(-1), offsets, 0.0)
    rows = F.binary_cross_entropy_with_logits(
        scores - offsets, target.to(scores), reduction="none"
    ).sum(-1)
    if reduction == "none":
        return rows
    return rows.sum() / (max(1, rows.numel()) if reduction == "mean" else 1)
