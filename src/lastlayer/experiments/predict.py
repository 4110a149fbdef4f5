"""Predict the examples of a file with a finished run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lastlayer._checks import check_at_least
from lastlayer.data import DataFileError, FittedTfidf, read_image
from lastlayer.data.images import EXTENSIONS
from lastlayer.training import RunDirectory
from lastlayer.training.fit import ENCODER_FILE, load_classifier, predict

if TYPE_CHECKING:
    from lastlayer.report import TextTable


def predict_file(
    run_path: str | Path, file: str | Path, *, top: int = 3, out: Path | None = None
) -> TextTable:
    """Return the most probable classes of every example in a file.

    Args:
        run_path: a finished run.
        file: ``.npz`` with an array ``x`` of the run's input shape (uint8 images are scaled to
            [0, 1]), an image, a folder of images, or a ``.csv`` with a column ``text``.
        top: classes per example, at least 1.
        out: a ``.csv`` that gets all probabilities.

    Returns:
        One row per example.

    Raises:
        FileNotFoundError: if the run or the file is missing.
        ValueError: if the file does not hold inputs of the run's kind.
    """
    from lastlayer.report import TextTable

    check_at_least("top", top, 1)
    run = RunDirectory.open(run_path)
    classifier = load_classifier(run)
    summary = run.summary()
    class_names: list[str] = summary["class_names"]
    names, inputs = _read_inputs(Path(file), run, tuple(summary["input_shape"]))
    log_prob, _ = predict(classifier, inputs)
    prob = log_prob.exp()
    if out is not None:
        _write_csv(out, names, class_names, prob)
    best = prob.topk(min(top, len(class_names)), dim=-1)
    rows = [
        (name, *(f"{class_names[k]} {p:.3f}" for k, p in zip(index, values, strict=True)))
        for name, index, values in zip(
            names, best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]
    columns = ("Example", *(f"{rank}." for rank in range(1, best.values.shape[1] + 1)))
    return TextTable(columns, tuple(rows))


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
        texts = _read_texts(file)
        return [text[:40] for text in texts], _encode(texts, run)
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
    return torch.from_numpy(pixels).float() / 255


def _read_array(path: Path, input_shape: tuple[int, ...]) -> Tensor:
    try:
        with np.load(path, allow_pickle=False) as file:
            array: Any = file["x"]
    except KeyError as error:
        raise DataFileError(f"{path}: expected an array named x") from error
    except (OSError, ValueError) as error:
        raise DataFileError(f"{path}: not a readable .npz file ({error})") from error
    scale = 255.0 if array.dtype == np.uint8 and len(input_shape) == 3 else 1.0
    inputs = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) / scale
    if inputs.dim() == len(input_shape) and len(input_shape) == 3 and input_shape[0] == 1:
        inputs = inputs.unsqueeze(1)  # grey images without a channel
    if tuple(inputs.shape[1:]) != input_shape:
        raise DataFileError(
            f"{path}: x must have shape (N, {', '.join(map(str, input_shape))}); "
            f"got {tuple(array.shape)}"
        )
    if not bool(torch.isfinite(inputs).all()):
        raise DataFileError(f"{path}: x must be finite; it holds NaN or infinity")
    return inputs


def _read_texts(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "text" not in (reader.fieldnames or ()):
            raise DataFileError(f"{path}: expected a column named text; got {reader.fieldnames}")
        texts = [row["text"] or "" for row in reader]
    if not texts:
        raise DataFileError(f"{path}: holds no text")
    return texts


def _encode(texts: list[str], run: RunDirectory) -> Tensor:
    path = run.path / ENCODER_FILE
    if not path.is_file():
        raise DataFileError(f"{run.path} was not trained on texts: {ENCODER_FILE} is missing")
    return FittedTfidf.from_extras(json.loads(path.read_text(encoding="utf-8"))).transform(texts)


def _write_csv(path: Path, names: list[str], class_names: list[str], prob: Tensor) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["example", "prediction", *class_names])
        for name, row in zip(names, prob.tolist(), strict=True):
            best = class_names[max(range(len(row)), key=row.__getitem__)]
            writer.writerow([name, best, *(f"{p:.6g}" for p in row)])
