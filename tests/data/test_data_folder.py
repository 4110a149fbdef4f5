"""The image folder source."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lastlayer.data import DataFileError, load


def paint(path, color, size=(5, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


@pytest.fixture
def pets(tmp_path):
    """Red ants and blue bees, 6 each to train on and 2 to test on, 4 high and 5 wide."""
    for part, count in (("train", 6), ("test", 2)):
        for number in range(count):
            paint(tmp_path / part / "bee" / f"{number}.png", (0, 0, 255))
            paint(tmp_path / part / "ant" / f"{number}.png", (255, 51, 0))
    return tmp_path


def test_classes_are_the_folders_and_pixels_the_colors(pets):
    splits = load("folder", data_dir=pets)
    assert splits.class_names == ("ant", "bee")
    assert (len(splits.train), len(splits.test), splits.input_shape) == (12, 4, (3, 4, 5))
    ants = splits.train.inputs[splits.train.target == 0]
    torch.testing.assert_close(ants[:, :, 0, 0], torch.tensor([1.0, 0.2, 0.0]).expand(6, 3))
    assert splits.notes == ()


def test_grayscale_and_size_are_applied(pets):
    splits = load("folder", data_dir=pets, options={"grayscale": True, "size": [7, 3]})
    assert splits.input_shape == (1, 7, 3)
    assert load("folder", data_dir=pets, options={"size": 6}).input_shape == (3, 6, 6)


def test_scaling_keeps_a_plain_ramp_in_order(pets):
    ramp = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (25, 1))
    for name in ("train", "test"):
        Image.fromarray(ramp).save(pets / name / "ant" / "ramp.png")
    options = {"grayscale": True, "size": 5}
    splits = load("folder", data_dir=pets, options=options)
    row = max((image[0, 2] for image in splits.train.inputs), key=lambda r: float(r.std()))
    assert (row.diff() > 0).all()


def test_without_test_folder_a_part_is_set_apart_whatever_the_seed(pets):
    (pets / "test").rename(pets / "other")
    splits = load("folder", data_dir=pets, options={"test_fraction": 0.34})
    assert torch.bincount(splits.test.target).tolist() == [2, 2]
    assert "4 images were set apart" in splits.notes[0]
    again = load("folder", data_dir=pets, seed=5, options={"test_fraction": 0.34})
    assert torch.equal(splits.test.inputs, again.test.inputs)


def test_val_stands_in_for_test(pets):
    (pets / "test").rename(pets / "val")
    splits = load("folder", data_dir=pets)
    assert len(splits.test) == 4
    assert "val is the test part" in splits.notes[0]


def test_class_folders_without_train_are_read(pets):
    splits = load("folder", data_dir=pets / "train")
    assert (len(splits.train), len(splits.test)) == (10, 2)


def test_test_without_train_is_refused(pets):
    (pets / "train").rename(pets / "hidden")
    with pytest.raises(FileNotFoundError, match="has test but no train folder"):
        load("folder", data_dir=pets)


def test_an_unreadable_image_is_named(pets):
    for content in (b"", b"not an image", (pets / "train/ant/0.png").read_bytes()[:45]):
        path = pets / "train" / "ant" / "3.png"
        path.write_bytes(content)
        with pytest.raises(DataFileError, match="not a readable image") as caught:
            load("folder", data_dir=pets)
        assert str(path) in str(caught.value)


def test_an_image_of_sixteen_bits_is_named(pets):
    paint(pets / "train" / "ant" / "deep.png", 40_000, mode="I;16")
    with pytest.raises(DataFileError, match=r"deep\.png: images must have 8 bits"):
        load("folder", data_dir=pets)


def test_images_of_two_sizes_are_named(pets):
    paint(pets / "train" / "bee" / "wide.png", 0, size=(9, 4))
    with pytest.raises(DataFileError, match=r"0\.png is 4 x 5, .*wide\.png is 4 x 9; set .* size"):
        load("folder", data_dir=pets)


def test_an_empty_class_is_named(pets):
    for path in (pets / "test" / "bee").iterdir():
        path.unlink()
    with pytest.raises(DataFileError, match="class 'bee' has no image in"):
        load("folder", data_dir=pets)


def test_a_class_of_the_test_alone_is_named(pets):
    paint(pets / "test" / "cow" / "0.png", 0)
    with pytest.raises(DataFileError, match="class folder 'cow', which train has not"):
        load("folder", data_dir=pets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be a side"),
        ({"size": (1, 2, 3)}, "size must be a side"),
        ({"test_fraction": 1.5}, r"test_fraction must lie in \(0, 1\)"),
        ({"test_fraction": 0.9}, "leave one of each class"),
        ({"split_seed": -1}, "split_seed must be at least 0"),
    ],
)
def test_options_out_of_range_are_refused(pets, options, message):
    with pytest.raises(ValueError, match=message):
        load("folder", data_dir=pets / "train", options=options)


def test_a_folder_without_classes_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="0 class folders, at least two are needed"):
        load("folder", data_dir=tmp_path)
