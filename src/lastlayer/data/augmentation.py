"""Random changes of training images, found by name in ``AUGMENTATIONS``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lastlayer._checks import (
    check_choice,
    check_count,
    check_options,
    check_probability,
    check_whole,
)
from lastlayer.data.transforms import INTERPOLATIONS, Fill, crop, flip, rotate
from lastlayer.functional.feature_noise import cutout
from lastlayer.registry import Registry


class Augmentation(Protocol):
    """Changes a batch at random."""

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return changed images, of the same shape, dtype and memory format.

        Args:
            images: ``(N, C, H, W)``.
            generator: source of the draws, on the images' device; None for torch's default.
        """
        ...


#: What ``training.augment`` names: makers that take options by keyword and return an
#: `Augmentation`. Third parties add theirs through the entry-point group.
AUGMENTATIONS: Registry[Callable[..., Augmentation]] = Registry(
    kind="augmentation", group="lastlayer.augmentations"
)


def build_augmentation(name: str, **options: object) -> Augmentation:
    """Build the augmentation called ``name``.

    Args:
        name: a name in ``AUGMENTATIONS``.
        **options: its keyword arguments.

    Returns:
        The augmentation.

    Raises:
        ValueError: if the name or an option is unknown, or a value out of range.

    Example:
        >>> build_augmentation("crop", padding=2)
        RandomCrop(padding=2, fill=0.0)
    """
    maker = AUGMENTATIONS.get(name)
    check_options(f"augmentation {name!r}", maker, options)
    return maker(**options)


@AUGMENTATIONS.register("crop", description="pad with black and cut a random window of the size")
@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """`crop` at offsets uniform over all windows.

    Args:
        padding: width of the border in pixels, at least 0.
        fill: value of the border.

    Raises:
        ValueError: if padding is negative.

    Example:
        >>> RandomCrop(padding=4)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """

    padding: int = 4
    fill: Fill = 0.0

    def __post_init__(self) -> None:
        check_whole("padding", self.padding, 0)

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return the images, each cropped elsewhere."""
        size = (2, len(images))
        top, left = torch.randint(
            2 * self.padding + 1, size, generator=generator, device=images.device
        )
        return crop(images, top, left, padding=self.padding, fill=self.fill)


@AUGMENTATIONS.register("flip", description="mirror left to right with probability 1/2")
@dataclass(frozen=True, kw_only=True)
class RandomFlip:
    """`flip` of each image with probability ``p``.

    Args:
        p: probability, in [0, 1].

    Raises:
        ValueError: if ``p`` is no probability.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        check_probability("p", self.p)

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return the images, some mirrored."""
        draws = torch.rand(len(images), generator=generator, device=images.device)
        return flip(images, draws < self.p)


@AUGMENTATIONS.register("rotate", description="turn by up to 15 degrees either way")
@dataclass(frozen=True, kw_only=True)
class RandomRotation:
    """`rotate` by angles uniform in [-degrees, degrees].

    Args:
        degrees: largest angle, in [0, 180].
        interpolation: ``"nearest"`` or ``"bilinear"``.
        fill: value beyond the image.

    Raises:
        ValueError: if an argument is out of range.
    """

    degrees: float = 15.0
    interpolation: str = "nearest"
    fill: Fill = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.degrees <= 180.0:
            raise ValueError(f"degrees must lie in [0, 180]; got {self.degrees!r}")
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return the images, each turned."""
        draws = torch.rand(len(images), generator=generator, device=images.device)
        degrees = (2.0 * draws - 1.0) * self.degrees
        return rotate(images, degrees, interpolation=self.interpolation, fill=self.fill)


@AUGMENTATIONS.register("cutout", description="erase a square of 16 pixels")
@dataclass(frozen=True, kw_only=True)
class RandomCutout:
    """`lastlayer.functional.cutout` of every image.

    Args:
        length: side of a square in pixels, at least 1; 16 as published for CIFAR-10, 8 for
            CIFAR-100.
        num_squares: squares per image.
        fill: value of the squares.

    Raises:
        ValueError: if an argument is out of range.
    """

    length: int = 16
    num_squares: int = 1
    fill: Fill = 0.0

    def __post_init__(self) -> None:
        check_count("length", self.length)
        check_count("num_squares", self.num_squares)

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return the images, each without some squares."""
        fill: Tensor | float
        if isinstance(self.fill, Sequence):
            fill = torch.tensor(self.fill, device=images.device)
        else:
            fill = self.fill
        return cutout(
            images, self.length, num_squares=self.num_squares, fill=fill, generator=generator
        )
