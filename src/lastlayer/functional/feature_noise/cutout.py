"""Cutout: squares of the input are erased."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_channel_dim, check_count, check_probability, check_rate
from lastlayer.functional.numerics import drawn_by


def cutout(
    images: Tensor,
    length: int,
    *,
    num_squares: int = 1,
    p: float | Tensor = 1.0,
    fill: float | Tensor = 0.0,
    channel_dim: int = 1,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Erase squares at random places, the same in all channels of an image.

    A square's center is uniform over the pixels; at row r it covers the rows from
    :math:`r - \lfloor L/2 \rfloor` on, L of them, and as much of them as lies in the image. Nothing
    is rescaled. The authors' program loses a row and a column where L is odd; this one does not.

    Args:
        images: ``(N, C, H, W)`` of any dtype, or ``(N, H, W, C)`` with ``channel_dim=-1``.
        length: side L of a square in pixels, at least 1.
        num_squares: squares S per image; they may overlap.
        p: probability of each square to be there, in [0, 1]; a 0-d tensor is not looked at.
        fill: what is written: a number or ``(C,)`` numbers.
        channel_dim: 1 for channels first, -1 for channels last.
        noise: ``(N, S, 3)`` uniform numbers in [0, 1) to use: presence, row and column of a
            square.
        generator: source of the noise, on the images' device; None for torch's default.

    Returns:
        As ``images``, dtype and memory format included.

    Raises:
        ValueError: if a shape, ``length``, ``num_squares`` or ``p`` does not fit.

    Example:
        >>> cutout(torch.ones(1, 1, 3, 4), 3, noise=torch.zeros(1, 1, 3))[0, 0]
        tensor([[0., 0., 1., 1.],
                [0., 0., 1., 1.],
                [1., 1., 1., 1.]])

    Source: DeVries, Taylor, arXiv 1708.04552.
    """
    _check_squares(length, num_squares)
    check_rate("p", p)
    check_channel_dim(channel_dim)
    if images.dim() != 4:
        wanted = "(N, C, H, W)" if channel_dim == 1 else "(N, H, W, C)"
        raise ValueError(f"images must have shape {wanted}; got {tuple(images.shape)}")
    channels = images.shape[channel_dim]
    height, width = images.shape[2:] if channel_dim == 1 else images.shape[1:3]
    shape = (len(images), num_squares, 3)
    if noise is None:
        noise = torch.rand(shape, dtype=torch.float32, device=images.device, **drawn_by(generator))
    elif noise.shape != shape:
        raise ValueError(f"noise must have shape {shape}; got {tuple(noise.shape)}")
    presence, row, column = noise.unbind(-1)
    rows, columns = _covered(row, height, length), _covered(column, width, length)
    square = (presence < p)[..., None, None] & rows[..., :, None] & columns[..., None, :]
    if not isinstance(fill, Tensor):
        fill = torch.full((), fill, device=images.device)
    elif fill.dim() > 1 or (fill.dim() == 1 and fill.shape[0] != channels):
        raise ValueError(
            f"fill must be a number or have shape ({channels},); got {tuple(fill.shape)}"
        )
    fill = fill.to(images.dtype)
    if channel_dim == 1:
        fill = fill.view(-1, 1, 1)
    return torch.where(square.any(1).unsqueeze(channel_dim), fill, images)


def cutout_probability(
    size: tuple[int, int], length: int, *, num_squares: int = 1, p: float = 1.0
) -> Tensor:
    r"""Return the probability of every pixel to be erased by :func:`cutout`.

    .. math:: 1 - \Bigl(1 - p\,\frac{n_i}{H}\,\frac{n_j}{W}\Bigr)^S

    with :math:`n_i` the number of center rows whose square covers row i, and :math:`n_j` likewise:
    L inside, and less within L/2 of a border, so that corners are erased a quarter as often.

    Args:
        size: height H and width W.
        length: side L of a square.
        num_squares: squares S per image.
        p: probability of each square to be there.

    Returns:
        ``(H, W)`` probabilities, float64.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> cutout_probability((1, 4), 2)
        tensor([[0.5000, 0.5000, 0.5000, 0.2500]], dtype=torch.float64)
    """
    _check_squares(length, num_squares)
    check_probability("p", p)
    rows, columns = (_center_share(extent, length) for extent in size)
    return 1.0 - (1.0 - p * rows[:, None] * columns).pow(num_squares)


def _check_squares(length: int, num_squares: int) -> None:
    check_count("length", length)
    check_count("num_squares", num_squares)


def _covered(uniform: Tensor, extent: int, length: int) -> Tensor:
    """Mark the (*, extent) positions that an interval with a uniform center covers."""
    first = (uniform * extent).long() - length // 2
    position = torch.arange(extent, device=uniform.device) - first.unsqueeze(-1)
    return (position >= 0) & (position < length)


def _center_share(extent: int, length: int) -> Tensor:
    """Return the share of centers whose interval covers each position."""
    position = torch.arange(extent, dtype=torch.float64)
    last = (position + length // 2).clamp_max(extent - 1)
    first = (position + length // 2 - length + 1).clamp_min(0)
    return (last - first + 1).clamp_min(0) / extent
