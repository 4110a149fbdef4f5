"""A finished run's features in a file that the ``npz`` data source and other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lastlayer._files import atomic_write
from lastlayer.data import Splits
from lastlayer.training import RunDirectory
from lastlayer.training.fit import load_classifier, load_run_splits

Arrays = dict[str, NDArray[Any]]


def run_features(path: str | Path, *, data_dir: str | None = None) -> Arrays:
    """Return what a run's head sees of its training, validation and test examples.

    ``x_train`` (N, D) and ``y_train`` (N,), likewise ``x_validation``, if the run has such
    examples, and ``x_test``. Labels are the names of the classes, numbers if they are numbers.
    ``data_dir`` is where the data's files are, if not the run's any more.
    """
    run = RunDirectory.open(path)
    classifier = load_classifier(run)
    splits = load_run_splits(run, data_dir=data_dir)
    labels = class_labels(splits.class_names)
    arrays: Arrays = {}
    for part, split in named_parts(splits).items():
        arrays[f"x_{part}"] = classifier.features_of(split.inputs).flatten(1).numpy()
        arrays[f"y_{part}"] = labels[split.target.numpy()]
    return arrays


def write_features(path: str | Path, out: Path, *, data_dir: str | None = None) -> Arrays:
    """Write :func:`run_features` to an ``.npz`` file, whole or not at all, and return them."""
    if out.suffix != ".npz":
        raise ValueError(f"out must end in .npz; got {str(out)!r}")
    arrays = run_features(path, data_dir=data_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    named: dict[str, Any] = dict(arrays)
    with atomic_write(out) as temporary, temporary.open("wb") as file:
        np.savez(file, **named)
    return arrays


def class_labels(class_names: Sequence[str]) -> NDArray[Any]:
    """Return the names as labels by class index: as numbers if they are numbers.

    Example:
        >>> class_labels(["0", "10"]), class_labels(["cat", "dog"])
        (array([ 0, 10]), array(['cat', 'dog'], dtype='<U3'))
    """
    if len(set(class_names)) < len(class_names):
        return np.arange(len(class_names))
    if all(name.isdecimal() and str(int(name)) == name for name in class_names):
        return np.array([int(name) for name in class_names])
    return np.array(class_names)


def named_parts(splits: Splits) -> dict[str, Any]:
    """Return the splits that there are by name."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: split for name, split in parts.items() if split is not None}
