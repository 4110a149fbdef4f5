"""What noise is drawn for: every element, every channel or every example of a feature map."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_choice, check_floating
from lastlayer.functional.dropmax.masks import logistic_noise

#: The dimensions that each unit has for itself; over the others its noise is shared.
UNITS = {"element": None, "channel": 2, "example": 1}
DISTRIBUTIONS = ("uniform", "normal", "logistic")


def unit_shape(features: Tensor, unit: str) -> tuple[int, ...]:
    """Return the shape of the noise: that of the features, 1 where it is shared.

    Args:
        features: ``(N, C, ...)``.
        unit: ``"element"`` ``(N, C, ...)``, ``"channel"`` ``(N, C, 1, ...)`` or ``"example"``
            ``(N, 1, ...)``.

    Returns:
        As many sizes as the features have dimensions.

    Raises:
        ValueError: if the unit is unknown or the features have too few dimensions for it.

    Example:
        >>> unit_shape(torch.empty(2, 3, 4, 4), "channel")
        (2, 3, 1, 1)
    """
    check_choice("unit", unit, UNITS)
    own = UNITS[unit]
    if own is None:
        return tuple(features.shape)
    if features.dim() < own:
        raise ValueError(
            f"features must have at least {own} dimensions for unit={unit!r}; "
            f"got {tuple(features.shape)}"
        )
    return tuple(features.shape[:own]) + (1,) * (features.dim() - own)


def draw_noise(
    features: Tensor,
    unit: str,
    distribution: str,
    *,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one number for every unit, or check those that are given.

    Args:
        features: ``(N, C, ...)``, floating point.
        unit: as :func:`unit_shape` takes it.
        distribution: ``"uniform"`` on [0, 1), standard ``"normal"`` or standard ``"logistic"``.
        noise: numbers to return instead of new ones, of the shape of :func:`unit_shape`.
        generator: source of the noise, on the features' device; None for torch's default.

    Returns:
        Noise of the shape of :func:`unit_shape`, at least float32, in the features' memory format.

    Raises:
        TypeError: if the features are not floating point.
        ValueError: if the unit, the distribution or the shape of ``noise`` does not fit.

    Example:
        >>> draw_noise(torch.empty(2, 3, 4, 4), "example", "normal").shape
        torch.Size([2, 1, 1, 1])
    """
    check_floating("features", features)
    check_choice("distribution", distribution, DISTRIBUTIONS)
    shape = unit_shape(features, unit)
    if noise is not None:
        if noise.shape != shape:
            raise ValueError(f"noise must have shape {shape}; got {tuple(noise.shape)}")
        return noise.to(torch.promote_types(noise.dtype, torch.float32))
    dtype = torch.promote_types(features.dtype, torch.float32)
    if shape == features.shape:  # in the order of the features' memory
        empty = torch.empty_like(features, dtype=dtype, requires_grad=False)
    else:
        empty = torch.empty(shape, dtype=dtype, device=features.device)
    if distribution == "logistic":
        return logistic_noise(empty, generator=generator)
    draw = empty.normal_ if distribution == "normal" else empty.uniform_
    return draw(generator=generator)


def per_channel(values: Tensor, features: Tensor) -> Tensor:
    """Return one number per channel, or one for all, in a shape that multiplies the features.

    Args:
        values: ``(C,)`` or ``()``.
        features: ``(N, C, ...)``.

    Returns:
        ``(1, C, 1, ...)`` or ``()``.

    Raises:
        ValueError: if the sizes differ.

    Example:
        >>> per_channel(torch.ones(3), torch.empty(2, 3, 4, 4)).shape
        torch.Size([1, 3, 1, 1])
    """
    if values.dim() == 0:
        return values
    if features.dim() < 2 or values.shape != features.shape[1:2]:
        raise ValueError(
            f"features must have shape (N, {', '.join(map(str, values.shape))}, ...); "
            f"got {tuple(features.shape)}"
        )
    return values.view(1, -1, *(1,) * (features.dim() - 2))


def multiply(features: Tensor, factor: Tensor) -> Tensor:
    """Return the product in the features' dtype, computed in that of the factor if wider.

    Args:
        features: ``(N, C, ...)``.
        factor: at least float32, of as many dimensions, of size 1 or the features'.

    Returns:
        As ``features``.

    Example:
        >>> multiply(torch.ones(2, dtype=torch.bfloat16), torch.tensor([0.5]))
        tensor([0.5000, 0.5000], dtype=torch.bfloat16)
    """
    return (features * factor).to(features.dtype)
