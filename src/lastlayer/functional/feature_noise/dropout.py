"""Dropout of elements, channels or examples, at a given rate or one that the features learn."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_rate
from lastlayer.functional.feature_noise.units import draw_noise
from lastlayer.functional.numerics import at_least_float32


def unit_dropout(
    features: Tensor,
    p: float | Tensor,
    *,
    unit: str = "element",
    channel_dim: int = 1,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Set units to 0 at random and divide the others by the probability to stay.

    .. math:: y = \begin{cases} x / (1 - p) & u \ge p \\ 0 & u < p \end{cases},
        \qquad u \sim U[0, 1) \text{ per unit}, \qquad \operatorname{E} y = x \text{ for } p < 1

    A dropped entry and its gradient are 0 whatever the input, infinite and NaN included. At p = 1
    all is dropped.

    Args:
        features: ``(N, C, ...)``, floating point.
        p: probability of a unit to be dropped, in [0, 1]; a 0-d tensor is not looked at.
        unit: ``"element"`` (dropout), ``"channel"`` (spatial dropout) or ``"example"``
            (stochastic depth).
        channel_dim: 1 for features ``(N, C, ...)``, -1 for channels last, ``(N, ..., C)``.
        noise: uniform numbers in [0, 1) to use: ``(N, C, ...)``, ``(N, C, 1, ...)`` or
            ``(N, 1, ...)`` by unit.
        generator: source of the noise, on the features' device; None for torch's default.

    Returns:
        As ``features``, dtype and memory format included.

    Raises:
        TypeError: if the features are not floating point.
        ValueError: if ``p``, ``unit`` or the shape of ``noise`` does not fit.

    Example:
        >>> unit_dropout(torch.ones(2, 3), 0.5, unit="example", noise=torch.tensor([[0.2], [0.7]]))
        tensor([[0., 0., 0.],
                [2., 2., 2.]])

    Source: Srivastava et al., JMLR 15, 2014 (elements); Tompson et al., arXiv 1411.4280 (channels);
    Huang et al., arXiv 1603.09382 (examples; there the scaling stands at test).
    """
    check_rate("p", p)
    noise = draw_noise(
        features, unit, "uniform", channel_dim=channel_dim, noise=noise, generator=generator
    )
    # At p = 1 the quotient is never seen, but a divisor of 0 would turn gradients into NaN.
    if isinstance(p, Tensor):  # its value would be rounded like half-precision features
        quotient = at_least_float32(features) / torch.where(p < 1.0, 1.0 - p, 1.0)
    else:
        quotient = features / (1.0 - p if p < 1.0 else 1.0)
    return torch.where(noise >= p, quotient.to(features.dtype), 0.0)


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
