"""What linear models are fitted to: features of files, or a data source's flattened inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lastlayer._checks import check_choice
from lastlayer.data import DataFileError, load
from lastlayer.data.npz import read_arrays
from lastlayer.evaluation import evaluate
from lastlayer.experiments.features import class_labels, named_parts
from lastlayer.linear_model import LinearSoftmax, RandomFeatures
from lastlayer.linear_model.rows import Rows

DTYPES = ("float32", "float64")


class Part(NamedTuple):
    """Examples: features (n, d) and labels (n,)."""

    features: NDArray[Any]
    labels: NDArray[Any]

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of examples and of features."""
        return len(self.labels), int(self.features.shape[1])

    @property
    def held_out(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return what a path measures its models on."""
        return self

    def measure(self, model: LinearSoftmax) -> dict[str, Any]:
        """Return how good a model's predictions are."""
        log_prob = torch.from_numpy(np.asarray(model.predict_log_proba(self.features)))
        target = torch.from_numpy(np.searchsorted(model.classes_, self.labels).astype(np.int64))
        return evaluate(log_prob, target).as_dict()

    def accuracy(self, model: LinearSoftmax) -> float:
        """Return the share of examples that a model is right about."""
        return float(np.mean(model.predict(self.features) == self.labels))


class RowsPart(NamedTuple):
    """Examples that need not be in memory: rows with their labels, and how many there are."""

    rows: Rows
    num_examples: int

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of examples and of features."""
        return self.num_examples, self.rows.num_features

    @property
    def held_out(self) -> Rows:
        """Return what a path measures its models on."""
        return self.rows

    def measure(self, model: LinearSoftmax) -> dict[str, Any]:
        """Return error and NLL, which one pass over the rows gives."""
        found = model.measure_rows(self.rows)
        return {"error": 1 - found.accuracy, "nll": found.nll, "count": found.num_rows}

    def accuracy(self, model: LinearSoftmax) -> float:
        """Return the share of examples that a model is right about."""
        return model.measure_rows(self.rows).accuracy


AnyPart = Part | RowsPart


@dataclass(frozen=True, eq=False)
class LinearData:
    """Features with labels.

    Attributes:
        name: of the data source, or the file.
        train: what is fitted to.
        test: what is measured on.
        validation: what C is chosen by, or None.
        notes: what the user should know about these data.
        random: the layer that made the features, if one did.
        files: digest of files that are not read whole.
    """

    name: str
    train: AnyPart
    test: AnyPart
    validation: AnyPart | None = None
    notes: tuple[str, ...] = ()
    random: RandomFeatures | None = None
    files: str = ""

    def fingerprint(self) -> str:
        """Return a digest of all examples, to tell whether data have changed."""
        if self.files:
            return self.files
        parts = (self.train, self.validation, self.test)
        return digest_of(array for part in parts if isinstance(part, Part) for array in part)

    def through(self, random: RandomFeatures) -> LinearData:
        """Return the same examples behind a random layer that is fitted to the training part."""
        if isinstance(self.train, RowsPart):
            raise ValueError("random_features are for features in memory: an .npz file, or data")
        random.fit(self.train.features)

        def transformed(part: Any) -> Part:
            return Part(random.transform(part.features), part.labels)

        return replace(
            self,
            train=transformed(self.train),
            test=transformed(self.test),
            validation=None if self.validation is None else transformed(self.validation),
            random=random,
        )


def digest_of(arrays: Iterable[NDArray[Any]]) -> str:
    """Return a digest of arrays, their shapes and dtypes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()[:16]


def load_linear_data(
    *,
    features: Path | None = None,
    data: str | None = None,
    data_dir: Path | None = None,
    train_size: int | None = None,
    held_out: bool = False,
    validation_size: float | None = None,
    seed: int = 0,
    dtype: str = "float32",
    options: Mapping[str, Any] | None = None,
) -> LinearData:
    """Read features and labels.

    Args:
        features: ``.npz`` file with arrays as the ``npz`` data source reads them, such as
            ``lastlayer features`` writes; ``x_validation`` and ``y_validation`` are the held-out
            part if there is to be one.
        data: a data source's name instead; its inputs are flattened. Digits if there is neither.
        data_dir: folder of the data source's files.
        train_size: training examples, drawn class-balanced; all if None.
        held_out: whether a held-out part is needed.
        validation_size: held-out examples, a count or a fraction, drawn from the training ones;
            the file's own, or a tenth, if None.
        seed: fixes the draws.
        dtype: what is computed in, ``"float32"`` or ``"float64"``.
        options: the data source's own.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if there are both a file and a name, or an array is missing or not finite.
    """
    check_choice("dtype", dtype, DTYPES)
    if features is not None and data is not None:
        raise ValueError(f"give features or data, not both; got {str(features)!r} and {data!r}")
    file_part = None
    if features is not None and held_out and validation_size is None:
        file_part = _file_validation(features)
    draw = validation_size if held_out and file_part is None else 0
    splits = load(
        "npz" if features is not None else data or "digits",
        data_dir=features if features is not None else data_dir,
        train_size=train_size,
        validation_size=draw,
        seed=seed,
        options=options,
    )
    labels = class_labels(splits.class_names)
    parts = {
        name: Part(
            split.inputs.flatten(1).numpy().astype(dtype, copy=False), labels[split.target.numpy()]
        )
        for name, split in named_parts(splits).items()
    }
    if file_part is not None:
        parts["validation"] = _checked(file_part, parts["train"], dtype, str(features))
    return LinearData(
        name=splits.name if features is None else features.stem,
        train=parts["train"],
        test=parts["test"],
        validation=parts.get("validation"),
        notes=splits.notes,
    )


def _file_validation(path: Path) -> Part | None:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    arrays = read_arrays(path)
    if "x_validation" not in arrays:
        return None
    if "y_validation" not in arrays:
        raise DataFileError(f"{path}: x_validation is there but no y_validation")
    return Part(arrays["x_validation"], arrays["y_validation"])


def _checked(part: Part, train: Part, dtype: str, where: str) -> Part:
    features, labels = part
    if features.dtype.kind not in "biuf":
        raise DataFileError(f"{where}: x_validation must be numbers; found {features.dtype}")
    width = train.features.shape[1]
    if features.ndim != 2 or features.shape[1] != width or labels.shape != features.shape[:1]:
        raise DataFileError(
            f"{where}: x_validation must be (N, {width}) and y_validation (N,); "
            f"found {features.shape} and {labels.shape}"
        )
    if not np.isfinite(features).all():
        raise DataFileError(f"{where}: x_validation must be finite; it holds NaN or infinity")
    if labels.dtype.kind != train.labels.dtype.kind:
        labels = labels.astype(train.labels.dtype.kind)
    return Part(features.astype(dtype, copy=False), labels)
