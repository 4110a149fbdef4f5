"""Crops, reflections and rotations against slow loops, SciPy, torch.rot90 and torchvision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from lastlayer.data.transforms import crop, flip, rotate

SIZES = [(8, 8), (7, 11), (1, 5)]
DTYPES = [torch.uint8, torch.bfloat16, torch.float16, torch.float32, torch.float64]


def picture(number: int, channels: int, size: tuple[int, int], dtype=torch.float64) -> Tensor:
    """Images of whole numbers, which every dtype holds."""
    generator = torch.Generator().manual_seed(7)
    return torch.randint(1, 200, (number, channels, *size), generator=generator).to(dtype)


def crop_by_loop(images: Tensor, top, left, padding: int, fill) -> np.ndarray:
    height, width = images.shape[2:]
    fills = np.broadcast_to(np.asarray(fill, dtype=float), images.shape[1])
    out = []
    for image, t, l in zip(images.double().numpy(), top, left, strict=True):  # noqa: E741
        channels = [
            np.pad(channel, padding, constant_values=value)[t : t + height, l : l + width]
            for channel, value in zip(image, fills, strict=True)
        ]
        out.append(channels)
    return np.array(out)


@given(
    number=st.integers(1, 4),
    channels=st.integers(1, 3),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    padding=st.integers(0, 5),
    data=st.data(),
)
def test_crop_is_a_window_of_the_padded_image(number, channels, size, padding, data):
    offsets = st.lists(st.integers(0, 2 * padding), min_size=number, max_size=number)
    top, left = data.draw(offsets), data.draw(offsets)
    fill = data.draw(st.sampled_from([0.0, 3.0, [float(c) for c in range(channels)]]))
    images = picture(number, channels, size)
    found = crop(images, torch.tensor(top), torch.tensor(left), padding=padding, fill=fill)
    np.testing.assert_array_equal(found, crop_by_loop(images, top, left, padding, fill))


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(1, 6))
def test_flip_mirrors_the_chosen_images_only(flipped, width):
    images = picture(len(flipped), 2, (3, width))
    expected = np.stack(
        [
            image[:, :, ::-1] if chosen else image
            for image, chosen in zip(images.numpy(), flipped, strict=True)
        ]
    )
    np.testing.assert_array_equal(flip(images, torch.tensor(flipped)), expected)


def rotate_by_loop(image: np.ndarray, degrees: float, fill: float) -> np.ndarray:
    """Nearest pixel, one at a time; y grows downwards, so counter-clockwise is -theta there."""
    height, width = image.shape
    theta = math.radians(degrees)
    out = np.full_like(image, fill)
    for i in range(height):
        for j in range(width):
            arrow = complex(j - (width - 1) / 2, -(i - (height - 1) / 2))
            source = arrow * complex(math.cos(theta), -math.sin(theta))
            row = round(-source.imag + (height - 1) / 2)
            column = round(source.real + (width - 1) / 2)
            if 0 <= row < height and 0 <= column < width:
                out[i, j] = image[row, column]
    return out


ANGLES = torch.tensor([0.0, 13.7, -14.9, 61.3, 171.1], dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", [0.0, 5.0, [2.0, 9.0]])
def test_nearest_rotation_is_the_loop_over_pixels(size, fill):
    images = picture(len(ANGLES), 2, size)
    fills = [fill, fill] if isinstance(fill, float) else fill
    expected = [
        [rotate_by_loop(channel, angle, f) for channel, f in zip(image, fills, strict=True)]
        for image, angle in zip(images.numpy(), ANGLES.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(rotate(images, ANGLES, fill=fill), np.array(expected))


def rotate_by_scipy(image: np.ndarray, degrees: float, fill: float) -> np.ndarray:
    theta = math.radians(degrees)
    matrix = np.array([[math.cos(theta), math.sin(theta)], [-math.sin(theta), math.cos(theta)]])
    center = (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(
        image, matrix, offset=center - matrix @ center, order=1, mode="grid-constant", cval=fill
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", [0.0, 5.0, [2.0, 9.0]])
def test_bilinear_rotation_is_scipys(size, fill):
    images = picture(len(ANGLES), 2, size)
    fills = [fill, fill] if isinstance(fill, float) else fill
    expected = [
        [rotate_by_scipy(channel, angle, f) for channel, f in zip(image, fills, strict=True)]
        for image, angle in zip(images.numpy(), ANGLES.tolist(), strict=True)
    ]
    found = rotate(images, ANGLES, interpolation="bilinear", fill=fill)
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_right_angles_are_rot90(interpolation, side, dtype):
    images = picture(1, 3, (side, side), dtype)
    for turns in range(-3, 4):
        angle = torch.tensor([90.0 * turns], dtype=dtype)
        found = rotate(images, angle, interpolation=interpolation)
        expected = torch.rot90(images, turns, (2, 3))
        # Near-right angles lend a border pixel a trace of what is beyond.
        slack = 0 if interpolation == "nearest" else 1e-3
        torch.testing.assert_close(found, expected, rtol=0, atol=slack)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_angle_zero_changes_nothing(interpolation):
    images = torch.rand(2, 3, 9, 6)
    found = rotate(images, torch.zeros(2), interpolation=interpolation)
    torch.testing.assert_close(
        found, images, rtol=0, atol=0 if interpolation == "nearest" else 1e-6
    )


def test_rotation_is_torchvisions():
    try:
        from torchvision.transforms import InterpolationMode, functional
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision is not usable here: {error}")
    images = torch.rand(6, 3, 32, 32)
    angles = torch.linspace(-15, 15, 6)
    # With bilinear interpolation torchvision weighs the border twice where it is given a fill.
    for interpolation, fill in (
        (InterpolationMode.NEAREST, [0.25]),
        (InterpolationMode.NEAREST, None),
        (InterpolationMode.BILINEAR, None),
    ):
        expected = torch.stack(
            [
                functional.rotate(image, angle, interpolation=interpolation, fill=fill)
                for image, angle in zip(images, angles.tolist(), strict=True)
            ]
        )
        found = rotate(
            images, angles, interpolation=interpolation.value, fill=fill[0] if fill else 0.0
        )
        # A coordinate halfway between two pixels may be rounded either way.
        differs = (found - expected).abs() > 1e-3
        assert differs.double().mean() < 1e-3, interpolation


def changed(images: Tensor) -> dict[str, Tensor]:
    """Every transform with whole-number results."""
    number = len(images)
    offset = torch.arange(number) % 3
    return {
        "crop": crop(images, offset, 2 - offset, padding=1),
        "crop, colored": crop(images, offset, 2 - offset, padding=1, fill=(1, 2, 3)),
        "flip": flip(images, offset > 0),
        "rotate": rotate(images, 10.0 * offset.double()),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dtype_and_memory_format_are_kept_and_values_exact(dtype, memory_format):
    images = picture(4, 3, (6, 5), dtype).contiguous(memory_format=memory_format)
    expected = changed(images.double())
    before = images.clone()
    for name, found in changed(images).items():
        assert found.dtype == dtype, name
        assert found.is_contiguous(memory_format=memory_format), name
        assert torch.equal(found.double(), expected[name]), name
    assert torch.equal(images, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bilinear_rotation_in_low_precision_is_float64s_rounded(dtype, memory_format):
    images = torch.rand(4, 3, 6, 5).to(dtype).contiguous(memory_format=memory_format)
    angles = torch.tensor([3.0, -9.0, 14.0, 80.0])
    found = rotate(images, angles, interpolation="bilinear", fill=0.5)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=memory_format)
    exact = rotate(images.double(), angles.double(), interpolation="bilinear", fill=0.5)
    bound = torch.finfo(dtype).eps + 1e-5
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=bound)


def test_black_is_black_before_and_after_normalization():
    images = torch.rand(3, 3, 8, 8)
    mean, std = torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.20, 0.19, 0.21])
    black = (-mean / std).tolist()

    def normalized(x: Tensor) -> Tensor:
        return (x - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)

    top, left = torch.tensor([0, 4, 8]), torch.tensor([8, 3, 0])
    angles = torch.tensor([15.0, -15.0, 7.0])
    for first, then in [
        (
            crop(images, top, left, padding=4),
            crop(normalized(images), top, left, padding=4, fill=black),
        ),
        (rotate(images, angles), rotate(normalized(images), angles, fill=black)),
        (
            rotate(images, angles, interpolation="bilinear"),
            rotate(normalized(images), angles, interpolation="bilinear", fill=black),
        ),
    ]:
        torch.testing.assert_close(normalized(first), then, rtol=1e-5, atol=1e-5)


def test_no_image_at_all_is_no_error():
    nothing = torch.zeros(0, 3, 4, 4)
    none = torch.zeros(0, dtype=torch.int64)
    assert crop(nothing, none, none, padding=1).shape == nothing.shape
    assert flip(nothing, none > 0).shape == nothing.shape
    for interpolation in ("nearest", "bilinear"):
        assert rotate(nothing, none.float(), interpolation=interpolation).shape == nothing.shape


IMAGES = torch.zeros(2, 3, 4, 4)
ZEROS = torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crop(IMAGES[0], ZEROS, ZEROS, padding=1), r"images must have shape \(N, C, H, W"),
        (lambda: flip(IMAGES[0], ZEROS > 0), "images must have shape"),
        (lambda: rotate(IMAGES[0], ZEROS.float()), "images must have shape"),
        (lambda: crop(IMAGES, ZEROS[:1], ZEROS, padding=1), r"top must have shape \(2,\)"),
        (lambda: crop(IMAGES, ZEROS, ZEROS[None], padding=1), r"left must have shape \(2,\)"),
        (lambda: crop(IMAGES, ZEROS - 1, ZEROS, padding=1), r"top must lie in \[0, 2\]; got -1"),
        (lambda: crop(IMAGES, ZEROS, ZEROS + 3, padding=1), r"left must lie in \[0, 2\]; got 3"),
        (lambda: crop(IMAGES, ZEROS, ZEROS, padding=-1), "padding .* at least 0; got -1"),
        (lambda: crop(IMAGES, ZEROS, ZEROS, padding=1, fill=(1, 2)), "fill must be a number or on"),
        (lambda: rotate(IMAGES, ZEROS.float(), fill=(1, 2)), "fill must be a number or one per ch"),
        (lambda: flip(IMAGES, ZEROS[:1] > 0), r"flipped must have shape \(2,\)"),
        (lambda: rotate(IMAGES, torch.tensor(5.0)), r"degrees must have shape \(2,\)"),
        (lambda: rotate(IMAGES, ZEROS.float(), interpolation="cubic"), "interpolation must be one"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_integers_cannot_be_interpolated():
    with pytest.raises(TypeError, match=r"floating-point images; got torch\.uint8"):
        rotate(IMAGES.byte(), ZEROS.float(), interpolation="bilinear")
