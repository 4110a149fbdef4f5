"""The terms of DropMax's objective besides the likelihood: divergence, entropy, auxiliary loss."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_choice
from lastlayer.functional.dropmax.masks import one_hot_mask
from lastlayer.functional.numerics import at_least_float32, softplus

ENTROPY_CLASSES = ("all", "non-target")


def bernoulli_kl(
    correction_logits: Tensor,
    retain_logits: Tensor,
    target: Tensor,
    *,
    held_prior: Tensor | None = None,
) -> Tensor:
    r"""KL divergence of the masks' posterior from their prior, summed over classes.

    .. math::
        -\log \rho_t + \sum_{k \ne t} g_k \log\frac{g_k}{\rho_k}
        + (1 - g_k) \log\frac{1 - g_k}{1 - \rho_k},
        \qquad g = \sigma(\mathrm{sg}[a] + r)

    The posterior keeps the target for certain. The prior inside :math:`g` is held constant; its
    other places are not, so that the divergence teaches the prior.

    Args:
        correction_logits: (*, K) label-correction logits :math:`r`.
        retain_logits: (*, K) prior retain logits :math:`a`.
        target: (*) int64 class indices in [0, K).
        held_prior: (*, K) the prior inside :math:`g`: the values of ``retain_logits``, with the
            gradient that they should have there; none if None.

    Returns:
        (*) divergence in nats, at least 0.

    Example:
        >>> bernoulli_kl(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([0]))
        tensor([0.6931])

    Source: DropMax (NeurIPS 2018), the KL term of its objective.
    """
    correction, prior = at_least_float32(correction_logits), at_least_float32(retain_logits)
    is_target = one_hot_mask(target, prior.shape[-1])
    # A Bernoulli may be told by either outcome; the rarer one loses no digits at large logits.
    sign = torch.where(prior > 0, -1.0, 1.0)
    held = prior.detach() if held_prior is None else at_least_float32(held_prior)
    posterior = held + correction
    difference = correction + (held - prior)  # value r, gradient of posterior - prior
    non_target = (
        torch.sigmoid(sign * posterior) * (sign * difference)
        + softplus(sign * prior)
        - softplus(sign * posterior)
    )
    return torch.where(is_target, softplus(-prior), non_target).sum(dim=-1)


def target_retention_loss(retain_logits: Tensor, target: Tensor) -> Tensor:
    r"""What the divergence is when the posterior equals the prior but for the target.

    .. math:: \mathrm{KL} = -\log \rho_t = \mathrm{softplus}(-a_t)

    Args:
        retain_logits: (*, K) retain logits.
        target: (*) int64 class indices in [0, K).

    Returns:
        (*) nats.

    Example:
        >>> target_retention_loss(torch.zeros(1, 2), torch.tensor([1]))
        tensor([0.6931])

    Source: DropMax (ICLR 2018), eq. 10; the q=p variant of NeurIPS 2018.
    """
    at_target = at_least_float32(retain_logits).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return softplus(-at_target)


def negative_entropy(
    retain_logits: Tensor, target: Tensor | None = None, *, classes: str = "all"
) -> Tensor:
    r"""Negative entropy of the retain probabilities, summed over classes.

    .. math:: \sum_k \rho_k \log \rho_k + (1 - \rho_k) \log (1 - \rho_k)
        = \sum_k \rho_k a_k - \mathrm{softplus}(a_k)

    Minimizing it raises the entropy, which keeps the prior from collapsing onto the posterior.

    Args:
        retain_logits: (*, K) retain logits.
        target: (*) int64 class indices, needed for ``classes="non-target"`` only.
        classes: ``"all"`` (NeurIPS 2018) or ``"non-target"`` (ICLR 2018).

    Returns:
        (*) nats, between -K log 2 and 0.

    Raises:
        ValueError: if ``classes`` is unknown, or the target is missing where it is needed.

    Example:
        >>> negative_entropy(torch.zeros(1, 3))
        tensor([-2.0794])

    Source: DropMax (NeurIPS 2018) eq. 13 with the sign its authors corrected; ICLR 2018 eq. 14.
    """
    check_choice("classes", classes, ENTROPY_CLASSES)
    prior = at_least_float32(retain_logits)
    # Entropy is even in the logit; at -|a| neither term is large, so nothing cancels.
    folded = torch.where(prior > 0, -prior, prior)  # not -abs, whose curvature is wrong at 0
    per_class = torch.sigmoid(folded) * folded - softplus(folded)
    if classes == "non-target":
        if target is None:
            raise ValueError('classes="non-target" needs the target; got None')
        per_class = per_class.masked_fill(one_hot_mask(target, prior.shape[-1]), 0.0)
    return per_class.sum(dim=-1)


def auxiliary_loss(correction_logits: Tensor, target: Tensor) -> Tensor:
    r"""Binary cross-entropy that ties the posterior's correction to the label.

    .. math:: -\sum_k y_k \log \sigma(r_k) + (1 - y_k) \log(1 - \sigma(r_k))

    Args:
        correction_logits: (*, K) label-correction logits :math:`r`.
        target: (*) int64 class indices in [0, K).

    Returns:
        (*) nats, summed over classes.

    Example:
        >>> auxiliary_loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor([1.3863])

    Source: DropMax (NeurIPS 2018), L_aux.
    """
    correction = at_least_float32(correction_logits)
    is_target = one_hot_mask(target, correction.shape[-1])
    return softplus(torch.where(is_target, -correction, correction)).sum(dim=-1)


# Where retain probabilities come to rest on easy examples: with the cross-entropy's gradient at 0
# and the logits free per example, the gradients of divergence, entropy and auxiliary loss vanish at
#   a_t sigmoid(a_t) = 1 (target);  rho - q + rho (1 - rho) a = 0,  sigmoid(r) + q (1 - q) r = 0,
#   q = sigmoid(a + r) (other classes).
# The figures are the finite roots in double precision, derived from the objective of DropMax
# (NeurIPS 2018); its figure of retain probabilities shows 0.781 and 0.225.

#: Prior retain probability of the target.
TARGET_FIXED_POINT = 0.7821882942801999
#: Prior retain probability of every other class.
NON_TARGET_FIXED_POINT = 0.22525617888171268
#: Posterior retain probability of every other class.
POSTERIOR_FIXED_POINT = 0.00967780137003502
