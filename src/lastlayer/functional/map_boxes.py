"""Boxes from maps: stretched over the image, normalized, cut at a threshold, largest part boxed.

Boxes are (left, top, right, bottom) and half open, as in :mod:`lastlayer.functional.boxes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_choice, check_floating

NORMALIZATIONS = ("min-max", "max", "none")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
CONNECTIVITIES = (4, 8)


def boxes_from_maps(
    maps: Tensor,
    threshold: float,
    *,
    size: Sequence[int] | None = None,
    interpolation: str = "bilinear",
    normalization: str = "min-max",
    strict: bool = False,
    connectivity: int = 4,
) -> Tensor:
    """Draw the box around the largest connected part of a map above a threshold.

    The map is stretched over the image, normalized and compared with the threshold; of the
    connected components of pixels that pass, the one with most pixels is boxed, of equal ones the
    one whose first pixel comes first in reading order. Boxes lie within the image.

    Args:
        maps: (N, h, w) finite maps.
        threshold: on the scale of the normalized map.
        size: (height, width) of the image in pixels; None for that of the map.
        interpolation: see :func:`resize_maps`.
        normalization: see :func:`normalize_maps`.
        strict: whether a pixel must exceed the threshold; else it may equal it, so that
            ``threshold=1`` still boxes the maximum.
        connectivity: neighbors of a pixel, 4 or 8.

    Returns:
        (N, 4) int64 boxes; empty where no pixel passes and, normalized, for a constant map, which
        shows no place (such as the all-zero infoCAM+ of the least likely class).

    Raises:
        ValueError: if a map holds NaN or infinity, or a shape or name does not fit.

    Examples:
        >>> maps = torch.tensor([[[0.0, 1.0, 2.0], [0.0, 0.0, 2.0]], [[7.0] * 3] * 2])
        >>> boxes_from_maps(maps, 0.5)
        tensor([[1, 0, 3, 2],
                [0, 0, 0, 0]])

    References:
        Zhou et al., "Learning deep features for discriminative localization", CVPR 2016.
    """
    scaled = prepare_maps(maps, size, interpolation, normalization)
    mask = above_threshold(scaled, threshold, strict=strict, normalization=normalization)
    return largest_boxes(connected_boxes(mask, connectivity), len(maps)).to(maps.device)


def prepare_maps(
    maps: Tensor, size: Sequence[int] | None, interpolation: str, normalization: str
) -> Tensor:
    """Check (N, h, w) maps, stretch them to ``size`` and normalize them."""
    resized = maps if size is None else resize_maps(maps, size, interpolation)
    return normalize_maps(resized, normalization)


def resize_maps(maps: Tensor, size: Sequence[int], interpolation: str = "bilinear") -> Tensor:
    """Stretch maps over an image; cells are areas, so that edges of map and image coincide.

    Args:
        maps: (N, h, w) floating point.
        size: (height, width) in pixels.
        interpolation: ``"bilinear"``, ``"bicubic"`` or ``"nearest"``.

    Returns:
        (N, height, width).

    Raises:
        ValueError: if a shape or the name does not fit.

    Examples:
        >>> resize_maps(torch.tensor([[[0.0, 4.0]]]), (1, 4))
        tensor([[[0., 1., 3., 4.]]])
    """
    _check_maps(maps)
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be (height, width), each at least 1; got {tuple(size)}")
    corners = None if interpolation == "nearest" else False
    return F.interpolate(
        maps.unsqueeze(1), tuple(size), mode=interpolation, align_corners=corners
    ).squeeze(1)


def normalize_maps(maps: Tensor, normalization: str = "min-max") -> Tensor:
    """Bring every map to [0, 1] by itself.

    Args:
        maps: (N, h, w) floating point.
        normalization: ``"min-max"``: its least value becomes 0, its greatest 1. ``"max"``: negative
            values become 0, then its greatest value 1. ``"none"``: as it is.

    Returns:
        (N, h, w). A map that has no scale (constant for ``"min-max"``, nowhere positive for
        ``"max"``) becomes 0.

    Raises:
        ValueError: if a map holds NaN or infinity, or the shape or the name does not fit.

    Examples:
        >>> normalize_maps(torch.tensor([[[-1.0, 0.0, 1.0]]]))
        tensor([[[0.0000, 0.5000, 1.0000]]])
    """
    _check_maps(maps)
    check_choice("normalization", normalization, NORMALIZATIONS)
    finite = maps.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise ValueError(f"maps must be finite; that of example {row} holds NaN or infinity")
    if normalization == "none":
        return maps
    if normalization == "max":
        shifted, noise = maps.clamp_min(0.0), torch.zeros(())
    else:
        shifted = maps - maps.amin((1, 2), keepdim=True)
        # Interpolation leaves a constant map constant up to rounding: that is no picture.
        noise = 16 * torch.finfo(maps.dtype).eps * maps.abs().amax((1, 2), keepdim=True)
    top = shifted.amax((1, 2), keepdim=True)
    flat = top <= noise.to(maps.device)
    return torch.where(flat, torch.zeros_like(shifted), shifted / torch.where(flat, 1.0, top))


def above_threshold(
    scaled: Tensor, threshold: float, *, strict: bool = False, normalization: str = "min-max"
) -> Tensor:
    """Return which pixels of normalized (N, H, W) maps pass; of a normalized flat map none."""
    mask = scaled > threshold if strict else scaled >= threshold
    if normalization == "none":
        return mask
    return mask & (scaled.amax((1, 2), keepdim=True) > 0)


class Components(NamedTuple):
    """The connected components of a batch of masks, in reading order within an image.

    Attributes:
        boxes: (L, 4) int64.
        area: (L,) int64 pixels, at most the box's.
        image: (L,) int64, which mask each belongs to, ascending.
    """

    boxes: Tensor
    area: Tensor
    image: Tensor


def connected_boxes(mask: Tensor, connectivity: int = 4) -> Components:
    """Box every connected component of every mask.

    Args:
        mask: (N, H, W) bool.
        connectivity: neighbors of a pixel, 4 or 8.

    Returns:
        The components, on the CPU.

    Raises:
        ValueError: if the shape or the connectivity does not fit.

    Examples:
        >>> connected_boxes(torch.tensor([[[True, False, True], [True, False, False]]])).boxes
        tensor([[0, 0, 1, 2],
                [2, 0, 3, 1]])
    """
    import numpy as np
    from scipy import ndimage

    check_choice("connectivity", connectivity, CONNECTIVITIES)
    if mask.dim() != 3:
        raise ValueError(f"mask must have shape (N, H, W); got {tuple(mask.shape)}")
    structure = np.zeros((3, 3, 3), dtype=bool)  # joins nothing across images
    structure[1] = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    labels, count = ndimage.label(mask.cpu().numpy(), structure)
    area = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    places = ndimage.find_objects(labels) if count else []
    found = [(x.start, y.start, x.stop, y.stop, n.start) for n, y, x in places]
    table = torch.tensor(found, dtype=torch.int64).reshape(-1, 5)
    return Components(table[:, :4], torch.from_numpy(area.astype(np.int64)), table[:, 4])


def largest_boxes(components: Components, count: int) -> Tensor:
    """Return the (count, 4) boxes of each image's largest component, empty where it has none."""
    boxes = torch.zeros(count, 4, dtype=torch.int64)
    # Stable sorts from the least to the most important key; the first of each image is kept.
    order = components.area.argsort(descending=True, stable=True)
    order = order[components.image[order].argsort(stable=True)]
    image = components.image[order]
    first = torch.ones_like(image, dtype=torch.bool)
    first[1:] = image[1:] != image[:-1]
    boxes[image[first]] = components.boxes[order[first]]
    return boxes


def _check_maps(maps: Tensor) -> None:
    check_floating("maps", maps)
    if maps.dim() != 3 or 0 in maps.shape[1:]:
        raise ValueError(f"maps must have shape (N, h, w); got {tuple(maps.shape)}")
