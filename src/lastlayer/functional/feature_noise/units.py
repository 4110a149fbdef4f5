"""What noise is drawn for: every element, every channel or every example of a feature map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lastlayer._checks import check_channel_dim, check_choice, check_floating, check_generator
from lastlayer.functional.dropmax.masks import logistic_noise

#: What can have one number of noise for itself.
UNITS = ("element", "channel", "example")
DISTRIBUTIONS = ("uniform", "normal", "logistic")


def unit_shape(features: Tensor, unit: str, *, channel_dim: int = 1) -> tuple[int, ...]:
    """Return the shape of the noise: that of the features, 1 where it is shared.

    Args:
        features: ``(N, C, ...)``, or ``(N, ..., C)`` with ``channel_dim=-1``.
        unit: ``"element"`` ``(N, C, ...)``, ``"channel"`` ``(N, C, 1, ...)`` or ``"example"``
            ``(N, 1, ...)``.
        channel_dim: 1 for features ``(N, C, ...)``, -1 for channels last, ``(N, ..., C)``.

    Returns:
        As many sizes as the features have dimensions.

    Raises:
        ValueError: if the unit or ``channel_dim`` is unknown, or the features have too few
            dimensions for it.

    Example:
        >>> unit_shape(torch.empty(2, 3, 4, 4), "channel")
        (2, 3, 1, 1)
        >>> unit_shape(torch.empty(2, 4, 4, 3), "channel", channel_dim=-1)
        (2, 1, 1, 3)
    """
    check_choice("unit", unit, UNITS)
    check_channel_dim(channel_dim)
    if unit == "element":
        return tuple(features.shape)
    needed = 2 if unit == "channel" else 1
    if features.dim() < needed:
        raise ValueError(
            f"features must have at least {needed} dimensions for unit={unit!r}; "
            f"got {tuple(features.shape)}"
        )
    shape = [features.shape[0]] + [1] * (features.dim() - 1)
    if unit == "channel":
        shape[channel_dim] = features.shape[channel_dim]
    return tuple(shape)


def draw_noise(
    features: Tensor,
    unit: str,
    distribution: str,
    *,
    channel_dim: int = 1,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one number for every unit, or check those that are given.

    Args:
        features: ``(N, C, ...)``, floating point.
        unit: as :func:`unit_shape` takes it.
        distribution: ``"uniform"`` on [0, 1), standard ``"normal"`` or standard ``"logistic"``.
        channel_dim: as :func:`unit_shape` takes it.
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
    shape = unit_shape(features, unit, channel_dim=channel_dim)
    if noise is not None:
        if noise.shape != shape:
            raise ValueError(f"noise must have shape {shape}; got {tuple(noise.shape)}")
        return noise.to(torch.promote_types(noise.dtype, torch.float32))
    check_generator(generator)
    dtype = torch.promote_types(features.dtype, torch.float32)
    if shape == features.shape:  # in the order of the features' memory
        empty = torch.empty_like(features, dtype=dtype, requires_grad=False)
    else:  # new_empty is batched under torch.vmap as the features are, torch.empty is not
        empty = features.new_empty(shape, dtype=dtype)
    if distribution == "logistic":
        return logistic_noise(empty, generator=generator)
    draw = empty.normal_ if distribution == "normal" else empty.uniform_
    return draw(generator=generator)


def per_channel(values: Tensor, features: Tensor, *, channel_dim: int = 1) -> Tensor:
    """Return (C,) or () values in a shape that multiplies the features by channel."""
    if values.dim() == 0:
        return values
    check_num_channels(features.shape, values.numel(), channel_dim)
    shape = [1] * features.dim()
    shape[channel_dim] = -1
    return values.view(shape)


def check_num_channels(shape: Sequence[int], channels: int, channel_dim: int) -> None:
    """Raise ``ValueError`` unless features of ``shape`` have so many channels."""
    if len(shape) < 2 or shape[channel_dim] != channels:
        wanted = f"(N, {channels}, ...)" if channel_dim == 1 else f"(N, ..., {channels})"
        raise ValueError(f"features must have shape {wanted}; got {tuple(shape)}")


def multiply(features: Tensor, factor: Tensor) -> Tensor:
    """Return the product in the features' dtype, computed in that of the factor if wider."""
    return (features * factor).to(features.dtype)
