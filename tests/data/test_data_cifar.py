"""CIFAR sources on small generated pickles, whole, broken and hostile."""

from __future__ import annotations

import lzma
import os
import pickle

import numpy as np
import pytest
import torch

from lastlayer.data import DataFileError, load
from lastlayer.data.cifar import read_pickled_dict

NAMES = [f"thing {label}".encode() for label in range(10)]


def batch(seed: int, count: int = 20) -> dict[bytes, object]:
    rng = np.random.default_rng(seed)
    return {
        b"batch_label": b"some batch",
        b"labels": [label % 10 for label in range(count)],
        b"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        b"filenames": [b"photo.png"] * count,
    }


def dump(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))


@pytest.fixture
def cifar10(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for number in range(1, 6):
        dump(folder / f"data_batch_{number}", batch(number))
    dump(folder / "test_batch", batch(6))
    dump(folder / "batches.meta", {b"label_names": NAMES, b"num_vis": 3072})
    return folder


def test_five_batches_are_joined_in_order(cifar10, tmp_path):
    splits = load("cifar10", data_dir=tmp_path)
    data = np.concatenate([batch(number)[b"data"] for number in range(1, 6)])
    expected = data.reshape(-1, 3, 32, 32) / 255
    np.testing.assert_allclose(splits.train.inputs.numpy(), expected, rtol=1e-6)
    assert torch.equal(splits.train.target, torch.arange(100) % 20 % 10)
    assert splits.class_names[3] == "thing 3"
    assert splits.notes == ()


def test_the_folder_itself_and_compressed_files_do_too(cifar10):
    for path in list(cifar10.iterdir()):
        (path.parent / (path.name + ".xz")).write_bytes(lzma.compress(path.read_bytes()))
        path.unlink()
    assert len(load("cifar10", data_dir=cifar10).train) == 100


def test_missing_batches_are_named(cifar10, tmp_path):
    (cifar10 / "data_batch_2").unlink()
    (cifar10 / "data_batch_5").unlink()
    with pytest.raises(FileNotFoundError, match="lacks data_batch_2, data_batch_5"):
        load("cifar10", data_dir=tmp_path)


def test_missing_batches_can_be_allowed_and_are_noted(cifar10, tmp_path):
    (cifar10 / "data_batch_2").unlink()
    splits = load("cifar10", data_dir=tmp_path, options={"allow_missing_batches": True})
    assert len(splits.train) == 80
    assert "data_batch_2" in splits.notes[0]


@pytest.mark.parametrize("file", ["test_batch", "batches.meta"])
def test_a_missing_test_batch_or_meta_is_never_allowed(cifar10, tmp_path, file):
    (cifar10 / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"no file {file}. Download"):
        load("cifar10", data_dir=tmp_path, options={"allow_missing_batches": True})


@pytest.fixture
def cifar100(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, seed in (("train", 1), ("test", 2)):
        content = batch(seed, count=200)
        del content[b"labels"]
        content[b"fine_labels"] = [row % 100 for row in range(200)]
        content[b"coarse_labels"] = [row % 20 for row in range(200)]
        dump(folder / name, content)
    meta = {f"{level}_label_names".encode(): [f"{level} {k}".encode() for k in range(count)]
            for level, count in (("fine", 100), ("coarse", 20))}  # fmt: skip
    dump(folder / "meta", meta)
    return folder


@pytest.mark.parametrize(("coarse", "count"), [(False, 100), (True, 20)])
def test_cifar100_has_fine_and_coarse_labels(cifar100, tmp_path, coarse, count):
    splits = load("cifar100", data_dir=tmp_path, options={"coarse": coarse})
    assert torch.equal(splits.train.target, torch.arange(200) % count)
    assert splits.class_names[-1] == f"{'coarse' if coarse else 'fine'} {count - 1}"


BREAKAGES = {
    "no labels": ({b"labels": None}, "'labels' must be a list of integers"),
    "label 10": ({b"labels": [0] * 19 + [10]}, "found 10 at row 19"),
    "label -1": ({b"labels": [-1] * 20}, "found -1 at row 0"),
    "short labels": ({b"labels": [0] * 19}, "20 images but 19 labels"),
    "float data": ({b"data": np.zeros((20, 3072))}, "found float64"),
    "narrow data": ({b"data": np.zeros((20, 3071), np.uint8)}, r"found uint8 \(20, 3071\)"),
    "list data": ({b"data": [1, 2]}, "found list"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_batch_is_named(cifar10, tmp_path, breakage):
    change, message = BREAKAGES[breakage]
    path = cifar10 / "data_batch_3"
    dump(path, batch(3) | change)
    with pytest.raises(DataFileError, match=message) as caught:
        load("cifar10", data_dir=tmp_path)
    assert str(path) in str(caught.value)


def test_other_breakages_are_named(cifar10, tmp_path):
    path = cifar10 / "data_batch_3"
    for content, message in (
        (pickle.dumps([1, 2]), "expected a pickled dict; found list"),
        (pickle.dumps(batch(3))[:-50], "not a readable pickle"),
        (b"<html>", "not a readable pickle"),
        (b"", "not a readable pickle"),
        (lzma.compress(pickle.dumps(batch(3)))[:-9], "truncated or corrupt"),
        (pickle.dumps({b"labels": []}), "no key 'data'; found labels"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataFileError, match=message):
            load("cifar10", data_dir=tmp_path)


def test_class_names_of_the_wrong_number_are_refused(cifar10, tmp_path):
    dump(cifar10 / "batches.meta", {b"label_names": NAMES[:9]})
    with pytest.raises(DataFileError, match="a list of 10 class names"):
        load("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_lists_and_bytes_are_read_from_every_protocol(tmp_path, protocol):
    path = tmp_path / "file"
    dump(path, batch(1), protocol)
    loaded, expected = read_pickled_dict(path), batch(1)
    assert loaded["labels"] == expected[b"labels"]
    assert loaded["filenames"] == expected[b"filenames"]
    np.testing.assert_array_equal(loaded["data"], expected[b"data"])


class Hostile:
    """Unpickled by an ordinary unpickler, it runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path, protocol):
    path, witness = tmp_path / "file", tmp_path / "witness"
    dump(path, {b"data": Hostile(witness)}, protocol)
    with pytest.raises(DataFileError, match=r"asks for posix\.system.*nothing was run"):
        read_pickled_dict(path)
    assert not witness.exists()
    pickle.loads(path.read_bytes())  # the same file does harm an ordinary unpickler
    assert witness.exists()


@pytest.mark.parametrize("wanted", [eval, getattr, open, np.load], ids=lambda f: f.__name__)
def test_other_functions_are_refused(tmp_path, wanted):
    path = tmp_path / "file"
    dump(path, {b"data": wanted})
    with pytest.raises(DataFileError, match="asks for"):
        read_pickled_dict(path)


def test_other_codecs_are_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")
    with pytest.raises(DataFileError, match="asks for the codec 'rot13'"):
        read_pickled_dict(path)
