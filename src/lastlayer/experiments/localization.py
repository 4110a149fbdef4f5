"""How well boxes from a run's class maps meet the objects in its test images."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lastlayer.data.canvases import canvas_boxes
from lastlayer.functional.class_maps import METHODS
from lastlayer.information import ClassMaps, localization
from lastlayer.information.localization import Localization
from lastlayer.training import RunDirectory
from lastlayer.training.fit import load_classifier, load_run_splits, predictions_on

COLUMNS = ("example", "left", "top", "right", "bottom")


class RunLocalization(NamedTuple):
    """True (N, M, 4) boxes of test images, and by method how well those from maps meet them."""

    boxes: Tensor
    methods: dict[str, Localization]


def run_localization(
    path: str | Path,
    *,
    box_file: Path | None = None,
    window: int | None = None,
    threshold: float = 0.5,
    data_dir: str | None = None,
) -> RunLocalization | None:
    """Measure boxes from the class maps of a run's test images against true ones.

    The backbone ends in average pooling; maps are meant over a ``window`` of so many cells a side,
    and ``threshold`` is the share of a map's range that a pixel of a box must reach. None if there
    is no file and the source knows no boxes.
    """
    run = RunDirectory.open(path)
    test = load_run_splits(run, data_dir=data_dir).test
    data = run.config().data
    if box_file is not None:
        found = read_boxes(box_file, len(test))
    elif data.name == "digit-canvas":
        folder = data.data_dir if data_dir is None else data_dir
        found = canvas_boxes(None if folder is None else Path(folder), **data.options).unsqueeze(1)
    else:
        return None
    if test.inputs.dim() != 4:
        raise ValueError(f"boxes need images; the inputs of {run.path} have another shape")
    predictions = predictions_on(run, test)
    classifier = load_classifier(run)
    images = test.inputs.to(classifier.head.classifier.weight)
    methods = {}
    for method in METHODS:
        out = ClassMaps(classifier, method=method, window=window)(images, test.target)
        methods[method] = localization(
            out.maps,
            found,
            predictions["log_prob"].argmax(1),
            test.target,
            size=test.inputs.shape[-2:],
            threshold=threshold,
        )
    return RunLocalization(found, methods)


def read_boxes(path: Path, num_examples: int) -> Tensor:
    """Read (N, M, 4) int64 boxes of N examples from a file.

    Boxes are left, top, right and bottom in pixels, half open: the right and bottom edges are the
    first column and row beyond. A ``.csv`` file has one box a line, below the heading
    ``example,left,top,right,bottom``; examples are counted from 0, and may have several boxes, or
    none. A ``.npy`` file has an array (N, 4) or (N, M, 4), empty boxes where there are fewer.
    """
    if path.suffix == ".npy":
        array = np.load(path)
        boxes = torch.from_numpy(array[:, None] if array.ndim == 2 else array)
        if boxes.dim() != 3 or boxes.shape[::2] != (num_examples, 4):
            raise ValueError(
                f"{path} must hold boxes (N, 4) or (N, M, 4) of {num_examples} test examples; "
                f"got {array.shape}"
            )
        return boxes.long()
    if path.suffix != ".csv":
        raise ValueError(f"a file of boxes must end in .csv or .npy; got {str(path)!r}")
    of_example: list[list[list[int]]] = [[] for _ in range(num_examples)]
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path} must begin with the line {','.join(COLUMNS)}")
        for row in reader:
            try:
                example, *box = (int(row[column]) for column in COLUMNS)
                if example < 0:
                    raise IndexError(example)
                of_example[example].append(box)
            except (TypeError, ValueError, IndexError) as error:
                raise ValueError(
                    f"{path}, line {reader.line_num}: expected five whole numbers, the first below "
                    f"{num_examples}; got {','.join(map(str, row.values()))!r}"
                ) from error
    boxes = torch.zeros(num_examples, max(1, *map(len, of_example)), 4, dtype=torch.int64)
    for known, rows in zip(of_example, boxes, strict=True):
        if known:
            rows[: len(known)] = torch.tensor(known)
    return boxes
