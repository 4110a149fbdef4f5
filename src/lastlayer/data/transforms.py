"""Crops, reflections and rotations of whole batches of images, given what each image gets.

Where a crop or a rotation looks beyond an image it finds ``fill``, 0 by default: images here lie in
[0, 1] and are not normalized (see :class:`lastlayer.data.Splits`), so that 0 is black. For images
normalized by a channel's mean and standard deviation black is ``-mean / std``, one number per
channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lastlayer._checks import can_look, check_choice, check_whole

Fill = float | Sequence[float]
"""A number for all channels, or one per channel."""

INTERPOLATIONS = ("nearest", "bilinear")


def crop(images: Tensor, top: Tensor, left: Tensor, *, padding: int, fill: Fill = 0.0) -> Tensor:
    r"""Pad every image on all sides and cut a window of its old size out of it.

    .. math::

        y_{nchw} = x_{nc,\,h + t_n - p,\,w + l_n - p}

    Args:
        images: ``(N, C, H, W)``, any dtype.
        top: (N) int64 first row t of each window, in [0, 2 * padding].
        left: (N) int64 first column l of each window, in [0, 2 * padding].
        padding: width p of the border in pixels, at least 0.
        fill: value of the border, one for all channels or one per channel.

    Returns:
        Images as ``images``.

    Raises:
        ValueError: if a shape or value does not fit.

    Example:
        >>> image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
        >>> crop(image, torch.tensor([2]), torch.tensor([1]), padding=1)[0, 0]
        tensor([[3., 4.],
                [0., 0.]])
    """
    _check_images(images)
    check_whole("padding", padding, 0)
    for name, offset in (("top", top), ("left", left)):
        _check_per_image(name, offset, images)
        _check_offset(name, offset, 2 * padding)
    height, width = images.shape[2:]
    # Every window as a view; the indexing copies one of them per image.
    windows = _padded(images, padding, fill).unfold(2, height, 1).unfold(3, width, 1)
    rows = torch.arange(len(images), device=images.device)
    return windows[rows, :, top, left]


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror some images left to right.

    Args:
        images: ``(N, C, H, W)``, any dtype.
        flipped: (N) bool, which.

    Returns:
        Images as ``images``.

    Raises:
        ValueError: if a shape does not fit.

    Example:
        >>> images = torch.tensor([1.0, 2.0]).expand(2, 1, 1, 2)
        >>> flip(images, torch.tensor([True, False])).flatten(1)
        tensor([[2., 1.],
                [1., 2.]])
    """
    _check_images(images)
    _check_per_image("flipped", flipped, images)
    return torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images)


def rotate(
    images: Tensor, degrees: Tensor, *, interpolation: str = "nearest", fill: Fill = 0.0
) -> Tensor:
    r"""Turn every image counter-clockwise about its center; what leaves the frame is lost.

    With coordinates from the center, y downwards, the output at :math:`(x, y)` is the image at

    .. math::

        (x \cos\theta - y \sin\theta,\; x \sin\theta + y \cos\theta).

    Args:
        images: ``(N, C, H, W)``; any dtype for ``"nearest"``, floating point for ``"bilinear"``.
        degrees: (N) floating-point angles theta in degrees.
        interpolation: ``"nearest"`` takes the nearest pixel (torchvision's default),
            ``"bilinear"`` the mean of the four around, in float32 at least.
        fill: value beyond the image, one for all channels or one per channel.

    Returns:
        Images as ``images``.

    Raises:
        ValueError: if a shape or the interpolation does not fit.
        TypeError: if ``"bilinear"`` is asked of integers.

    Example:
        >>> image = torch.tensor([[1, 2], [3, 4]]).view(1, 1, 2, 2)
        >>> rotate(image, torch.tensor([90.0]))[0, 0]
        tensor([[2, 4],
                [1, 3]])
    """
    _check_images(images)
    _check_per_image("degrees", degrees, images)
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    x, y = _turned_grid(images, degrees)
    sample = _nearest if interpolation == "nearest" else _bilinear
    return _formatted_like(images, sample(images, x, y, fill))


