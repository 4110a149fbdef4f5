"""The .npz source."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lastlayer.data import DataFileError, load

LABELS = np.arange(20) % 4


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "mine.npz", **arrays)
        return tmp_path

    return write


@pytest.mark.parametrize("inputs", ["x", "X", "features", "images", "x_train"])
@pytest.mark.parametrize("labels", ["y", "labels", "target", "y_train"])
def test_arrays_go_by_several_names(save, inputs, labels):
    folder = save(**{inputs: np.ones((20, 3)), labels: LABELS})
    splits = load("npz", data_dir=folder)
    assert (len(splits.train), len(splits.test), splits.kind) == (16, 4, "vector")
    assert splits.class_names == ("0", "1", "2", "3")


def test_test_arrays_are_used_where_given(save):
    x, x_test = np.random.default_rng(0).normal(size=(2, 20, 3))
    splits = load("npz", data_dir=save(x=x, y=LABELS, x_test=x_test, y_test=LABELS[::-1]))
    np.testing.assert_array_equal(splits.train.inputs, x.astype(np.float32))
    np.testing.assert_array_equal(splits.test.inputs, x_test.astype(np.float32))
    assert torch.equal(splits.test.target, torch.from_numpy(LABELS[::-1].copy()))
    assert splits.notes == ()


def test_names_as_labels_are_sorted_into_classes(save):
    names = np.array(["bee", "ant"] * 10)
    splits = load("npz", data_dir=save(x=np.zeros((20, 2)), y=names))
    assert splits.class_names == ("ant", "bee")


def test_numbers_as_labels_are_sorted_by_value(save):
    labels = np.array([10, 9] * 10, dtype=np.uint8)
    assert load("npz", data_dir=save(x=np.zeros((20, 2)), y=labels)).class_names == ("9", "10")


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((20, 5, 4), None, (1, 5, 4)),
        ((20, 5, 4, 3), None, (3, 5, 4)),
        ((20, 3, 5, 4), "NCHW", (3, 5, 4)),
        ((20, 3, 5, 6), None, (3, 5, 6)),
        ((20, 3, 5, 3), "NHWC", (3, 3, 5)),
        ((20, 3, 5, 3), "NCHW", (3, 5, 3)),
        ((20, 5, 6, 2), "NHWC", (2, 5, 6)),
    ],
)
def test_images_come_out_channels_first_and_scaled(save, shape, layout, expected):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    folder = save(x=images, y=LABELS, x_test=images, y_test=LABELS)
    splits = load("npz", data_dir=folder, options={"layout": layout} if layout else None)
    assert splits.input_shape == expected
    pixels = images.reshape(20, *shape[1:]) / 255
    if len(shape) == 3:
        pixels = pixels[:, None]
    elif expected[0] == shape[3] and layout != "NCHW":
        pixels = np.moveaxis(pixels, 3, 1)
    np.testing.assert_allclose(splits.train.inputs.numpy(), pixels, rtol=1e-6)


def test_float_images_are_taken_as_they_are(save):
    images = np.random.default_rng(0).random((20, 5, 4))
    folder = save(x=images, y=LABELS, x_test=images, y_test=LABELS)
    train = load("npz", data_dir=folder).train
    np.testing.assert_array_equal(train.inputs[:, 0], images.astype(np.float32))


IMAGES = np.zeros((20, 5, 4), np.uint8)
REFUSED = {
    "ambiguous channels": (
        {"x": np.zeros((20, 3, 5, 3), np.uint8), "y": LABELS},
        "set the option layout",
    ),
    "no channels": ({"x": np.zeros((20, 6, 5, 7), np.uint8), "y": LABELS}, "set the option layout"),
    "five dimensions": ({"x": np.zeros((20, 1, 1, 1, 1)), "y": LABELS}, "2, 3 or 4 dimensions"),
    "integer images": ({"x": IMAGES.astype(int), "y": LABELS}, "uint8 or floating; found int64"),
    "float images beyond 1": ({"x": IMAGES + 255.0, "y": LABELS}, r"must lie in \[0, 1\]"),
    "NaN": ({"x": np.full((20, 2), np.nan), "y": LABELS}, "example 0 holds NaN"),
    "complex": ({"x": np.zeros((20, 2), complex), "y": LABELS}, "found complex128"),
    "lengths": ({"x": np.zeros((19, 2)), "y": LABELS}, "19 inputs but 20 labels"),
    "no inputs": ({"z": np.zeros(3), "y": LABELS}, "expected exactly one of x, X, .*; found z, y"),
    "two inputs": ({"x": IMAGES, "X": IMAGES, "y": LABELS}, "found x, X"),
    "no labels": ({"x": IMAGES}, "expected exactly one of y"),
    "float labels": ({"x": IMAGES, "y": LABELS * 1.0}, "integers or strings; found 1-D of float64"),
    "one-hot labels": ({"x": IMAGES, "y": np.eye(20, dtype=int)}, "found 2-D of int64"),
    "label -1": ({"x": IMAGES, "y": LABELS - 1}, "at least 0; found -1 at row 0"),
    "test class": (
        {"x": IMAGES, "y": LABELS, "x_test": IMAGES, "y_test": LABELS + 1},
        "test label 4 has no training example",
    ),
    "no test labels": (
        {"x": IMAGES, "y": LABELS, "x_test": IMAGES},
        "expected exactly one of y_test",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arrays_that_do_not_fit_are_refused(save, case):
    arrays, message = REFUSED[case]
    folder = save(**arrays)
    with pytest.raises(ValueError, match=message):
        load("npz", data_dir=folder)


def test_a_layout_that_does_not_fit_is_refused(save):
    folder = save(x=IMAGES, y=LABELS)
    for layout, message in (("NHWC", "does not fit the shape"), ("CHW", "layout must be one of")):
        with pytest.raises(ValueError, match=message):
            load("npz", data_dir=folder, options={"layout": layout})


def test_pickled_objects_are_not_read(save):
    with pytest.raises(DataFileError, match=r"not a readable .npz file"):
        load("npz", data_dir=save(x=np.array([{}, []], dtype=object), y=LABELS[:2]))


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 and no more", None])
def test_a_broken_file_is_named(save, content):
    path = save(x=IMAGES, y=LABELS) / "mine.npz"
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    with pytest.raises(DataFileError, match=r"mine\.npz: not a readable .npz file"):
        load("npz", data_dir=path)


def test_a_single_array_file_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    with pytest.raises(DataFileError, match=r"not a readable .npz file"):
        load("npz", data_dir=tmp_path / "x.npy")


def test_one_of_several_files_is_named_by_option(save):
    folder = save(x=IMAGES, y=LABELS)
    np.savez(folder / "other.npz", x=np.zeros((20, 7)), y=LABELS)
    with pytest.raises(FileNotFoundError, match=r"has 2 .npz files"):
        load("npz", data_dir=folder)
    assert load("npz", data_dir=folder, options={"file": "other.npz"}).input_shape == (7,)
    with pytest.raises(FileNotFoundError, match=r"no file .*third\.npz"):
        load("npz", data_dir=folder, options={"file": "third.npz"})
    with pytest.raises(ValueError, match="needs data_dir"):
        load("npz")
