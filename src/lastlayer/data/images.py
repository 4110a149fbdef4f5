"""Image files and Pillow images as uint8 arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lastlayer._checks import is_whole
from lastlayer.data.files import DataFileError

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")

Size = int | Sequence[int] | None
"""An image's side, its ``(height, width)``, or None to leave it as it is."""


def read_image(path: Path, *, size: Size = None, grayscale: bool = False) -> npt.NDArray[np.uint8]:
    """Read an image file of any format that Pillow reads, of 8 bits a channel.

    It is scaled to ``size`` (bilinear with antialiasing), and uint8 ``(channels, height, width)``.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image_to_array(image, size=size, grayscale=grayscale, where=str(path))
    except DataFileError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataFileError(f"{path}: not a readable image ({error})") from error


def image_to_array(
    image: Image, *, size: Size = None, grayscale: bool = False, where: str
) -> npt.NDArray[np.uint8]:
    """Return a Pillow image as uint8 ``(channels, height, width)``; see `read_image`."""
    from PIL.Image import Resampling

    if image.mode in _DEEP_MODES:
        raise DataFileError(
            f"{where}: images must have 8 bits a channel; this one has Pillow mode {image.mode!r}"
        )
    converted = image.convert("L" if grayscale else "RGB")
    if size is not None:
        height, width = _height_width(size)
        converted = converted.resize((width, height), Resampling.BILINEAR)
    array = np.asarray(converted, dtype=np.uint8)
    return array[None] if grayscale else np.ascontiguousarray(array.transpose(2, 0, 1))


def stack_images(
    arrays: Sequence[npt.NDArray[np.uint8]], names: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """Stack images, which must be of one size, to ``(N, C, H, W)``."""
    for array, name in zip(arrays, names, strict=True):
        if array.shape != arrays[0].shape:
            first, other = ("{1} x {2}".format(*a.shape) for a in (arrays[0], array))
            raise DataFileError(
                f"images differ in size: {names[0]} is {first}, {name} is {other}; "
                "set the option size"
            )
    return np.stack(arrays)


def _height_width(size: int | Sequence[int]) -> tuple[int, int]:
    pair = (size, size) if is_whole(size) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"size must be a side or (height, width), each at least 1; got {size!r}")
    return pair[0], pair[1]
