"""The Tsallis entropies, which regularise the alpha-entmax family."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_at_least


def tsallis_negentropy(p: Tensor, alpha: float) -> Tensor:
    r"""Negative Tsallis entropy, the regulariser of alpha-entmax.

    .. math:: \Omega_\alpha(p) = \frac{\sum_k p_k^\alpha - p_k}{\alpha (\alpha - 1)},
        \qquad \Omega_1(p) = \sum_k p_k \log p_k

    Args:
        p: (*, K) probabilities.
        alpha: at least 1.

    Returns:
        (*) values from 0, at a corner of the simplex, down to a negative minimum at 1/K.

    Raises:
        ValueError: if ``alpha`` is below 1 or not finite.

    Examples:
        >>> tsallis_negentropy(torch.tensor([0.5, 0.5]), alpha=2.0)
        tensor(-0.2500)

    References:
        Peters, Niculae and Martins, "Sparse Sequence-to-Sequence Models", ACL 2019, eq. 9.
    """
    check_at_least("alpha", alpha, 1.0)
    if alpha == 2.0:
        return 0.5 * (p * (p - 1.0)).sum(-1)
    safe = torch.where(p > 0, p, 1.0)
    if alpha == 1.5:
        return (p * (safe.sqrt() - 1.0)).sum(-1) / 0.75
    if alpha == 1.0:
        return (p * safe.log()).sum(-1)
    return (p * torch.expm1((alpha - 1.0) * safe.log())).sum(-1) / (alpha * (alpha - 1.0))
