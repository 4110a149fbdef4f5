"""Your own arrays in a NumPy .npz file."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lastlayer._checks import check_choice
from lastlayer.data.files import DataFileError
from lastlayer.data.labels import index_labels, label_array_to_list
from lastlayer.data.sources import SOURCES, Examples, Raw
from lastlayer.data.splits import Kind
from lastlayer.data.subset import set_test_apart

Array = npt.NDArray[Any]
INPUT_NAMES = ("x", "X", "features", "images", "x_train", "X_train")
LABEL_NAMES = ("y", "labels", "target", "y_train")
TEST_INPUT_NAMES = ("x_test", "X_test")
LAYOUTS = ("NHW", "NHWC", "NCHW")
_CHANNELS = (1, 3, 4)


@SOURCES.register("npz", description="your arrays in one .npz file: x and y, optionally x_test")
def npz(
    data_dir: Path | None = None,
    *,
    file: str | None = None,
    layout: str | None = None,
    test_fraction: float = 0.2,
    split_seed: int = 0,
) -> Raw:
    """Read vectors ``(N, D)`` or images from arrays called x and y (or as in ``INPUT_NAMES``).

    Images are uint8, or floats in [0, 1]. Labels are integers or strings; their sorted distinct
    values are the classes. The test part is x_test and y_test, else a draw in proportion to the
    classes. Pickled objects are not read.

    Args:
        data_dir: the .npz file, or the folder it is in.
        file: its name, if the folder holds several.
        layout: order of the images' axes, "NHW", "NHWC" or "NCHW", where the shape leaves it open.
        test_fraction: share of the test part where the file has none, in (0, 1).
        split_seed: fixes that draw, whatever the seed of the run.

    Returns:
        Training and test examples.
    """
    if layout is not None:
        check_choice("layout", layout, LAYOUTS)
    path = _find(data_dir, file)
    arrays = read_arrays(path)
    inputs, kind = _inputs(_pick(arrays, INPUT_NAMES, path), layout, path)
    labels = label_array_to_list(_pick(arrays, LABEL_NAMES, path), where=str(path))
    if not any(name in arrays for name in TEST_INPUT_NAMES):
        class_names, target, _ = index_labels(labels, [], where=str(path))
        everything = _examples(inputs, target, path)
        train, test = set_test_apart(everything, fraction=test_fraction, seed=split_seed)
        notes = (f"No test arrays: {len(test.target)} examples were set apart for the test.",)
        return Raw(train=train, test=test, class_names=class_names, kind=kind, notes=notes)
    test_inputs, _ = _inputs(_pick(arrays, TEST_INPUT_NAMES, path), layout, path)
    test_labels = label_array_to_list(_pick(arrays, ("y_test",), path), where=str(path))
    class_names, target, test_target = index_labels(labels, test_labels, where=str(path))
    return Raw(
        train=_examples(inputs, target, path),
        test=_examples(test_inputs, test_target, path),
        class_names=class_names,
        kind=kind,
    )


def _find(data_dir: Path | None, file: str | None) -> Path:
    """Return the path of the one .npz file that is meant."""
    if data_dir is None:
        raise ValueError("data source 'npz' needs data_dir: the .npz file or the folder it is in")
    path = data_dir / file if file is not None else data_dir
    if path.is_dir():
        found = sorted(path.glob("*.npz"))
        if len(found) != 1:
            raise FileNotFoundError(
                f"{path} has {len(found)} .npz files, expected one; name it by the option file"
            )
        return found[0]
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    return path


def read_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of an ``.npz`` file by name."""
    try:
        # Opened here, since np.load leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataFileError(f"{path}: not a readable .npz file ({error})") from error


def _pick(arrays: dict[str, Array], names: Sequence[str], path: Path) -> Array:
    """Return the one array called as one of ``names``."""
    present = [name for name in names if name in arrays]
    if len(present) != 1:
        found = ", ".join(present or arrays) or "nothing"
        raise DataFileError(f"{path}: expected exactly one of {', '.join(names)}; found {found}")
    return arrays[present[0]]


def _inputs(array: Array, layout: str | None, path: Path) -> tuple[Tensor, Kind]:
    """Return vectors as float32, images as ``(N, C, H, W)`` uint8 or float32."""
    if array.dtype.kind not in "biuf":
        raise DataFileError(f"{path}: inputs must be numbers; found {array.dtype}")
    if array.ndim == 2:
        return torch.from_numpy(array.astype(np.float32)), "vector"
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise DataFileError(f"{path}: images must be uint8 or floating; found {array.dtype}")
    layout = layout or _infer_layout(array.shape, path)
    if array.ndim != len(layout):
        raise DataFileError(f"{path}: layout {layout} does not fit the shape {array.shape}")
    if layout == "NHW":
        array = array[:, None]
    elif layout == "NHWC":
        array = array.transpose(0, 3, 1, 2)
    dtype = np.uint8 if array.dtype == np.uint8 else np.float32
    return torch.from_numpy(np.ascontiguousarray(array, dtype=dtype)), "image"


def _infer_layout(shape: tuple[int, ...], path: Path) -> str:
    if len(shape) == 3:
        return "NHW"
    if len(shape) == 4:
        first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
        if first != last:
            return "NCHW" if first else "NHWC"
        raise DataFileError(
            f"{path}: cannot tell which axis of {shape} holds the channels; "
            "set the option layout to NHWC or NCHW"
        )
    raise DataFileError(f"{path}: inputs must have 2, 3 or 4 dimensions; found shape {shape}")


def _examples(inputs: Tensor, target: Tensor, path: Path) -> Examples:
    if len(inputs) != len(target):
        raise DataFileError(f"{path}: {len(inputs)} inputs but {len(target)} labels")
    return Examples(inputs, target)
