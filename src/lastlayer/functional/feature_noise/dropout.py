"""Dropout of elements, channels or examples: one function for the family."""

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
    return torch.where(noise >= p, _divided_by_keep_probability(features, p), 0.0)


def _divided_by_keep_probability(features: Tensor, p: float | Tensor) -> Tensor:
    # At p = 1 the quotient is never seen, but a divisor of 0 would turn gradients into NaN.
    if not isinstance(p, Tensor):
        return features / (1.0 - p if p < 1.0 else 1.0)
    # Beside half-precision features a tensor's value would be rounded like them.
    quotient = at_least_float32(features) / torch.where(p < 1.0, 1.0 - p, 1.0)
    return quotient.to(features.dtype)
