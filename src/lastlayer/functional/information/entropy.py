"""Entropy of a distribution, and of labels from their counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lastlayer._checks import check_choice, check_class_indices, check_count
from lastlayer.functional.numerics import at_least_float32

#: What may be done about the bias of the plug-in entropy.
CORRECTIONS = ("none", "miller-madow", "jackknife")


def entropy(probabilities: Tensor) -> Tensor:
    r"""Shannon entropy over the last dimension, with 0 log 0 = 0.

    .. math:: H = -\sum_k p_k \log p_k

    Args:
        probabilities: (*, K) of sum 1 over the last dimension.

    Returns:
        (*) nats, in [0, log K].

    Example:
        >>> entropy(torch.tensor([0.5, 0.5, 0.0]))
        tensor(0.6931)
    """
    p = at_least_float32(probabilities)
    return -torch.xlogy(p, p).sum(dim=-1)


def label_counts(target: Tensor, num_classes: int) -> Tensor:
    """Count the labels of every class.

    Args:
        target: (N,) int64 class indices in [0, K), N >= 1.
        num_classes: K >= 1.

    Returns:
        (K,) int64.

    Raises:
        TypeError: if ``target`` is not int64.
        ValueError: if the shape, the number of labels or a label does not fit.

    Example:
        >>> label_counts(torch.tensor([0, 2, 2]), 3)
        tensor([1, 0, 2])
    """
    check_count("num_classes", num_classes)
    if target.dim() != 1 or len(target) == 0:
        raise ValueError(
            f"target must have shape (N,) with N >= 1 labels; got {tuple(target.shape)}"
        )
    check_class_indices(target, num_classes)
    return torch.bincount(target, minlength=num_classes)


def label_entropy(target: Tensor, num_classes: int, *, correction: str = "none") -> Tensor:
    r"""Entropy of labels, estimated from a sample of them.

    .. math::
        \hat H = -\sum_k \hat\pi_k \log \hat\pi_k, \qquad
        \hat H_{\mathrm{MM}} = \hat H + \frac{K_+ - 1}{2n}, \qquad
        \hat H_{\mathrm{J}} = n \hat H - \frac{n - 1}{n} \sum_i \hat H^{(-i)}

    The plug-in value falls short of H by :math:`(K - 1) / 2n` to first order. Both corrections
    remove that term; Miller's and Madow's counts the :math:`K_+` classes that were seen, the
    jackknife leaves out one label at a time. A corrected value may exceed log K.

    Args:
        target: (N,) int64 class indices in [0, K), N >= 1.
        num_classes: K.
        correction: ``"none"``, ``"miller-madow"`` or ``"jackknife"``.

    Returns:
        A float64 scalar, in nats.

    Raises:
        TypeError: if ``target`` is not int64.
        ValueError: if the shape, a label or the option does not fit.

    Example:
        >>> target = torch.tensor([0, 0, 1, 1])
        >>> float(label_entropy(target, 2)) / math.log(2)
        1.0
        >>> float(label_entropy(target, 2, correction="miller-madow")) - math.log(2)
        0.125
    """
    check_choice("correction", correction, CORRECTIONS)
    counts = label_counts(target, num_classes).double()
    counts = counts[counts > 0]
    total = counts.sum()
    plug_in = entropy(counts / total)
    if correction == "none":
        return plug_in
    if correction == "miller-madow":
        return plug_in + (len(counts) - 1) / (2 * total)
    if total == 1:  # nothing left when it is left out
        return plug_in
    left_out = counts.expand(len(counts), -1) - torch.eye(len(counts)).to(counts)
    replicates = entropy(left_out / (total - 1))
    return total * plug_in - (total - 1) / total * (counts * replicates).sum()


def divergence_from_uniform(prior: Tensor) -> Tensor:
    r"""How far class probabilities are from equal ones.

    .. math:: \mathrm{KL}(\pi \,\|\, \mathrm{uniform}) = \log K - H(\pi)

    It is what :math:`\log K - \mathrm{CE}` may exceed the mutual information by.

    Args:
        prior: (*, K) probabilities of sum 1 over the last dimension.

    Returns:
        (*) nats, at least 0 but for rounding.

    Example:
        >>> divergence_from_uniform(torch.tensor([0.25, 0.25, 0.5, 0.0]))
        tensor(0.3466)
    """
    return math.log(prior.shape[-1]) - entropy(prior)
