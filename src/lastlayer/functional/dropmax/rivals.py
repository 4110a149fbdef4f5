"""How many rivals of the target a mask leaves: what the cross-entropy of a step can learn from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lastlayer.functional.dropmax.masks import one_hot_mask
from lastlayer.functional.numerics import at_least_float32


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
