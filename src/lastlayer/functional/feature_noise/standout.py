"""Standout: every unit is kept with a probability of its own, read off its pre-activation."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer.functional.feature_noise.units import draw_noise
from lastlayer.functional.numerics import at_least_float32


def standout_keep_probability(
    pre_activation: Tensor, *, alpha: float | Tensor = 1.0, beta: float | Tensor = 0.0
) -> Tensor:
    r"""Return the probability of every unit to be kept.

    .. math:: \pi = \sigma(\alpha \, W x + \beta)

    The network that decides shares the layer's weights up to scale and shift.

    Args:
        pre_activation: any shape, the layer's output :math:`W x` before its nonlinearity.
        alpha: scale; 0 gives dropout.
        beta: shift; :math:`\operatorname{logit}(1 - p)` keeps a unit at 0 with 1 - p.

    Returns:
        Probabilities, the shape of ``pre_activation``, at least float32.

    Example:
        >>> standout_keep_probability(torch.tensor([-2.0, 0.0, 2.0]))
        tensor([0.1192, 0.5000, 0.8808])

    Source: Ba, Frey, "Adaptive dropout for training deep neural networks", NIPS 2013.
    """
    return torch.sigmoid(alpha * at_least_float32(pre_activation) + beta)


def standout(
    features: Tensor,
    keep_probability: Tensor,
    *,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Keep every element with its own probability; nothing is rescaled.

    .. math:: y = x \cdot [u < \pi], \qquad \operatorname{E} y = \pi x

    What is not kept is 0, its gradient too, whatever the input. No gradient reaches
    :math:`\pi`.

    Args:
        features: ``(N, ...)``, floating point.
        keep_probability: :math:`\pi`, of the same shape.
        noise: ``(N, ...)`` uniform numbers in [0, 1) to use.
        generator: source of the noise, on the features' device; None for torch's default.

    Returns:
        As ``features``, dtype and memory format included.

    Raises:
        TypeError: if the features are not floating point.
        ValueError: if a shape does not fit.

    Example:
        >>> standout(torch.ones(2), torch.tensor([0.4, 0.6]), noise=torch.tensor([0.5, 0.5]))
        tensor([0., 1.])

    Source: Ba, Frey, NIPS 2013.
    """
    if keep_probability.shape != features.shape:
        raise ValueError(
            f"keep_probability must have the features' shape {tuple(features.shape)}; "
            f"got {tuple(keep_probability.shape)}"
        )
    noise = draw_noise(features, "element", "uniform", noise=noise, generator=generator)
    return torch.where(noise < keep_probability, features, 0.0)
