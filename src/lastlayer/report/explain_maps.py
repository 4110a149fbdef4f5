"""Draw where in its test images a run finds the classes that it predicts."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lastlayer._checks import check_choice, check_count
from lastlayer.functional.class_maps import METHODS
from lastlayer.functional.map_boxes import boxes_from_maps
from lastlayer.information import ClassMaps
from lastlayer.report.explain import easy_and_hard
from lastlayer.report.maps import map_overlays
from lastlayer.report.style import save_figure
from lastlayer.training import RunDirectory
from lastlayer.training.fit import load_classifier, load_run_splits, predictions_on

TITLES = {"cam": "CAM", "infocam": "infoCAM", "infocam+": "infoCAM+"}


def explain_maps(
    path: str | Path,
    *,
    method: str = "infocam",
    window: int | None = None,
    data_dir: str | None = None,
    count: int = 5,
    threshold: float | None = None,
    truth: Tensor | None = None,
    out: Path | None = None,
) -> Path:
    """Draw class maps of easy and hard test images of a run, beside plain CAM; return the path.

    The maps are of the predicted class. Rows are the easiest image of every class, then those that
    the run gets most wrong, with the right class and, where it differs, the predicted one,
    ``count`` of either kind. Boxes are drawn of maps' largest parts where they reach ``threshold``
    of their range, beside the (N, M, 4) ``truth`` of all test images; ``window`` is the side in
    cells that maps are meant over.
    """
    check_count("count", count)
    check_choice("method", method, METHODS)
    run = RunDirectory.open(path)
    classifier = load_classifier(run)
    test = load_run_splits(run, data_dir=data_dir).test
    if test.inputs.dim() != 4:
        raise ValueError(f"class maps need images; the inputs of {run.path} have another shape")
    log_prob = predictions_on(run, test)["log_prob"]
    rows = torch.cat(easy_and_hard(log_prob, test.target, count))
    images, predicted = test.inputs[rows], log_prob[rows].argmax(dim=-1)
    wanted = dict.fromkeys(("cam", method))
    inputs = images.to(classifier.head.classifier.weight)
    maps = {
        TITLES[name]: ClassMaps(classifier, method=name, window=window)(inputs, predicted).maps
        for name in wanted
    }
    boxes = None
    if threshold is not None:
        size = images.shape[-2:]
        boxes = {name: boxes_from_maps(found, threshold, size=size) for name, found in maps.items()}
    names = run.summary()["class_names"]
    titles = [
        str(names[true]) if true == guess else f"{names[true]}, taken for {names[guess]}"
        for true, guess in zip(test.target[rows].tolist(), predicted.tolist(), strict=True)
    ]
    figure = map_overlays(
        images, maps, titles=titles, boxes=boxes, truth=None if truth is None else truth[rows]
    )
    return save_figure(figure, run.path / "figures" / f"{method}.png" if out is None else out)
