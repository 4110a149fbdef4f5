"""Concrete dropout: a relaxed mask through which the rate itself is learned."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_count, check_positive
from lastlayer.functional.dropmax.masks import concrete_log_mask
from lastlayer.functional.dropmax.terms import negative_entropy
from lastlayer.functional.feature_noise.units import draw_noise, multiply
from lastlayer.functional.numerics import at_least_float32


def concrete_dropout(
    features: Tensor,
    p_logit: Tensor,
    *,
    temperature: float = 0.1,
    unit: str = "channel",
    channel_dim: int = 1,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Drop units by a relaxed mask, differentiable with respect to the rate.

    .. math:: y = \frac{x \, z}{1 - p}, \qquad
        z = 1 - \sigma\Bigl(\frac{\operatorname{logit} p + \operatorname{logit} u}{t}\Bigr)

    At small t the mask is nearly 0 or 1. Its mean is not quite 1 - p: at t = 0.1 it is 0.8988 for
    p = 0.1, and the features shrink by that ratio.

    Args:
        features: ``(N, C, ...)``, floating point.
        p_logit: ``()``, the logit of the rate :math:`p`.
        temperature: t > 0.
        unit: what one mask is drawn for: ``"element"``, ``"channel"`` or ``"example"``.
        channel_dim: 1 for features ``(N, C, ...)``, -1 for channels last, ``(N, ..., C)``.
        noise: standard logistic numbers :math:`\operatorname{logit} u` to use: ``(N, C, ...)``,
            ``(N, C, 1, ...)`` or ``(N, 1, ...)`` by unit; large ones drop.
        generator: source of the noise, on the features' device; None for torch's default.

    Returns:
        As ``features``, dtype and memory format included.

    Raises:
        TypeError: if the features are not floating point.
        ValueError: if ``temperature``, ``unit`` or a shape does not fit.

    Example:
        >>> noise = torch.tensor([[-3.0, 0.0, 3.0]])
        >>> concrete_dropout(torch.ones(1, 3), torch.tensor(0.0), noise=noise)
        tensor([[2.0000e+00, 1.0000e+00, 1.8715e-13]])

    Source: Gal, Hron, Kendall, "Concrete Dropout", arXiv 1705.07832.
    """
    p_logit = _as_number(p_logit)
    noise = draw_noise(
        features, unit, "logistic", channel_dim=channel_dim, noise=noise, generator=generator
    )
    log_mask = concrete_log_mask(-p_logit, temperature=temperature, noise=-noise)
    return multiply(features, log_mask.exp() * (1.0 + p_logit.exp()))


def concrete_dropout_kl(
    p_logit: Tensor,
    num_features: int,
    *,
    weight: Tensor | None = None,
    length_scale: float = 1e-4,
) -> Tensor:
    r"""What the rate costs: the divergence of the weights' posterior from their prior.

    .. math:: \frac{l^2}{2 (1 - p)} \lVert W \rVert^2 - K \, H(p), \qquad
        H(p) = -p \log p - (1 - p) \log (1 - p)

    up to what depends on neither p nor W. W is the weight of the layer that reads the features; it
    stands over 1 - p because the features are divided by it already. Divided by the number N of
    training examples this goes with the mean of :math:`-\log p(y \mid x)`. A mean squared error is
    :math:`2 / \tau` times that mean for Gaussian noise of precision :math:`\tau`, and its terms are
    :math:`l^2 / (\tau N)` and :math:`2 / (\tau N)` in the authors' program.

    Args:
        p_logit: ``()``, the logit of the rate :math:`p`.
        num_features: number K of units that are dropped one by one in an example.
        weight: W, any shape; without it the first term is left out (weight decay, which does not
            depend on p, may stand in).
        length_scale: prior length scale l > 0.

    Returns:
        Nats, ``()``, at least float32.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> concrete_dropout_kl(torch.tensor(0.0), 3)
        tensor(-2.0794)

    Source: Gal, Hron, Kendall, "Concrete Dropout", arXiv 1705.07832.
    """
    check_count("num_features", num_features)
    check_positive("length_scale", length_scale)
    p_logit = _as_number(p_logit)
    kl = num_features * negative_entropy(p_logit.unsqueeze(-1))
    if weight is not None:
        norm = at_least_float32(weight).square().sum()
        kl = kl + 0.5 * length_scale**2 * (1.0 + p_logit.exp()) * norm
    return kl


def _as_number(p_logit: Tensor) -> Tensor:
    if p_logit.dim() != 0:
        raise ValueError(f"p_logit must be a 0-d tensor; got shape {tuple(p_logit.shape)}")
    return at_least_float32(p_logit)
