"""The loss that makes logits a density ratio."""

from __future__ import annotations

from torch import Tensor

from lastlayer._checks import check_prior
from lastlayer.functional.class_priors.shifted_loss import prior_shifted_loss
from lastlayer.functional.layout import float_rows


def pc_softmax_loss(
    logits: Tensor,
    target: Tensor,
    prior: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Negative log density ratio of the labels; its mean is minus a bound on the information.

    .. math:: L(n; y) = \log \sum_j \pi_j e^{n_j} - n_y, \qquad
        \mathrm{E}\,L \ge -I(X; Y), \qquad \nabla_n L = \mathrm{softmax}(n + \log \pi) - y

    The loss is normally negative: it falls to minus the mutual information, not to 0. It has the
    gradient of the cross entropy of :math:`n + \log \pi` and differs from it by
    :math:`\log \pi_y`. For a target distribution t it is
    :math:`\mathrm{CE}(n + \log \pi, t) + \sum_k t_k \log \pi_k`. Class weights, soft targets and
    smoothing shape the training; with them the value is no longer an information.

    Trained so, the largest logit is the maximum-likelihood decision, which ignores the prior; see
    :func:`probability_corrected_log_prob` for class probabilities.

    Args:
        logits: (K,), (N, K) or (N, K, d1, ...); half precision is computed in float32.
        target: class indices (), (N,) or (N, d1, ...), or probabilities of the logits' shape.
        prior: (K,) class probabilities :math:`\pi` of the training data, sum 1. A class of prior 0
            is absent from the normaliser and may not be a target.
        weight: (K,) weight of each class, at least 0; multiplies the target distribution.
        ignore_index: class index of the rows that take no part.
        reduction: ``"none"``, ``"mean"`` (0 over no row at all) or ``"sum"``.
        label_smoothing: share of the uniform distribution in the target, in [0, 1].

    Returns:
        A scalar, or one value per row for ``"none"``, in nats.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape, a class index or an option does not fit, or a target has prior 0
            (looked at on the CPU only; elsewhere the loss is NaN).

    Example:
        >>> import torch
        >>> prior = torch.tensor([0.8, 0.2])
        >>> pc_softmax_loss(torch.tensor([[0.0, 5.0]]), torch.tensor([1]), prior)
        tensor(-1.5828)

    Source: Qin, Kim and Gedeon, "Rethinking softmax with cross-entropy", arXiv 1911.10688.
    """
    rows = float_rows(logits)
    check_prior("prior", prior, rows.shape[-1], wait=False)
    return prior_shifted_loss(
        logits,
        target,
        prior.to(rows).log(),
        charge_prior=False,
        undefined=(
            "a class of prior 0, whose density ratio is undefined; give the class a prior above 0, "
            "or ignore the row"
        ),
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )
