"""Class weights by effective number, from the start or deferred."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lastlayer._checks import check_probability
from lastlayer.functional.class_priors.counts import as_class_counts


def effective_number(
    class_counts: Tensor | Sequence[float], *, beta: float = 0.9999, zero_counts: str = "error"
) -> Tensor:
    r"""How many different examples a class has when further ones repeat earlier ones.

    .. math:: E_j = \frac{1 - \beta^{n_j}}{1 - \beta}

    It is 1 for :math:`\beta = 0` and :math:`n_j` for :math:`\beta = 1`.

    Args:
        class_counts: (K,) counts.
        beta: :math:`\beta` in [0, 1].
        zero_counts: ``"error"`` or ``"mask"``; a class that never occurs has E = 0.

    Returns:
        (K,) in float64.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> effective_number([1, 10, 1000], beta=0.9).round(decimals=3).tolist()
        [1.0, 6.513, 10.0]

    Source: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    """
    check_probability("beta", beta)
    counts = as_class_counts(class_counts, zero_counts=zero_counts).double()
    if beta == 1.0:
        return counts
    if beta == 0.0:
        return (counts > 0).double()
    # expm1 keeps the digits that 1 - beta^n loses for beta close to 1.
    return torch.expm1(counts * math.log(beta)).neg() / (1.0 - beta)


def class_balanced_weight(
    class_counts: Tensor | Sequence[float], *, beta: float = 0.9999, zero_counts: str = "error"
) -> Tensor:
    r"""Class weights one over the effective number, with mean 1.

    .. math:: w_j = \frac{K / E_j}{\sum_i 1 / E_i}

    :math:`\beta = 0` gives no weighting, :math:`\beta = 1` weights 1/n.

    Args:
        class_counts: (K,) counts.
        beta: :math:`\beta` of :func:`effective_number`, in [0, 1].
        zero_counts: ``"error"`` or ``"mask"``; a class that never occurs has weight 0, and the mean
            is over the others.

    Returns:
        (K,) weights in float32.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> class_balanced_weight([30, 10], beta=1.0)
        tensor([0.5000, 1.5000])

    Source: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    """
    number = effective_number(class_counts, beta=beta, zero_counts=zero_counts)
    seen = number > 0
    inverse = torch.where(seen, 1.0 / number, 0.0)
    return (inverse * seen.sum() / inverse.sum()).float()


def deferred_class_weight(
    class_counts: Tensor | Sequence[float],
    progress: float,
    *,
    start: float = 0.8,
    beta: float = 0.9999,
    zero_counts: str = "error",
) -> Tensor:
    """Deferred re-weighting: no weights at first, class-balanced ones late in training.

    Args:
        class_counts: (K,) counts.
        progress: share of the training that is done, in [0, 1].
        start: share from which the weights hold; 160 of 200 epochs in the source.
        beta: see :func:`class_balanced_weight`.
        zero_counts: see :func:`class_balanced_weight`.

    Returns:
        (K,) weights in float32, all 1 before ``start``.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> deferred_class_weight([30, 10], 0.5, beta=1.0)
        tensor([1., 1.])
        >>> deferred_class_weight([30, 10], 0.8, beta=1.0)
        tensor([0.5000, 1.5000])

    Source: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
    NeurIPS 2019 (DRW).
    """
    check_probability("progress", progress)
    check_probability("start", start)
    weight = class_balanced_weight(class_counts, beta=beta, zero_counts=zero_counts)
    return weight if progress >= start else torch.ones_like(weight)
