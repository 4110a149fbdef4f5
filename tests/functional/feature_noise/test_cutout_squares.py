"""Cutout: squares against brute force, pixel probabilities against enumeration and counting."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from lastlayer.functional.feature_noise import cutout, cutout_probability


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def center_noise(size: tuple[int, int], row: int, column: int) -> list[float]:
    """Uniform numbers that put a square's center on a pixel."""
    return [0.0, (row + 0.5) / size[0], (column + 0.5) / size[1]]


def erased(size: tuple[int, int], length: int, row: int, column: int) -> np.ndarray:
    """The mask, by Python slices."""
    mask = np.zeros(size, dtype=bool)
    top, left = row - length // 2, column - length // 2
    mask[max(top, 0) : max(top + length, 0), max(left, 0) : max(left + length, 0)] = True
    return mask


SIZES = [((5, 7), 1), ((5, 7), 2), ((5, 7), 3), ((6, 4), 4), ((4, 4), 5), ((3, 8), 20)]


@pytest.mark.parametrize(("size", "length"), SIZES)
def test_a_square_is_where_its_center_says_and_clipped_at_the_border(size, length):
    centers = list(itertools.product(range(size[0]), range(size[1])))
    noise = torch.tensor([[center_noise(size, *center)] for center in centers])
    images = torch.rand(len(centers), 2, *size, generator=generator()) + 1.0
    out = cutout(images, length, noise=noise)
    for image, before, center in zip(out, images, centers, strict=True):
        mask = erased(size, length, *center)
        expected = np.where(mask, 0.0, before.numpy())
        np.testing.assert_array_equal(image.numpy(), expected)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_an_inner_square_has_exactly_its_side(length):
    noise = torch.tensor([[center_noise((11, 11), 5, 5)]])
    out = cutout(torch.ones(1, 1, 11, 11), length, noise=noise)
    assert (out == 0).sum() == length**2


@pytest.mark.parametrize(("size", "length"), SIZES)
@pytest.mark.parametrize(("squares", "p"), [(1, 1.0), (1, 0.3), (2, 1.0), (3, 0.6)])
def test_pixel_probabilities_are_those_of_all_centers(size, length, squares, p):
    centers = itertools.product(range(size[0]), range(size[1]))
    one = np.mean([erased(size, length, *center) for center in centers], axis=0)
    expected = 1 - (1 - p * one) ** squares
    probability = cutout_probability(size, length, num_squares=squares, p=p)
    np.testing.assert_allclose(probability.numpy(), expected, atol=1e-14)


@pytest.mark.parametrize(("squares", "p"), [(1, 1.0), (2, 0.7)])
def test_pixels_are_erased_with_their_probability(squares, p):
    count, size, length = 20_000, (6, 5), 3
    out = cutout(
        torch.ones(count, 1, *size), length, num_squares=squares, p=p, generator=generator()
    )
    probability = cutout_probability(size, length, num_squares=squares, p=p)
    rate = (out[:, 0] == 0).double().mean(0)
    z = (rate - probability) / (probability * (1 - probability) / count).sqrt()
    assert z.abs().max() < 5


def test_all_channels_lose_the_same_square_and_images_different_ones():
    out = cutout(torch.ones(40, 3, 9, 9), 3, generator=generator())
    assert torch.equal(out[:, 0], out[:, 1])
    assert torch.equal(out[:, 0], out[:, 2])
    assert len(out[:, 0].flatten(1).unique(dim=0)) > 20


def test_no_squares_leave_the_images_and_rate_zero_as_well():
    images = torch.randn(3, 2, 4, 4)
    assert torch.equal(cutout(images, 2, p=0.0), images)
    assert torch.equal(cutout(images, 2, p=torch.tensor(0.0)), images)


def test_fill_is_written_per_channel():
    fill = torch.tensor([1.0, 2.0, 3.0])
    out = cutout(torch.zeros(2, 3, 4, 4), 8, fill=fill)
    assert torch.equal(out, fill.view(1, 3, 1, 1).expand(2, 3, 4, 4))
    assert (cutout(torch.zeros(2, 3, 4, 4), 8, fill=0.25) == 0.25).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("fill", [3.0, torch.tensor([3.0, 3.0, 3.0])])
def test_dtype_is_kept(dtype, fill):
    out = cutout(torch.ones(2, 3, 6, 6, dtype=dtype), 3, fill=fill)
    assert out.dtype == dtype
    assert set(out.unique().tolist()) == {1.0, 3.0}


def test_memory_format_is_kept():
    images = torch.ones(2, 3, 6, 5).to(memory_format=torch.channels_last)
    assert cutout(images, 3).stride() == images.stride()


def test_an_erased_pixel_hides_nan_and_has_no_gradient():
    images = torch.full((1, 1, 5, 5), math.nan, requires_grad=True)
    out = cutout(images, 3, noise=torch.tensor([[center_noise((5, 5), 2, 2)]]))
    mask = torch.from_numpy(erased((5, 5), 3, 2, 2))
    assert (out[0, 0][mask] == 0).all()
    gradient = torch.autograd.grad(out.sum(), images)[0][0, 0]
    assert torch.equal(gradient, (~mask).float())


def test_the_largest_uniform_number_stays_inside():
    for size in (3, 7, 224, 1000):
        noise = torch.full((1, 1, 3), 1 - 2**-24)
        noise[..., 0] = 0
        out = cutout(torch.ones(1, 1, size, size), 1, noise=noise)
        assert out[0, 0, -1, -1] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "length must be a whole number of at least 1; got 0"),
        ({"length": 2.5}, "length must be a whole number"),
        ({"length": True}, "length must be a whole number"),
        ({"length": 2, "num_squares": 0}, "num_squares must be a whole number"),
        ({"length": 2, "p": 1.5}, r"p must lie in \[0, 1\]"),
        ({"length": 2, "noise": torch.zeros(2, 3)}, r"noise must have shape \(2, 1, 3\)"),
        ({"length": 2, "fill": torch.zeros(4)}, r"fill must be a number or have shape \(3,\)"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        cutout(torch.zeros(2, 3, 4, 4), **arguments)


def test_images_have_four_dimensions():
    with pytest.raises(ValueError, match=r"images must have shape \(N, C, H, W\); got \(3, 4, 4\)"):
        cutout(torch.zeros(3, 4, 4), 2)
