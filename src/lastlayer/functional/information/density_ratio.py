"""The probability-corrected softmax: a density ratio, not a probability."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_floating, check_prior
from lastlayer.functional.numerics import at_least_float32, centred_partition


def log_pc_softmax(logits: Tensor, prior: Tensor, *, dim: int = -1) -> Tensor:
    r"""Logarithm of the probability-corrected softmax, a density ratio.

    .. math:: \log \mathrm{PC}_y = n_y - \log \sum_j \pi_j e^{n_j}
        \;\approx\; \log \frac{p(y \mid x)}{p(y)}

    It is no log-probability: :math:`\sum_y \pi_y \mathrm{PC}_y = 1`, and a value may be as large as
    :math:`-\log \pi_y`. Adding a constant to a row of logits changes nothing. Of logits trained by
    :func:`pc_softmax_loss` it is the pointwise mutual information of input and label.

    A class of prior 0 is absent from the normaliser, and its own ratio is undefined: NaN.

    Args:
        logits: (*, K, *) floating point; half precision is computed in float32.
        prior: (K,) class probabilities :math:`\pi`, sum 1.
        dim: the class dimension.

    Returns:
        The shape of ``logits``, in nats.

    Raises:
        TypeError: if ``logits`` or ``prior`` is not floating point.
        ValueError: if ``prior`` does not hold K probabilities.

    Example:
        >>> log_ratio = log_pc_softmax(torch.tensor([1000.0, 0.0]), torch.tensor([0.2, 0.8]))
        >>> [round(value, 3) for value in log_ratio.tolist()]
        [1.609, -998.391]

    Source: Qin, Kim and Gedeon, "Rethinking softmax with cross-entropy", arXiv 1911.10688.
    """
    rows, log_prior = rows_and_log_prior(logits, prior, dim)
    centred, log_partition = centred_partition(rows, log_prior)
    ratio = (centred - log_partition.unsqueeze(-1)).masked_fill(log_prior == -torch.inf, torch.nan)
    return ratio.movedim(-1, dim)


def pc_softmax(logits: Tensor, prior: Tensor, *, dim: int = -1) -> Tensor:
    r"""Probability-corrected softmax, the density ratio :math:`p(y \mid x) / p(y)` of a model.

    .. math:: \mathrm{PC}_y = \frac{e^{n_y}}{\sum_j \pi_j e^{n_j}} \in [0, 1 / \pi_y], \qquad
        \sum_y \pi_y \mathrm{PC}_y = 1

    Args:
        logits: (*, K, *) floating point; half precision is computed in float32.
        prior: (K,) class probabilities :math:`\pi`, sum 1.
        dim: the class dimension.

    Returns:
        The shape of ``logits``; NaN for a class of prior 0.

    Raises:
        TypeError: if ``logits`` or ``prior`` is not floating point.
        ValueError: if ``prior`` does not hold K probabilities.

    Example:
        >>> pc_softmax(torch.tensor([0.0, 0.0]), torch.tensor([0.9, 0.1]))
        tensor([1., 1.])

    Source: Qin, Kim and Gedeon, "Rethinking softmax with cross-entropy", arXiv 1911.10688.
    """
    return log_pc_softmax(logits, prior, dim=dim).exp()


def rows_and_log_prior(logits: Tensor, prior: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the logits with their classes last and the (K,) log prior, -inf where it is 0."""
    check_floating("logits", logits)
    if logits.dim() == 0:
        raise ValueError("logits must have a class dimension; got a scalar")
    rows = at_least_float32(logits).movedim(dim, -1)
    check_prior("prior", prior, rows.shape[-1])
    return rows, prior.to(rows).log()
