"""From logits to class probabilities under a chosen prior, after either loss."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import can_look, check_prior
from lastlayer.functional.class_priors.adjustment import adjust_logits
from lastlayer.functional.information.density_ratio import rows_and_log_prior


def probability_corrected_log_prob(logits: Tensor, prior: Tensor, *, dim: int = -1) -> Tensor:
    r"""Class log-probabilities of logits trained by the probability-corrected softmax.

    .. math:: \log p(y \mid x) = \log \mathrm{softmax}_y(n + \log \pi)

    Such logits hold the likelihood alone, so :math:`\pi` may be any prior: the one of the training
    data or the one that is expected in use. For logits trained by the cross entropy use
    :func:`post_compensated_log_prob`.

    Args:
        logits: (*, K, *) logits n trained by :func:`pc_softmax_loss`.
        prior: (K,) class probabilities :math:`\pi`, sum 1; a class of prior 0 gets probability 0.
        dim: the class dimension.

    Returns:
        The shape of ``logits``: log-probabilities.

    Raises:
        TypeError: if ``logits`` or ``prior`` is not floating point.
        ValueError: if ``prior`` does not hold K probabilities.

    Example:
        >>> probability_corrected_log_prob(torch.zeros(2), torch.tensor([0.9, 0.1])).exp()
        tensor([0.9000, 0.1000])

    Source: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020
    (the same training); derived here.
    """
    rows, log_prior = rows_and_log_prior(logits, prior, dim)
    return (rows + log_prior).log_softmax(dim=-1).movedim(-1, dim)


def post_compensated_log_prob(
    logits: Tensor, source_prior: Tensor, target_prior: Tensor, *, dim: int = -1
) -> Tensor:
    r"""Class log-probabilities of logits trained by the cross entropy, moved to another prior.

    .. math:: \log p'(y \mid x) = \log \mathrm{softmax}_y(n - \log \pi^{\text{source}}
        + \log \pi^{\text{target}})

    Some authors call this "PC softmax", for post-compensated; it changes the prediction of a
    finished model, where the probability-corrected softmax changes the training.

    Args:
        logits: (*, K, *) logits n, or log-probabilities, trained by the cross entropy.
        source_prior: (K,) class probabilities of the training data, sum 1.
        target_prior: (K,) class probabilities where the model is used, sum 1; a class of 0 gets
            probability 0.
        dim: the class dimension.

    Returns:
        The shape of ``logits``: log-probabilities.

    Raises:
        TypeError: if an argument is not floating point.
        ValueError: if a prior does not hold K probabilities, or a class has a target prior above 0
            and a source prior of 0: nothing was learnt of it.

    Example:
        >>> log_prob = torch.tensor([0.9, 0.1]).log()
        >>> source, target = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5])
        >>> post_compensated_log_prob(log_prob, source, target).exp()
        tensor([0.5000, 0.5000])

    Source: Hong et al., "Disentangling Label Distribution for Long-tailed Visual Recognition"
    (LADE), 2021.
    """
    rows, log_source = rows_and_log_prior(logits, source_prior, dim)
    check_prior("target_prior", target_prior, rows.shape[-1])
    unlearnt = (target_prior.to(rows) > 0) & (log_source == -torch.inf)
    if can_look(unlearnt, wait=True) and bool(unlearnt.any()):
        raise ValueError(
            f"class {int(unlearnt.nonzero()[0])} has source_prior 0 but target_prior above 0; "
            "a model that never saw a class has no odds for it"
        )
    adjusted = adjust_logits(rows, source_prior.to(rows), target_prior=target_prior.to(rows))
    return adjusted.log_softmax(dim=-1).movedim(-1, dim)