def _padded(images: Tensor, padding: int, fill: Fill) -> Tensor:
    if padding == 0:
        return images
    border = (padding,) * 4
    if not isinstance(fill, Sequence):
        return F.pad(images, border, value=fill)
    padded = F.pad(images, border)
    padded.copy_(_fill_values(images, fill).expand_as(padded))
    padded[:, :, padding:-padding, padding:-padding].copy_(images)
    return padded


def _turned_grid(images: Tensor, degrees: Tensor) -> tuple[Tensor, Tensor]:
    """Return where every pixel comes from: columns and rows from the center, (N, H, W) each."""
    height, width = images.shape[2:]
    # Half precision would miss the pixel.
    dtype = torch.float64 if degrees.dtype == torch.float64 else torch.float32
    radians = torch.deg2rad(degrees.to(dtype)).view(-1, 1, 1)
    cosine, sine = radians.cos(), radians.sin()
    rows = torch.arange(height, device=images.device, dtype=dtype).view(-1, 1) - (height - 1) / 2
    columns = torch.arange(width, device=images.device, dtype=dtype) - (width - 1) / 2
    return columns * cosine - rows * sine, columns * sine + rows * cosine


def _nearest(images: Tensor, x: Tensor, y: Tensor, fill: Fill) -> Tensor:
    height, width = images.shape[2:]
    column = (x + (width - 1) / 2).round_().long()
    row = (y + (height - 1) / 2).round_().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = row.clamp_(0, height - 1) * width + column.clamp_(0, width - 1)
    index = index.flatten(1).unsqueeze(1).expand(-1, images.shape[1], -1)
    found = images.flatten(2).gather(2, index).view(images.shape)
    return torch.where(inside.unsqueeze(1), found, _fill_values(images, fill))


def _bilinear(images: Tensor, x: Tensor, y: Tensor, fill: Fill) -> Tensor:
    if not images.is_floating_point():
        raise TypeError(f"bilinear interpolation needs floating-point images; got {images.dtype}")
    height, width = images.shape[2:]
    dtype = torch.float64 if images.dtype == torch.float64 else torch.float32
    grid = torch.stack([x * (2 / width), y * (2 / height)], dim=-1).to(dtype)
    # What is beyond counts as 0 there, so that fill must be 0.
    values = _fill_values(images, fill).to(dtype) if fill != 0 else None
    shifted = images.to(dtype) if values is None else images.to(dtype) - values
    turned = F.grid_sample(shifted, grid, mode="bilinear", align_corners=False)
    return (turned if values is None else turned + values).to(images.dtype)


def _fill_values(images: Tensor, fill: Fill) -> Tensor:
    """Return ``fill`` as a tensor that broadcasts over the images."""
    if not isinstance(fill, Sequence):
        return torch.full((), fill, dtype=images.dtype, device=images.device)
    if len(fill) != images.shape[1]:
        raise ValueError(
            f"fill must be a number or one per channel; got {len(fill)} for images of shape "
            f"{tuple(images.shape)}"
        )
    return torch.tensor(fill, dtype=images.dtype, device=images.device).view(-1, 1, 1)


def _formatted_like(images: Tensor, changed: Tensor) -> Tensor:
    if images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last):
        return changed.contiguous()
    return changed.contiguous(memory_format=torch.channels_last)


def _check_images(images: Tensor) -> None:
    if images.dim() != 4:
        raise ValueError(f"images must have shape (N, C, H, W); got {tuple(images.shape)}")


def _check_per_image(name: str, values: Tensor, images: Tensor) -> None:
    if values.shape != (len(images),):
        raise ValueError(
            f"{name} must have shape ({len(images)},), one value per image; "
            f"got {tuple(values.shape)}"
        )


def _check_offset(name: str, offset: Tensor, largest: int) -> None:
    # On the CPU only: elsewhere a look at the values would make the step wait for the device.
    if offset.numel() == 0 or not can_look(offset):
        return
    smallest, greatest = (int(bound) for bound in offset.aminmax())
    if smallest < 0 or greatest > largest:
        raise ValueError(f"{name} must lie in [0, {largest}]; got {smallest} to {greatest}")
