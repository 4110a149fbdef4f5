"""Predict the examples of a file with a finished run."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lastlayer.data import DataFileError
from lastlayer.data.images import EXTENSIONS, read_image
from lastlayer.data.tfidf import FittedTfidf
from lastlayer.incremental import IncrementalRun, open_run
from lastlayer.incremental.storage import load_state
from lastlayer.training import RunDirectory
from lastlayer.training.fit import ENCODER_FILE, load_classifier
from lastlayer.training.measuring import predict


class Predictions(NamedTuple):
    """Names of N examples and of K classes, and the (N, K) probabilities."""

    examples: list[str]
    class_names: list[str]
    prob: Tensor


def predict_file(run_path: str | Path, file: str | Path, *, out: Path | None = None) -> Predictions:
    """Return the class probabilities of every example in a file; all go to ``out``, a ``.csv``.

    The file is ``.npz`` with an array ``x`` of the run's input shape (uint8 images are scaled to
    [0, 1]), an image, a folder of images, or a ``.csv`` with the run's column of texts, ``text``
    unless the run was told another.
    """
    run = open_run(run_path)
    summary = run.summary()
    examples, inputs = _read_inputs(Path(file), run, tuple(summary["input_shape"]))
    if isinstance(run, IncrementalRun):
        state, _, _ = load_state(run.learner)
        log_prob = state.log_prob(state.trained.features_of(inputs))
    else:
        log_prob, _ = predict(load_classifier(run), inputs)
    predictions = Predictions(examples, summary["class_names"], log_prob.exp())
    if out is not None:
        best = predictions.prob.argmax(dim=-1).tolist()
        with out.open("w", newline="", encoding="utf-8") as table:
            writer = csv.writer(table)
            writer.writerow(["example", "prediction", *predictions.class_names])
            for name, label, row in zip(examples, best, predictions.prob.tolist(), strict=True):
                shown = (f"{p:.6g}" for p in row)
                writer.writerow([name, predictions.class_names[label], *shown])
    return predictions


def _read_inputs(
    file: Path, run: RunDirectory, input_shape: tuple[int, ...]
) -> tuple[list[str], Tensor]:
    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}")
    if file.is_dir():
        images = sorted(path for path in file.iterdir() if path.suffix.lower() in EXTENSIONS)
        if not images:
            raise DataFileError(f"{file}: a folder of images is expected; it holds none")
        return [p.name for p in images], torch.stack([_image(p, input_shape) for p in images])
    if file.suffix == ".csv":
        texts = _read_texts(file, run.config().data.options.get("text_column", "text"))
        path = run.path / ENCODER_FILE
        if not path.is_file():
            raise DataFileError(f"{run.path} was not trained on texts: {ENCODER_FILE} is missing")
        encoder = FittedTfidf.from_extras(json.loads(path.read_text(encoding="utf-8")))
        return [text[:40] for text in texts], encoder.transform(texts)
    if file.suffix == ".npz":
        inputs = _read_array(file, input_shape)
        return [str(row) for row in range(len(inputs))], inputs
    if file.suffix.lower() in EXTENSIONS:
        return [file.name], _image(file, input_shape).unsqueeze(0)
    raise DataFileError(
        f"{file}: expected .npz, .csv, an image ({', '.join(EXTENSIONS)}) or a folder of images"
    )


def _image(path: Path, input_shape: tuple[int, ...]) -> Tensor:
    if len(input_shape) != 3:
        raise DataFileError(f"{path}: the run takes vectors of {input_shape[0]}, not images")
    channels, height, width = input_shape
    pixels = read_image(path, size=(height, width), grayscale=channels == 1)
    return torch.tensor(pixels).float() / 255


def _read_array(path: Path, input_shape: tuple[int, ...]) -> Tensor:
    try:
        # Opened here, since np.load leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            array: Any = arrays["x"]
    except KeyError as error:
        raise DataFileError(f"{path}: expected an array named x") from error
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataFileError(f"{path}: not a readable .npz file ({error})") from error
    if array.dtype.kind not in "biuf":
        raise DataFileError(f"{path}: x must hold numbers; got {array.dtype}")
    scale = 255.0 if array.dtype == np.uint8 and len(input_shape) == 3 else 1.0
    inputs = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) / scale
    if inputs.dim() == len(input_shape) and len(input_shape) == 3 and input_shape[0] == 1:
        inputs = inputs.unsqueeze(1)  # gray images without a channel
    if tuple(inputs.shape[1:]) != input_shape:
        raise DataFileError(
            f"{path}: x must have shape (N, {', '.join(map(str, input_shape))}); "
            f"got {tuple(array.shape)}"
        )
    if len(inputs) == 0:
        raise DataFileError(f"{path}: x holds no example")
    if not bool(torch.isfinite(inputs).all()):
        raise DataFileError(f"{path}: x must be finite; it holds NaN or infinity")
    return inputs


def _read_texts(path: Path, column: str) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            found = list(reader.fieldnames or ())
            texts = [row.get(column) or "" for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(f"{path}: not a readable CSV file in UTF-8 ({error})") from error
    if column not in found:
        raise DataFileError(f"{path}: expected a column named {column}; got {found}")
    if not texts:
        raise DataFileError(f"{path}: holds no text")
    return texts
