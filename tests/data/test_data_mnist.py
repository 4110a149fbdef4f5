"""The IDX sources on small generated files, whole and broken."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch
from idx_files import idx_bytes

from lastlayer.data import DataFileError, load

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TRAIN_LABELS = "train-labels-idx1-ubyte.gz"


def write(path, array, **kwargs):
    path.write_bytes(gzip.compress(idx_bytes(array, **kwargs)))


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize(
    ("name", "subfolder"),
    [
        ("mnist", ""),
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("kmnist", "KMNIST/raw"),
    ],
)
def test_files_are_found_plain_and_compressed(make_mnist, tmp_path, name, subfolder, suffix):
    make_mnist(subfolder, suffix)
    splits = load(name, data_dir=tmp_path)
    assert (len(splits.train), len(splits.test)) == (40, 20)
    assert splits.input_shape == (1, 28, 28)
    assert len(splits.class_names) == 10


def test_names_with_a_dot_are_found_too(make_mnist, tmp_path):
    make_mnist(mark=".")
    assert len(load("mnist", data_dir=str(tmp_path)).train) == 40


def test_pixels_are_the_bytes_over_255_in_row_order(make_mnist, tmp_path):
    folder = make_mnist()
    images = np.random.default_rng(1).integers(0, 256, (40, 28, 28))
    write(folder / TRAIN_IMAGES, images)
    train = load("mnist", data_dir=tmp_path).train
    np.testing.assert_allclose(train.inputs[:, 0].numpy(), images / 255, rtol=1e-6)
    assert torch.equal(train.target, torch.arange(40) % 10)


def test_another_copy_is_read_with_a_note(make_mnist, tmp_path):
    make_mnist()
    notes = load("mnist", data_dir=tmp_path).notes
    assert any("not byte for byte the original" in note for note in notes)
    assert any("40 images, the original has 60000" in note for note in notes)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


LABELS = np.arange(40) % 10
BREAKAGES = {
    "truncated gzip": (TRAIN_IMAGES, truncate, "truncated or corrupt"),
    "flipped byte": (TRAIN_IMAGES, flip, "truncated or corrupt"),
    "empty file": (TRAIN_IMAGES, lambda p: p.write_bytes(b""), "found magic nothing"),
    "web page": (TRAIN_IMAGES, lambda p: p.write_bytes(b"<html>"), "found magic 3c68746d"),
    "labels for images": (TRAIN_IMAGES, lambda p: write(p, LABELS), "3 dimensions"),
    "floats": (TRAIN_LABELS, lambda p: write(p, LABELS, kind=13), "magic 00000801.*00000d01"),
    "short header": (TRAIN_LABELS, lambda p: p.write_bytes(b"\0\0\x08\x01\0"), "5 of 8 bytes"),
    "short payload": (
        TRAIN_LABELS,
        lambda p: p.write_bytes(idx_bytes(LABELS)[:-1]),
        "promises 40 = 40 bytes; found 39",
    ),
    "long payload": (TRAIN_LABELS, lambda p: p.write_bytes(idx_bytes(LABELS) + b"x"), "found 41"),
    "count mismatch": (TRAIN_LABELS, lambda p: write(p, LABELS[:39]), "40 images .* 39 labels"),
    "label 10": (
        TRAIN_LABELS,
        lambda p: write(p, np.where(LABELS == 3, 10, LABELS)),
        "found 10 at position 3",
    ),
    "27 columns": (TRAIN_IMAGES, lambda p: write(p, np.zeros((40, 28, 27))), "found 28 x 27"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_file_is_named_with_what_was_found(make_mnist, tmp_path, breakage):
    file, break_it, message = BREAKAGES[breakage]
    path = make_mnist() / file
    break_it(path)
    with pytest.raises(DataFileError, match=message) as caught:
        load("mnist", data_dir=tmp_path)
    assert str(path) in str(caught.value)


def test_no_image_at_all_is_refused(make_mnist, tmp_path):
    folder = make_mnist()
    write(folder / TRAIN_IMAGES, np.zeros((0, 28, 28)))
    write(folder / TRAIN_LABELS, np.zeros(0))
    with pytest.raises(ValueError, match="at least one example"):
        load("mnist", data_dir=tmp_path)


def test_an_absent_class_is_named(make_mnist, tmp_path):
    write(make_mnist() / TRAIN_LABELS, np.where(LABELS == 3, 4, LABELS))
    with pytest.raises(ValueError, match=r"class '3' \(label 3\) has no example"):
        load("mnist", data_dir=tmp_path)


def test_a_missing_file_is_named_with_the_remedy(make_mnist, tmp_path):
    (make_mnist() / TRAIN_LABELS).unlink()
    with pytest.raises(FileNotFoundError, match=r"no file train-labels-idx1-ubyte. Download"):
        load("mnist", data_dir=tmp_path)


def test_an_empty_folder_lists_where_was_looked(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"MNIST/raw, .*Download the four IDX files"):
        load("mnist", data_dir=tmp_path)


def test_no_folder_at_all_is_told():
    with pytest.raises(ValueError, match=r"'kmnist' needs data_dir. Download"):
        load("kmnist")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load("kmnist", data_dir="/nowhere/at/all")
