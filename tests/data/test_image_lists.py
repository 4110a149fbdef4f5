"""Images by list files."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from lastlayer.data import DataFileError, load


def paint(path, color, size=(5, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def lists(tmp_path):
    """Three red images of class 0 and one blue of class 1; a test image of each."""
    for number in range(4):
        paint(tmp_path / "a" / f"red {number}.png", (255, 51, 0))
    for number in range(2):
        paint(tmp_path / "b" / f"{number}.png", (0, 0, 255))
    reds = "".join(f"a/red {number}.png 0\n" for number in range(3))
    (tmp_path / "train.txt").write_text(reds + "\nb/0.png\t1\n")
    (tmp_path / "test.txt").write_text("b/1.png 1\na/red 3.png 0\n")
    return tmp_path


def test_images_and_labels_are_those_of_the_lists(lists):
    splits = load("image-lists", data_dir=lists)
    assert splits.train.target.tolist() == [0, 0, 0, 1]
    assert splits.test.target.tolist() == [1, 0]
    assert splits.class_names == ("0", "1")
    torch.testing.assert_close(splits.train.inputs[0, :, 0, 0], torch.tensor([1.0, 0.2, 0.0]))
    torch.testing.assert_close(splits.test.inputs[0, :, 3, 4], torch.tensor([0.0, 0.0, 1.0]))


def test_names_root_size_and_grayscale_are_options(lists):
    (lists / "lists").mkdir()
    for name in ("train.txt", "test.txt"):
        (lists / name).rename(lists / "lists" / f"my_{name}")
    options = {"train": "my_train.txt", "test": "my_test.txt", "root": ".."}
    options |= {"size": [6, 7], "grayscale": True}
    assert load("image-lists", data_dir=lists / "lists", options=options).input_shape == (1, 6, 7)


def test_a_long_list_is_a_long_tail_without_further_settings(lists):
    assert torch.bincount(load("image-lists", data_dir=lists).train.target).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("train.txt", None, FileNotFoundError, "there is no list file .*train.txt.*PATH LABEL"),
        ("train.txt", "\n", DataFileError, "train.txt names no image"),
        ("train.txt", "b/0.png 0\nb/1.png\n", DataFileError, "line 2: expected PATH LABEL"),
        ("train.txt", "b/0.png -1\n", DataFileError, "line 1: expected PATH LABEL"),
        ("train.txt", "b/0.png ²\n", DataFileError, "line 1: expected PATH LABEL"),
        ("train.txt", "b/0.png 0\nb/1.png 2\n", DataFileError, "0 to the largest, 2; 1 is miss"),
        ("train.txt", "b/0.png 0\nb/9.png 1\n", FileNotFoundError, "line 2: there is no image"),
        ("test.txt", "b/0.png 2\n", DataFileError, "test.txt, line 1: label 2 does not occur"),
        ("test.txt", "train.txt 0\n", DataFileError, "not a readable image"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(lists, name, text, error, message):
    (lists / name).unlink()
    if text is not None:
        (lists / name).write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        load("image-lists", data_dir=lists)


def test_a_list_that_is_no_text_and_images_of_many_sizes_are_named(lists):
    paint(lists / "b" / "0.png", (0, 0, 255), size=(9, 9))
    with pytest.raises(DataFileError, match=r"images differ in size.*option size"):
        load("image-lists", data_dir=lists)
    (lists / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataFileError, match="not a text file"):
        load("image-lists", data_dir=lists)
    with pytest.raises(ValueError, match="needs data_dir"):
        load("image-lists")
