"""CIFAR-10 and CIFAR-100 in their "python version": pickles, read without running anything."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lastlayer.data.files import (
    DataFileError,
    find_file,
    find_folder,
    read_bytes,
    require_data_dir,
    require_file,
)
from lastlayer.data.sources import SOURCES, Examples, Raw

SHAPE = (3, 32, 32)
CIFAR10_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_HOW_TO_GET = 'Download the "python version" from the data set\'s site and unpack it there.'


@SOURCES.register("cifar10", description="32x32 color photos, 10 classes; 50,000 + 10,000")
def cifar10(data_dir: Path | None = None, *, allow_missing_batches: bool = False) -> Raw:
    """Read CIFAR-10 from ``data_dir`` or ``data_dir/cifar-10-batches-py``.

    Args:
        data_dir: the folder.
        allow_missing_batches: read the training batches that are there; the missing ones are
            named in the notes. Otherwise a missing batch is an error.

    Returns:
        Training and test images.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    folder = _folder("cifar10", data_dir, "cifar-10-batches-py", CIFAR10_TRAIN)
    class_names = _class_names(folder, "batches.meta", "label_names", 10)
    paths = {name: find_file(folder, [name]) for name in CIFAR10_TRAIN}
    missing = [name for name, path in paths.items() if path is None]
    if missing and not allow_missing_batches:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}. {_HOW_TO_GET} "
            "To train on the batches that are there, set the option allow_missing_batches."
        )
    read = [_read_batch(path, "labels", 10) for path in paths.values() if path is not None]
    note = f"The training batches {', '.join(missing)} are missing; results on the others are not "
    return Raw(
        train=Examples(
            torch.cat([torch.as_tensor(part.inputs) for part in read]),
            torch.cat([part.target for part in read]),
        ),
        test=_read_batch(require_file(folder, ["test_batch"], _HOW_TO_GET), "labels", 10),
        class_names=class_names,
        kind="image",
        notes=(note + "comparable with those on the whole set.",) if missing else (),
    )


@SOURCES.register("cifar100", description="32x32 color photos, 100 classes; 50,000 + 10,000")
def cifar100(data_dir: Path | None = None, *, coarse: bool = False) -> Raw:
    """Read CIFAR-100 from ``data_dir`` or ``data_dir/cifar-100-python``.

    Args:
        data_dir: the folder.
        coarse: label by the 20 superclasses instead of the 100 classes.

    Returns:
        Training and test images.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    folder = _folder("cifar100", data_dir, "cifar-100-python", ["train"])
    level, num_classes = ("coarse", 20) if coarse else ("fine", 100)
    class_names = _class_names(folder, "meta", f"{level}_label_names", num_classes)
    train, test = (
        _read_batch(require_file(folder, [name], _HOW_TO_GET), f"{level}_labels", num_classes)
        for name in ("train", "test")
    )
    return Raw(train=train, test=test, class_names=class_names, kind="image")


def _folder(name: str, data_dir: Path | None, subfolder: str, stems: Sequence[str]) -> Path:
    root = require_data_dir(data_dir, name, _HOW_TO_GET)
    return find_folder([root / subfolder, root], stems, _HOW_TO_GET)


def _class_names(folder: Path, file: str, key: str, num_classes: int) -> tuple[str, ...]:
    path = require_file(folder, [file], _HOW_TO_GET)
    names = read_pickled_dict(path).get(key)
    if not isinstance(names, list) or len(names) != num_classes:
        raise DataFileError(f"{path}: expected {key!r}, a list of {num_classes} class names")
    return tuple(as_text(name) for name in names)


def _read_batch(path: Path, label_key: str, num_classes: int) -> Examples:
    """Read and check one file of images and labels."""
    batch = read_pickled_dict(path)
    for key in ("data", label_key):
        if key not in batch:
            raise DataFileError(f"{path}: no key {key!r}; found {', '.join(sorted(batch))}")
    data, labels = batch["data"], batch[label_key]
    pixels = int(np.prod(SHAPE))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (pixels,):
        is_array = isinstance(data, np.ndarray)
        found = f"{data.dtype} {data.shape}" if is_array else type(data).__name__
        raise DataFileError(f"{path}: 'data' must be a uint8 array N x {pixels}; found {found}")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataFileError(f"{path}: {label_key!r} must be a list of integers")
    if len(labels) != len(data):
        raise DataFileError(f"{path}: {len(data)} images but {len(labels)} labels")
    for row, label in enumerate(labels):
        if not 0 <= label < num_classes:
            raise DataFileError(
                f"{path}: labels must lie in [0, {num_classes - 1}]; found {label} at row {row}"
            )
    images = torch.from_numpy(np.ascontiguousarray(data)).reshape(-1, *SHAPE)
    return Examples(images, torch.tensor(labels, dtype=torch.int64))


def _encode_latin1(text: str, encoding: str) -> bytes:
    """``codecs.encode`` as Python 3 uses it to store bytes in old pickle protocols, no more."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"the pickle asks for the codec {encoding!r}")
    return text.encode("latin1")


# The constructors of arrays, asked of NumPy itself since their home moved between versions.
_reconstruct = np.empty(0).__reduce__()[0]
_from_buffer = np.empty(0).__reduce_ex__(5)[0]

_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode_latin1,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds dicts, lists, numbers, bytes and NumPy arrays; refuses every other name."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the pickle asks for {module_name}.{global_name}, which a file of arrays does not "
                "need; it was refused and nothing was run"
            ) from None


def read_pickled_dict(path: Path) -> dict[str, Any]:
    """Read a pickled dict of plain values and NumPy arrays, plain or compressed.

    Python 2 pickles are read too; bytes keys become strings.
    """
    content = read_bytes(path)
    try:
        loaded = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a corrupt pickle can fail in any way
        raise DataFileError(f"{path}: not a readable pickle of arrays: {error}") from error
    if not isinstance(loaded, dict):
        raise DataFileError(f"{path}: expected a pickled dict; found {type(loaded).__name__}")
    return {as_text(key): value for key, value in loaded.items()}


def as_text(value: object) -> str:
    """Return bytes decoded, anything else as ``str``."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
