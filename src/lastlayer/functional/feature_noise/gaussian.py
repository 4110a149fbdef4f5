"""Multiplicative Gaussian noise: its variance given or learned, and what learning it costs."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_choice, check_rate
from lastlayer.functional.feature_noise.units import draw_noise, multiply, per_channel
from lastlayer.functional.numerics import at_least_float32, softplus


def gaussian_dropout(
    features: Tensor,
    p: float | Tensor,
    *,
    unit: str = "element",
    channel_dim: int = 1,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Multiply by Gaussian noise of the mean and the variance of inverted dropout.

    .. math:: y = x \, (1 + \sqrt{p / (1 - p)} \, \varepsilon), \qquad \varepsilon \sim N(0, 1)

    Args:
        features: ``(N, C, ...)``, floating point.
        p: rate in [0, 1) of the dropout with the same two moments; a 0-d tensor is not looked at.
        unit: what one number is drawn for: ``"element"``, ``"channel"`` or ``"example"``.
        channel_dim: 1 for features ``(N, C, ...)``, -1 for channels last, ``(N, ..., C)``.
        noise: standard normal numbers to use: ``(N, C, ...)``, ``(N, C, 1, ...)`` or
            ``(N, 1, ...)`` by unit.
        generator: source of the noise, on the features' device; None for torch's default.

    Returns:
        As ``features``, dtype and memory format included.

    Raises:
        TypeError: if the features are not floating point.
        ValueError: if ``p``, ``unit`` or the shape of ``noise`` does not fit.

    Example:
        >>> gaussian_dropout(torch.ones(3), 0.5, noise=torch.tensor([-1.0, 0.0, 2.0]))
        tensor([0., 1., 3.])

    Source: Srivastava et al., "Dropout", JMLR 15, 2014, section 10.
    """
    check_rate("p", p)
    if not isinstance(p, Tensor) and p == 1.0:
        raise ValueError("p must lie in [0, 1): the variance p / (1 - p) has no value at 1")
    noise = draw_noise(
        features, unit, "normal", channel_dim=channel_dim, noise=noise, generator=generator
    )
    return multiply(features, 1.0 + (p / (1.0 - p)) ** 0.5 * noise)


def variational_dropout(
    features: Tensor,
    log_alpha: Tensor,
    *,
    unit: str = "channel",
    channel_dim: int = 1,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Multiply by Gaussian noise of a variance that may be learned.

    .. math:: y = x \, (1 + \sqrt{\alpha_c} \, \varepsilon), \qquad \varepsilon \sim N(0, 1)

    This is :func:`gaussian_dropout` at :math:`p = \alpha / (1 + \alpha)`, differentiable with
    respect to :math:`\log\alpha`. One number per channel and example is a sample of all weights
    that read the channel, each Gaussian with mean w and variance :math:`\alpha w^2` and fully
    correlated over a channel.

    Args:
        features: ``(N, C, ...)``, floating point.
        log_alpha: ``(C,)`` or ``()``, :math:`\log\alpha`.
        unit: what one number is drawn for: ``"element"``, ``"channel"`` or ``"example"``.
        channel_dim: 1 for features ``(N, C, ...)``, -1 for channels last, ``(N, ..., C)``.
        noise: standard normal numbers to use: ``(N, C, ...)``, ``(N, C, 1, ...)`` or
            ``(N, 1, ...)`` by unit.
        generator: source of the noise, on the features' device; None for torch's default.

    Returns:
        As ``features``, dtype and memory format included.

    Raises:
        TypeError: if the features are not floating point.
        ValueError: if ``unit`` or a shape does not fit.

    Example:
        >>> noise = torch.tensor([[-1.0, 2.0]])
        >>> variational_dropout(torch.ones(1, 2), torch.zeros(2), noise=noise)
        tensor([[0., 3.]])

    Source: Kingma, Salimans, Welling, arXiv 1506.02557, section 3.2 (correlated weight noise).
    """
    noise = draw_noise(
        features, unit, "normal", channel_dim=channel_dim, noise=noise, generator=generator
    )
    deviation = (
        0.5 * at_least_float32(per_channel(log_alpha, features, channel_dim=channel_dim))
    ).exp()
    return multiply(features, 1.0 + deviation * noise)


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
