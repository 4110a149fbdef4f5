"""Digit canvases: one digit somewhere on a noisy canvas, with its box."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_count, check_probability, check_whole
from lastlayer.data.sources import SOURCES, Examples, Raw


class Canvases(NamedTuple):
    """Canvases with what stands on them.

    Attributes:
        images: (N, C, size, size) float32 in [0, 1].
        target: (N,) int64 labels.
        boxes: (N, 4) int64 half-open boxes, (left, top, right, bottom).
    """

    images: Tensor
    target: Tensor
    boxes: Tensor


def digit_canvases(
    digits: Tensor,
    target: Tensor,
    *,
    size: int = 32,
    smallest: int = 12,
    largest: int = 16,
    noise: float = 0.1,
    box_threshold: float = 0.3,
    seed: int = 0,
) -> Canvases:
    r"""Paste every digit, at a random size and place, on a canvas of uniform noise.

    .. math:: x = \min(1, \text{digit} + \nu u), \qquad u \sim U[0, 1)

    The digit is resized bilinearly (smoothed where it shrinks) to a square with a side drawn from
    {smallest, ..., largest} and lies wholly on the canvas. Its box is the smallest around the
    digit's own pixels, without the noise, above ``box_threshold``. The noise covers digit and rest
    alike, so that no edge of the pasted square gives the place away.

    Args:
        digits: (N, C, h, w) float in [0, 1], or uint8.
        target: (N,) int64 labels.
        size: side of the canvas in pixels.
        smallest: least side of a digit in pixels.
        largest: greatest side of a digit, at most ``size``.
        noise: height of the noise :math:`\nu` in [0, 1].
        box_threshold: what a pixel of the digit must exceed to lie in its box, in [0, 1].
        seed: fixes sizes, places and noise; at least 0.

    Returns:
        The :class:`Canvases`, in the order of the digits.

    Raises:
        ValueError: if a shape, size or range does not fit.

    Example:
        >>> canvases = digit_canvases(torch.ones(2, 1, 8, 8), torch.tensor([3, 5]), smallest=16)
        >>> canvases.images.shape, (canvases.boxes[:, 2:] - canvases.boxes[:, :2]).tolist()
        (torch.Size([2, 1, 32, 32]), [[16, 16], [16, 16]])
    """
    digits = as_unit_images(digits, target)
    check_count("smallest", smallest)
    if not smallest <= largest <= size:
        raise ValueError(
            "sizes must satisfy smallest <= largest <= size; "
            f"got smallest={smallest}, largest={largest}, size={size}"
        )
    check_probability("noise", noise)
    check_probability("box_threshold", box_threshold)
    check_whole("seed", seed, 0)
    generator = torch.Generator().manual_seed(seed)
    count, channels = digits.shape[:2]
    side = torch.randint(smallest, largest + 1, (count,), generator=generator)
    place = torch.rand(count, 2, generator=generator)
    top, left = ((size - side + 1).unsqueeze(1) * place).long().unbind(1)
    images = torch.zeros(count, channels, size, size)
    for length in range(smallest, largest + 1):  # all digits of one size together
        rows = (side == length).nonzero().squeeze(1)
        if len(rows) == 0:
            continue
        resized = F.interpolate(
            digits[rows], (length, length), mode="bilinear", align_corners=False, antialias=True
        )
        step = torch.arange(length)
        down = (top[rows, None] + step)[:, None, :, None]
        across = (left[rows, None] + step)[:, None, None, :]
        channel = torch.arange(channels)[None, :, None, None]
        images[rows[:, None, None, None], channel, down, across] = resized
    boxes = ink_boxes(images.amax(1) > box_threshold)
    images.add_(torch.rand(images.shape, generator=generator), alpha=noise).clamp_(0.0, 1.0)
    return Canvases(images, target, boxes)


def ink_boxes(ink: Tensor) -> Tensor:
    """Return the smallest half-open box around the true pixels of each (N, H, W) mask.

    Example:
        >>> ink_boxes(torch.tensor([[[False, True, True], [False, True, False]]]))
        tensor([[1, 0, 3, 2]])
    """
    found = []
    for dim in (1, 2):  # columns are those with a pixel in any row, and the reverse
        line = ink.any(dim)
        first = line.int().argmax(1)
        last = line.shape[1] - line.flip(1).int().argmax(1)
        found.append(torch.where(line.any(1), torch.stack((first, last)), 0))
    (left, right), (top, bottom) = found
    return torch.stack((left, top, right, bottom), dim=1)


def as_unit_images(images: Tensor, target: Tensor) -> Tensor:
    """Return (N, C, h, w) images as float32 in [0, 1], or raise ``ValueError``."""
    if images.dim() != 4 or target.shape != (len(images),) or len(images) == 0:
        raise ValueError(
            "digits must have shape (N, C, h, w) and target (N,), N at least 1; "
            f"got {tuple(images.shape)} and {tuple(target.shape)}"
        )
    if images.dtype == torch.uint8:
        return images.to(torch.float32).div_(255.0)
    images = images.to(torch.float32)
    low, high = (float(bound) for bound in images.aminmax())
    if not (low >= 0.0 and high <= 1.0):  # also where a bound is NaN
        raise ValueError(f"digits must lie in [0, 1]; got values {low:g} to {high:g}")
    return images


@SOURCES.register(
    "digit-canvas", description="digits at random places of noisy canvases, from any digit source"
)
def digit_canvas(
    data_dir: Path | None = None,
    *,
    source: str = "digits",
    size: int = 32,
    smallest: int = 12,
    largest: int = 16,
    noise: float = 0.1,
    canvas_seed: int = 0,
) -> Raw:
    """Make a canvas of every training and test image of another source.

    Args:
        data_dir: folder of the other source's files.
        source: the other source, one of images; ``"digits"`` needs no files.
        size: side of the canvas, see :func:`digit_canvases`, as are the rest.
        smallest: least side of a digit.
        largest: greatest side of a digit.
        noise: height of the noise.
        canvas_seed: fixes sizes, places and noise, whatever the seed of a run.

    Returns:
        As many images as the other source has, of its classes.

    Raises:
        ValueError: if the source has no images, or an option does not fit.
    """
    raw = read_digits(source, data_dir)
    train, test = canvas_parts(
        raw, size=size, smallest=smallest, largest=largest, noise=noise, seed=canvas_seed
    )
    return Raw(
        train=Examples(train.images, train.target),
        test=Examples(test.images, test.target),
        class_names=raw.class_names,
        kind="image",
        notes=raw.notes,
    )


def canvas_parts(raw: Raw, *, seed: int = 0, **options: Any) -> tuple[Canvases, Canvases]:
    """Return the training and test :class:`Canvases` of a source of images.

    They are those of the data source ``"digit-canvas"``; the two parts draw their own sizes, places
    and noise from the seed. The options are of :func:`digit_canvases`.

    Example:
        >>> train, test = canvas_parts(read_digits("digits"), size=24)
        >>> train.images.shape, test.boxes.shape
        (torch.Size([1297, 1, 24, 24]), torch.Size([500, 4]))
    """
    check_whole("seed", seed, 0)
    train, test = (
        digit_canvases(_images(examples), examples.target, seed=2 * seed + part, **options)
        for part, examples in enumerate((raw.train, raw.test))
    )
    return train, test


def canvas_boxes(
    data_dir: Path | None = None, *, source: str = "digits", canvas_seed: int = 0, **options: Any
) -> Tensor:
    """Return the (N, 4) boxes of the test images of the data source ``"digit-canvas"``.

    Example:
        >>> canvas_boxes(size=24).shape
        torch.Size([500, 4])
    """
    return canvas_parts(read_digits(source, data_dir), seed=canvas_seed, **options)[1].boxes


def read_digits(source: str = "digits", data_dir: Path | None = None) -> Raw:
    """Read a data source by name, which must be one of images."""
    raw = SOURCES.get(source)(data_dir)
    for examples in (raw.train, raw.test):
        if raw.kind != "image" or not isinstance(examples.inputs, Tensor):
            raise ValueError(f"source must be one of images; {source!r} is of kind {raw.kind!r}")
    return raw


def _images(examples: Examples) -> Tensor:
    if not isinstance(examples.inputs, Tensor):
        raise TypeError("digits must be images; got texts")
    return examples.inputs
