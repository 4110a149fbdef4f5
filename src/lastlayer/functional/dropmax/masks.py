"""Random masks of DropMax, explicit about their noise, and what they leave of a target's rivals."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_generator, check_positive
from lastlayer.functional.numerics import at_least_float32

# Uniform numbers drawn in float32 are multiples of 2^-24 below 1; half a step keeps them above 0.
_OPEN_INTERVAL_MARGIN = 2.0**-25


def one_hot_mask(target: Tensor, num_classes: int) -> Tensor:
    """Mark the target class of every row.

    Args:
        target: (*) int64 class indices in [0, K).
        num_classes: number of classes K.

    Returns:
        (*, K) bool, True at the target.

    Example:
        >>> one_hot_mask(torch.tensor([2, 0]), 3).int().tolist()
        [[0, 0, 1], [1, 0, 0]]
    """
    return torch.arange(num_classes, device=target.device) == target.unsqueeze(-1)


def logistic_noise(like: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw standard logistic noise :math:`\log u - \log(1 - u)`, :math:`u \sim U(0, 1)`.

    Args:
        like: tensor whose shape, dtype (float32 for half precision) and device the noise takes.
        generator: source of randomness; the default generator of the device if None.

    Returns:
        Finite noise of the shape of ``like``.

    Example:
        >>> noise = logistic_noise(torch.empty(2, 3), generator=torch.Generator().manual_seed(0))
        >>> noise.shape
        torch.Size([2, 3])
    """
    check_generator(generator)
    like = at_least_float32(like)
    uniform = torch.empty_like(like, requires_grad=False).uniform_(generator=generator)
    return torch.logit(uniform, eps=_OPEN_INTERVAL_MARGIN)


def concrete_log_mask(
    retain_logits: Tensor,
    *,
    temperature: float = 0.1,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Draw the logarithm of a relaxed (binary concrete) mask.

    .. math:: z = \sigma((a + L) / \tau), \qquad P(z > 1/2) = \sigma(a) \text{ at every } \tau.

    Args:
        retain_logits: (*, K) retain logits :math:`a`.
        temperature: :math:`\tau > 0`; the papers use 0.1.
        noise: (*, K) logistic noise :math:`L`; drawn if None.
        generator: source of the noise that is drawn.

    Returns:
        (*, K) :math:`\log z \le 0`, differentiable with respect to ``retain_logits``.

    Raises:
        ValueError: if ``temperature`` is not above 0.

    Example:
        >>> concrete_log_mask(torch.tensor([2.0]), noise=torch.tensor([-2.0])).exp()
        tensor([0.5000])

    Source: Maddison et al. and Jang et al., ICLR 2017; DropMax (ICLR 2018), section 3.
    """
    check_positive("temperature", temperature)
    retain_logits = at_least_float32(retain_logits)
    if noise is None:
        noise = logistic_noise(retain_logits, generator=generator)
    return F.logsigmoid((retain_logits + noise) / temperature)


def bernoulli_log_mask(
    retain_logits: Tensor,
    *,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Draw the logarithm of a hard mask, :math:`z \sim \mathrm{Bernoulli}(\sigma(a))`.

    Args:
        retain_logits: (*, K) retain logits :math:`a`.
        noise: (*, K) logistic noise; the class is kept where :math:`a + L > 0`. Drawn if None.
        generator: source of the noise that is drawn.

    Returns:
        (*, K) of 0 (kept) and -inf (dropped), without gradient.

    Example:
        >>> bernoulli_log_mask(torch.tensor([2.0, -2.0]), noise=torch.zeros(2))
        tensor([0., -inf])
    """
    retain_logits = at_least_float32(retain_logits).detach()
    if noise is None:
        noise = logistic_noise(retain_logits, generator=generator)
    return torch.where(retain_logits + noise > 0, 0.0, -math.inf).to(retain_logits.dtype)


def retain_target(log_mask: Tensor, target: Tensor) -> Tensor:
    """Keep the target class for certain: its mask becomes 1, a constant.

    Args:
        log_mask: (*, K) logarithm of a mask.
        target: (*) int64 class indices in [0, K).

    Returns:
        (*, K) log mask, 0 at the target.

    Example:
        >>> retain_target(torch.tensor([[-1.0, -2.0]]), torch.tensor([1]))
        tensor([[-1.,  0.]])

    Source: DropMax (NeurIPS 2018): the posterior of the target's mask is Ber(1).
    """
    return log_mask.masked_fill(one_hot_mask(target, log_mask.shape[-1]), 0.0)


class Rivals(NamedTuple):
    """Classes besides the target that random masks retain, per row.

    Attributes:
        expected: (*) expected number, in [0, K - 1].
        none: (*) probability that there is none; the cross-entropy is then 0 and teaches nothing.
    """

    expected: Tensor
    none: Tensor


def surviving_rivals(retain_prob: Tensor, target: Tensor) -> Rivals:
    r"""Return how many rivals of the target survive independent masks.

    .. math:: \mathrm{E}\Big[\sum_{k \ne t} z_k\Big] = \sum_{k \ne t} g_k, \qquad
        P\Big[\sum_{k \ne t} z_k = 0\Big] = \prod_{k \ne t} (1 - g_k)

    Args:
        retain_prob: (*, K) retain probabilities :math:`g` of the masks, in [0, 1]; the target's is
            not used.
        target: (*) int64 class indices in [0, K).

    Returns:
        ``Rivals(expected, none)``, (*) each.

    Example:
        >>> rivals = surviving_rivals(torch.tensor([[1.0, 0.5, 0.5]]), torch.tensor([0]))
        >>> float(rivals.expected), float(rivals.none)
        (1.0, 0.25)

    Source: derived here.
    """
    prob = at_least_float32(retain_prob)
    others = prob.masked_fill(one_hot_mask(target, prob.shape[-1]), 0.0)
    return Rivals(others.sum(dim=-1), torch.log1p(-others).sum(dim=-1).exp())
