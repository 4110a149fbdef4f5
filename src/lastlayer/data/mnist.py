"""MNIST and the two data sets made in its format, IDX."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from lastlayer.data.files import (
    DataFileError,
    find_folder,
    read_bytes,
    require_data_dir,
    require_file,
)
from lastlayer.data.sources import SOURCES, Examples, Raw

SIDE = 28
COUNTS = {"train": 60_000, "t10k": 10_000}
DIGITS = tuple(str(digit) for digit in range(10))
CLOTHES = (
    "t-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

# For information only: another copy of the same data is as good.
MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


@SOURCES.register("mnist", description="28x28 gray digits, IDX files; 60,000 + 10,000")
def mnist(data_dir: Path | None = None) -> Raw:
    """Read MNIST from ``data_dir``, ``data_dir/mnist`` or ``data_dir/MNIST/raw``.

    Source: LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86(11), 1998.
    """
    return _read("mnist", data_dir, ("mnist", "MNIST/raw"), DIGITS, md5=MNIST_MD5)


@SOURCES.register("fashion-mnist", description="28x28 gray clothes, IDX files; 60,000 + 10,000")
def fashion_mnist(data_dir: Path | None = None) -> Raw:
    """Read Fashion-MNIST from ``data_dir``, ``fashion-mnist`` or ``FashionMNIST/raw`` in it.

    Source: Xiao, Rasul, Vollgraf, arXiv:1708.07747.
    """
    return _read("fashion-mnist", data_dir, ("fashion-mnist", "FashionMNIST/raw"), CLOTHES)


@SOURCES.register("kmnist", description="28x28 gray cursive Japanese, IDX files; 60,000 + 10,000")
def kmnist(data_dir: Path | None = None) -> Raw:
    """Read Kuzushiji-MNIST from ``data_dir``, ``data_dir/kmnist`` or ``data_dir/KMNIST/raw``.

    Source: Clanuwat et al., arXiv:1812.01718.
    """
    return _read("kmnist", data_dir, ("kmnist", "KMNIST/raw"), KANA)


def _read(
    name: str,
    data_dir: Path | None,
    subfolders: Sequence[str],
    class_names: tuple[str, ...],
    md5: dict[str, str] | None = None,
) -> Raw:
    """Find the four files and read them."""
    how_to_get = f"Download the four IDX files of {name} from the data set's site into it."
    root = require_data_dir(data_dir, name, how_to_get)
    folders = [*(root / subfolder for subfolder in subfolders), root]
    stems = [
        stem for part in COUNTS for kind in ("images", "labels") for stem in _stems(part, kind)
    ]
    folder = find_folder(folders, stems, how_to_get)
    parts = [_read_part(folder, part, how_to_get, md5 or {}) for part in COUNTS]
    (train, train_notes), (test, test_notes) = parts
    notes = (*train_notes, *test_notes)
    return Raw(train=train, test=test, class_names=class_names, kind="image", notes=notes)


def _stems(part: str, kind: str) -> list[str]:
    """Names a file goes by; some copies have a dot for the second dash."""
    dimensions = {"images": 3, "labels": 1}[kind]
    return [f"{part}-{kind}{mark}idx{dimensions}-ubyte" for mark in "-."]


def _read_part(
    folder: Path, part: str, how_to_get: str, md5: dict[str, str]
) -> tuple[Examples, list[str]]:
    """Read and check the images and labels of one part; return notes beside them."""
    image_path, label_path = (
        require_file(folder, _stems(part, kind), how_to_get) for kind in ("images", "labels")
    )
    images, labels = read_idx(image_path, dimensions=3), read_idx(label_path, dimensions=1)
    if images.shape[1:] != (SIDE, SIDE):
        found = " x ".join(map(str, images.shape[1:]))
        raise DataFileError(f"{image_path}: expected images of {SIDE} x {SIDE}; found {found}")
    if len(images) != len(labels):
        raise DataFileError(
            f"{image_path} holds {len(images)} images but {label_path} holds {len(labels)} labels"
        )
    if len(labels) and labels.max() > 9:
        row = int(np.argmax(labels > 9))
        raise DataFileError(
            f"{label_path}: labels must lie in [0, 9]; found {labels[row]} at position {row}"
        )
    notes = []
    for path in (image_path, label_path):
        if path.name in md5:
            found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            if found != md5[path.name]:
                notes.append(f"{path.name}: not byte for byte the original file (md5 {found}).")
    if len(labels) != COUNTS[part]:
        notes.append(f"{image_path.name}: {len(labels)} images, the original has {COUNTS[part]}.")
    examples = Examples(
        torch.from_numpy(images.copy()).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))
    )
    return examples, notes


_UNSIGNED_BYTE = 8


def read_idx(path: Path, *, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, plain or compressed, of so many dimensions.

    The header is big-endian: two zero bytes, the type (8: unsigned byte), the number of dimensions,
    then each size in four bytes; the values follow in C order.
    """
    content = read_bytes(path)
    expected = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if content[:4] != expected:
        raise DataFileError(
            f"{path}: expected an IDX file of unsigned bytes with {dimensions} dimensions "
            f"(magic {expected.hex()}); found magic {content[:4].hex() or 'nothing'}"
        )
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataFileError(f"{path}: the header ends after {len(content)} of {start} bytes")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    found, wanted = len(content) - start, math.prod(shape)
    if found != wanted:
        raise DataFileError(
            f"{path}: the header promises {' x '.join(map(str, shape))} = {wanted} bytes; "
            f"found {found}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
