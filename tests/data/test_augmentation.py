"""The random augmentations: what they draw, and that seeds decide it."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from lastlayer.data import (
    AUGMENTATIONS,
    RandomCrop,
    RandomCutout,
    RandomFlip,
    RandomRotation,
    augmentation,
)
from lastlayer.data.augmentation import build_augmentation

ALL = [
    RandomCrop(padding=2),
    RandomFlip(),
    RandomRotation(),
    RandomRotation(degrees=90),
    RandomCutout(length=3),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_crop_offsets_are_uniform_and_independent():
    # One bright pixel in the middle of 5x5: after padding by 2 it may come to lie anywhere.
    images = torch.zeros(20_000, 1, 5, 5)
    images[:, :, 2, 2] = 1
    moved = RandomCrop(padding=2)(images, generator=seeded())
    counts = moved.sum(dim=0).flatten()
    assert counts.sum() == len(images)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-6
    places = moved.flatten(1).argmax(dim=1)
    pairs = torch.bincount(25 * places[:-1] + places[1:], minlength=625)
    assert stats.chisquare(pairs.numpy()).pvalue > 1e-6


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_flips_come_at_their_rate(p):
    images = torch.tensor([0.0, 1.0]).expand(20_000, 1, 1, 2)
    flipped = int(RandomFlip(p=p)(images, generator=seeded(1))[..., 0].sum())
    assert stats.binomtest(flipped, len(images), p).pvalue > 1e-6


def test_angles_are_uniform_either_way(monkeypatch):
    drawn = []
    monkeypatch.setattr(augmentation, "rotate", lambda images, degrees, **_: drawn.append(degrees))
    RandomRotation(degrees=15)(torch.zeros(20_000, 1, 1, 1), generator=seeded(2))
    assert stats.kstest(drawn[0].double().numpy(), stats.uniform(-15, 30).cdf).pvalue > 1e-6


@pytest.mark.parametrize("augment", ALL, ids=repr)
def test_the_generator_alone_decides(augment):
    images = torch.rand(64, 3, 8, 8)
    before = torch.get_rng_state()
    first = augment(images, generator=seeded(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(augment(images, generator=seeded(3)), first)
    assert not torch.equal(augment(images, generator=seeded(4)), first)
    torch.manual_seed(5)
    default = augment(images)
    torch.manual_seed(5)
    assert torch.equal(augment(images), default)


@pytest.mark.parametrize("augment", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_shape_dtype_and_memory_format_are_kept(augment, dtype):
    for memory_format in (torch.contiguous_format, torch.channels_last):
        images = torch.rand(5, 3, 8, 9).to(dtype).contiguous(memory_format=memory_format)
        found = augment(images, generator=seeded())
        assert (found.shape, found.dtype) == (images.shape, dtype)
        assert found.is_contiguous(memory_format=memory_format)
        assert found.stride() == images.stride()


def test_draws_are_the_same_in_every_memory_format_and_precision():
    images = torch.randint(0, 200, (16, 3, 8, 8)).float()
    for augment in ALL:
        expected = augment(images, generator=seeded())
        for other in (images.to(memory_format=torch.channels_last), images.bfloat16()):
            assert torch.equal(augment(other, generator=seeded()).float(), expected)


def test_nothing_asked_for_changes_nothing():
    images = torch.rand(4, 3, 8, 8)
    for augment in (RandomCrop(padding=0), RandomFlip(p=0), RandomRotation(degrees=0)):
        assert torch.equal(augment(images), images)


def test_names_and_options_build_them():
    assert {"crop", "flip", "rotate"} <= set(AUGMENTATIONS.names())
    assert build_augmentation("crop") == RandomCrop(padding=4, fill=0.0)
    assert build_augmentation("flip") == RandomFlip(p=0.5)
    assert build_augmentation("rotate") == RandomRotation(degrees=15.0, interpolation="nearest")
    assert build_augmentation("rotate", degrees=5, interpolation="bilinear", fill=0.5) == (
        RandomRotation(degrees=5, interpolation="bilinear", fill=0.5)
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("crops", {}, "unknown augmentation 'crops'. Did you mean 'crop'"),
        ("crop", {"pad": 3}, "'crop' has no option 'pad'; its options: padding, fill"),
        ("crop", {"padding": -1}, "padding must be a whole number of at least 0; got -1"),
        ("crop", {"padding": 1.5}, r"padding must be a whole number of at least 0; got 1\.5"),
        ("flip", {"p": 1.5}, r"p must lie in \[0, 1\]; got 1\.5"),
        ("rotate", {"degrees": -3}, r"degrees must lie in \[0, 180\]; got -3"),
        ("rotate", {"degrees": 200}, r"degrees must lie in \[0, 180\]; got 200"),
        ("rotate", {"interpolation": "cubic"}, "interpolation must be one of 'nearest', 'bilinea"),
    ],
)
def test_what_cannot_be_built_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_augmentation(name, **options)


def test_cutout_erases_its_squares_with_the_fill_of_each_channel():
    images = torch.ones(2000, 3, 8, 8)
    erased = RandomCutout(length=2, fill=(0.0, 0.5, 0.25))(images, generator=seeded(1))
    assert torch.equal(erased[:, 0] == 0, erased[:, 1] == 0.5)
    counts = (erased[:, 2] == 0.25).flatten(1).sum(1)
    assert set(counts.tolist()) == {1, 2, 4}
    with pytest.raises(ValueError, match="length must be"):
        RandomCutout(length=0)
