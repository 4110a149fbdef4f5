"""Pointwise mutual information of an input and a label, read off logits."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_choice
from lastlayer.functional.information.density_ratio import log_pc_softmax, rows_and_log_prior

#: The losses after which logits can be read as pointwise information.
TRAINED_WITH = ("cross-entropy", "pc-softmax")


def pointwise_information(
    logits: Tensor, prior: Tensor, *, trained_with: str = "cross-entropy", dim: int = -1
) -> Tensor:
    r"""Pointwise mutual information of every input and class, as the model sees it.

    .. math::
        \mathrm{pmi}(x, y) = \log \frac{p(y \mid x)}{p(y)} \approx
        \begin{cases}
            \log \mathrm{softmax}_y(n) - \log \pi_y & \text{cross-entropy} \\
            n_y - \log \sum_j \pi_j e^{n_j} & \text{PC-softmax}
        \end{cases}

    It is at most :math:`-\log \pi_y`, has no lower limit, and
    :math:`\sum_y \pi_y e^{\mathrm{pmi}(x, y)} = 1` for every x. Reading logits in the way of the
    other loss underestimates the information.

    Args:
        logits: (*, K, *) logits; log-probabilities do as well for ``"cross-entropy"``.
        prior: (K,) class probabilities :math:`\pi`, sum 1.
        trained_with: the loss the logits were trained with, ``"cross-entropy"`` or
            ``"pc-softmax"``.
        dim: the class dimension.

    Returns:
        The shape of ``logits``, in nats; NaN for a class of prior 0, where it is undefined.

    Raises:
        TypeError: if ``logits`` or ``prior`` is not floating point.
        ValueError: if an option or the shape of ``prior`` does not fit.

    Example:
        >>> prior = torch.tensor([0.8, 0.2])
        >>> pointwise_information(torch.tensor([[0.5, 0.5]]).log(), prior)
        tensor([[-0.4700,  0.9163]])
        >>> pointwise_information(torch.eye(2), prior, trained_with="pc-softmax")
        tensor([[ 0.1352, -0.8648],
                [-0.2954,  0.7046]])

    Source: Qin and Kim, "Softmax is not an artificial trick", arXiv 1910.02629; Qin, Kim and
    Gedeon, "Rethinking softmax with cross-entropy", arXiv 1911.10688; derived here.
    """
    check_choice("trained_with", trained_with, TRAINED_WITH)
    if trained_with == "pc-softmax":
        return log_pc_softmax(logits, prior, dim=dim)
    rows, log_prior = rows_and_log_prior(logits, prior, dim)
    ratio = rows.log_softmax(dim=-1) - log_prior
    return ratio.masked_fill(log_prior == -torch.inf, torch.nan).movedim(-1, dim)
