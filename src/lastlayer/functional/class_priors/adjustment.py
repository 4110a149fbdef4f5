"""From the prior that logits carry to another one, after training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lastlayer._checks import can_look, check_at_least, check_floating
from lastlayer.functional.class_priors.balanced_softmax import log_prior_shift
from lastlayer.functional.class_priors.counts import as_class_counts
from lastlayer.functional.numerics import at_least_float32


def adjust_logits(
    logits: Tensor,
    class_counts: Tensor | Sequence[float] | None,
    *,
    tau: float = 1.0,
    target_prior: Tensor | Sequence[float] | None = None,
    dim: int = -1,
) -> Tensor:
    r"""Take the training prior out of logits, and put the one they will meet in.

    .. math:: \eta'_j = \eta_j - \tau \log n_j + \log \pi_j^{\text{target}}

    For logits that were trained by the cross entropy on data of those counts. Logits of Balanced
    Softmax carry no prior any more: there ``class_counts`` is None. Correcting twice is the same as
    :math:`\tau = 2`; :class:`PriorCorrection` keeps the account.

    Args:
        logits: (*, K, *) logits or log-probabilities; half precision is computed in float32.
        class_counts: (K,) counts or probabilities of the classes in training; None if the logits
            carry no prior. A class that never occurred gets -inf: its logit was never trained.
        tau: how much of the training prior is taken out, at least 0. Other values than 1 need
            tuning on held-out data.
        target_prior: (K,) counts or probabilities of the classes where the model is used; None for
            a uniform one. A class of 0 gets -inf.
        dim: the class dimension.

    Returns:
        The shape of ``logits``: adjusted logits, not normalized.

    Raises:
        TypeError: if ``logits`` is not floating point, or counts are in half precision.
        ValueError: if an argument does not fit, or a class that never occurred in training has a
            target prior above 0.

    Example:
        >>> adjust_logits(torch.tensor([0.9, 0.1]).log(), [9, 1]).softmax(0)
        tensor([0.5000, 0.5000])

    Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021; with another
    target prior: Hong et al., "Disentangling Label Distribution for Long-tailed Visual
    Recognition", CVPR 2021.
    """
    check_at_least("tau", tau, 0.0)
    check_floating("logits", logits)
    if logits.dim() == 0:
        raise ValueError("logits must have a class dimension; got a scalar")
    rows = at_least_float32(logits).movedim(dim, -1)
    num_classes = rows.shape[-1]
    shift = rows.new_zeros(num_classes)
    if class_counts is not None:
        source = as_class_counts(class_counts, num_classes, zero_counts="mask")
        shift = -log_prior_shift(source, rows, tau)
    unlearned = shift == torch.inf
    if target_prior is None:
        shift = shift.masked_fill(unlearned, -torch.inf)
    else:
        wanted = as_class_counts(target_prior, num_classes, zero_counts="mask").to(rows.device)
        asked = unlearned & (wanted > 0)
        if can_look(asked) and bool(asked.any()):
            raise ValueError(
                f"class {int(asked.nonzero()[0])} never occurred in training but has a "
                "target_prior above 0; a model that never saw a class has no odds for it"
            )
        shift = torch.where(wanted > 0, shift + log_prior_shift(wanted, rows, 1.0), -torch.inf)
    return (rows + shift).movedim(-1, dim)
