"""What multiplicative Gaussian noise costs against the log-uniform prior."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_choice
from lastlayer.functional.numerics import at_least_float32, softplus

KL_APPROXIMATIONS = ("kingma", "molchanov")

_CUBIC = (1.16145124, -1.50204118, 0.58629921)
_SIGMOID = (0.63576, 1.87320, 1.48695)
# (Euler's constant + log 2) / 2: the exact divergence plus log(alpha) / 2 tends to it at alpha = 0.
_LIMIT = 0.6351814227307391


def log_uniform_kl(log_alpha: Tensor, *, approximation: str = "molchanov") -> Tensor:
    r"""Approximate the divergence of :math:`N(1, \alpha)` from the log-uniform prior.

    The prior, :math:`p(\log|s|) \propto 1`, is improper and leaves a constant free; chosen so that
    the divergence vanishes as :math:`\alpha \to \infty`, it is

    .. math:: \mathrm{KL} = \operatorname{E}_{s \sim N(1, \alpha)} \log|s|
        - \tfrac12 \log\alpha + \tfrac12 (\gamma + \log 2).

    ``"kingma"``, for :math:`\alpha \le 1` only, with
    :math:`c = (1.16145124, -1.50204118, 0.58629921)`:

    .. math:: \tfrac12(\gamma + \log 2) - \tfrac12 \log\alpha - c_1 \alpha - c_2 \alpha^2
        - c_3 \alpha^3

    ``"molchanov"``, for any :math:`\alpha`, with :math:`k = (0.63576, 1.87320, 1.48695)`:

    .. math:: k_1 - k_1 \, \sigma(k_2 + k_3 \log\alpha) + \tfrac12 \log(1 + \alpha^{-1})

    The second is within 0.0094 of the exact value everywhere. The first lies up to 0.041 below it
    for :math:`\alpha \le 1` (with another constant, within 0.021), and is of no use beyond.

    Args:
        log_alpha: any shape, :math:`\log\alpha`.
        approximation: ``"kingma"`` or ``"molchanov"``.

    Returns:
        Nats, the shape of ``log_alpha``, at least float32.

    Raises:
        ValueError: if the approximation is unknown.

    Example:
        >>> log_uniform_kl(torch.tensor([-2.0, 0.0, 2.0]))
        tensor([1.5405, 0.4312, 0.0684])

    Source: Kingma, Salimans, Welling, arXiv 1506.02557; Molchanov, Ashukha, Vetrov, arXiv
    1701.05369, eq. 14.
    """
    check_choice("approximation", approximation, KL_APPROXIMATIONS)
    log_alpha = at_least_float32(log_alpha)
    if approximation == "molchanov":
        k1, k2, k3 = _SIGMOID
        return k1 * torch.sigmoid(-(k2 + k3 * log_alpha)) + 0.5 * softplus(-log_alpha)
    c1, c2, c3 = _CUBIC
    alpha = log_alpha.exp()
    return _LIMIT - 0.5 * log_alpha - alpha * (c1 + alpha * (c2 + alpha * c3))
