"""From labels as they stand in files (numbers, names) to class indices and class names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lastlayer.data.files import DataFileError

Label = str | int


def index_labels(
    train: Sequence[Label], test: Sequence[Label], *, where: str
) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """Number the classes that occur in training, sorted (numbers by value, names by letter).

    Returns class names, training and test target, int64. ``where`` names the data in messages.

    Example:
        >>> index_labels(["cat", "ant", "cat"], ["ant"], where="pets")
        (('ant', 'cat'), tensor([1, 0, 1]), tensor([0]))
    """
    classes = sorted(set(train), key=_sort_key)
    number = {label: index for index, label in enumerate(classes)}
    for label in test:
        if label not in number:
            raise DataFileError(f"{where}: test label {label!r} has no training example")
    target, test_target = (
        torch.tensor([number[label] for label in part], dtype=torch.int64) for part in (train, test)
    )
    return tuple(str(label) for label in classes), target, test_target


def label_array_to_list(array: np.ndarray, *, where: str) -> list[Label]:
    """Return a 1-D array of integers of at least 0, or of strings, as a list."""
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise DataFileError(
            f"{where}: labels must be a 1-D array of integers or strings; "
            f"found {array.ndim}-D of {array.dtype}"
        )
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        row = int(array.argmin())
        raise DataFileError(f"{where}: labels must be at least 0; found {array[row]} at row {row}")
    labels: list[Label] = array.tolist()
    return labels


def _sort_key(label: Label) -> tuple[int, int, str]:
    text = str(label)
    return (0, int(text), text) if text.isdecimal() else (1, 0, text)
