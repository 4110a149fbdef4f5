"""Where a classifier sees a digit: boxes from CAM, infoCAM and infoCAM+ on digit canvases.

Run ``python studies/localisation.py``, or with ``--data mnist --data-dir D``. For every seed it
trains gap-cnn on digit canvases and boxes the test canvases' digits from the maps of their true
classes, with and without a window, over a sweep of thresholds. A seed that has its file with the
same settings is not run again. It writes a table with intervals over the seeds, the sweep as a
figure, and overlays of seed 0.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from seeds import (
    RESULTS,
    arguments_parser,
    over_seeds,
    parsed,
    per_cent,
    train_gap_cnn,
    training_digits,
    write_table,
)

import lastlayer
from lastlayer.data.canvases import Canvases, digit_canvases, read_digits
from lastlayer.evaluation import mean_interval, paired_difference
from lastlayer.functional.localization import THRESHOLDS, box_accuracy
from lastlayer.functional.map_boxes import boxes_from_maps
from lastlayer.information import ClassMaps
from lastlayer.information.readout import read_out
from lastlayer.report import map_overlays, save_figure
from lastlayer.report.style import COLORS, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = {"CAM": "cam", "infoCAM": "infocam", "infoCAM+": "infocam+"}
IOU = (0.3, 0.5, 0.7)
HELD_OUT = 500
# Least and greatest side in pixels of a pasted digit: MNIST digits fill 20 of their 28 pixels.
SIDES = {"digits": (12, 16), "mnist": (17, 22)}


def explainers(model: lastlayer.Classifier, window: int) -> dict[str, ClassMaps]:
    """Return what makes every map of the table, by name: each method without and with a window."""
    plain = {name: ClassMaps(model, method=method) for name, method in METHODS.items()}
    return plain | {
        f"{name} + {window}x{window}": ClassMaps(model, method=method, window=window)
        for name, method in METHODS.items()
    }


def localise(
    model: lastlayer.Classifier, test: Canvases, held_out: Canvases, window: int
) -> dict[str, Any]:
    """Sweep the thresholds of every map; choose one on held-out canvases too."""
    readout, other = (read_out(model, part.images) for part in (test, held_out))
    right = readout.output.argmax(1) == test.target
    cross_entropy = float(F.nll_loss(readout.output, test.target))
    found: dict[str, Any] = {
        "accuracy": float(right.double().mean()),
        "information": math.log(readout.output.shape[1]) - cross_entropy,
        "maps": {},
    }
    size = test.images.shape[-2:]
    for name, explain in explainers(model, window).items():
        maps = explain.of(readout, test.target).maps
        chosen = explain.of(other, held_out.target).maps
        sweep = box_accuracy(maps, test.boxes, iou_thresholds=IOU, size=size)
        every = box_accuracy(maps, test.boxes, iou_thresholds=IOU, size=size, components="all")
        column = int(box_accuracy(chosen, held_out.boxes, size=size).accuracy[0].argmax())
        found["maps"][name] = {
            "sweep": sweep.accuracy[1].tolist(),
            "max_box_acc": float(sweep.best[1]),
            "threshold": float(sweep.best_threshold[1]),
            "max_box_acc_v2": every.mean,
            "held_out_threshold": THRESHOLDS[column],
            "gt_known": float(sweep.accuracy[1, column]),
            "top1": float((sweep.hits[1, column] & right).double().mean()),
            "by_class": [
                float(sweep.hits[1, column][test.target == label].double().mean())
                for label in range(readout.output.shape[1])
            ],
        }
    return found


def overlays(
    model: lastlayer.Classifier, test: Canvases, window: int, found: dict[str, Any]
) -> Figure:
    """Draw one test canvas of each of six classes with maps and boxes."""
    rows = torch.stack([(test.target == label).nonzero()[0, 0] for label in range(6)])
    images, target, truth = (part[rows] for part in test)
    maps, boxes = {}, {}
    for name, explain in explainers(model, window).items():
        maps[name] = explain(images, target).maps
        threshold = found["maps"][name]["held_out_threshold"]
        boxes[name] = boxes_from_maps(maps[name], threshold, size=images.shape[-2:])
    titles = [str(label) for label in target.tolist()]
    return map_overlays(images, maps, truth=truth, boxes=boxes, titles=titles)


def table(seeds: list[dict[str, Any]]) -> str:
    """Return one row per map: accuracies in per cent, and the gain over CAM, paired by seed."""
    accuracy = per_cent([seed["accuracy"] for seed in seeds])
    information = mean_interval([seed["information"] for seed in seeds]).mean
    lines = [
        f"{len(seeds)} seeds; classification accuracy {accuracy} %, log K - CE {information:.2f} "
        "nats; 95 % intervals over seeds.",
        "",
        "| map | MaxBoxAcc | thresholds | GT-known | Top-1 | MaxBoxAccV2 | gain over CAM |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in seeds[0]["maps"]:
        rows = [seed["maps"][name] for seed in seeds]
        accuracy, gt_known, top1, second = (
            per_cent([row[key] for row in rows])
            for key in ("max_box_acc", "gt_known", "top1", "max_box_acc_v2")
        )
        used = sorted({row["threshold"] for row in rows})
        shown = "–".join(f"{value:g}" for value in dict.fromkeys((used[0], used[-1])))
        gain = gain_over_cam(seeds, name)
        lines.append(f"| {name} | {accuracy} | {shown} | {gt_known} | {top1} | {second} | {gain} |")
    hardest, share = hardest_class(seeds)
    return "\n".join(lines) + (
        f"\n\nHardest: class {hardest}, GT-known {share:.0f} % on average over maps and seeds."
        "\n\nMaxBoxAcc: share of boxes with intersection over union of at least 0.5 at the best "
        "threshold of the test canvases, maps of the true classes. GT-known and Top-1: at the "
        "threshold best on new canvases of training digits. Gain: MaxBoxAcc less that of CAM with "
        "the same window.\n"
    )


def hardest_class(seeds: list[dict[str, Any]]) -> tuple[int, float]:
    """Return the class of the least GT-known over all maps and seeds, and that in per cent."""
    every = [row["by_class"] for seed in seeds for row in seed["maps"].values()]
    mean = 100 * np.mean(every, axis=0)
    return int(mean.argmin()), float(mean.min())


def gain_over_cam(seeds: list[dict[str, Any]], name: str) -> str:
    """Return the difference of MaxBoxAcc to CAM with the same window, with its interval."""
    base = "CAM" + name[len(name.split(" ")[0]) :]
    if name == base:
        return "–"
    own, others = (
        [100 * seed["maps"][each]["max_box_acc"] for seed in seeds] for each in (name, base)
    )
    gain = paired_difference(own, others)
    known = math.isfinite(gain.high)
    return f"{gain.mean:+.1f}" + (f" ({gain.low:+.1f} to {gain.high:+.1f})" if known else "")


def sweep_figure(seeds: list[dict[str, Any]]) -> Figure:
    """Draw the accuracy of the boxes against the threshold: mean over seeds and their range."""
    with style():
        figure = new_figure(5.0, 3.4)
        axes = figure.subplots()
        for index, name in enumerate(seeds[0]["maps"]):
            values = 100 * np.array([seed["maps"][name]["sweep"] for seed in seeds])
            look = {"color": COLORS[index % len(METHODS)]}
            line = ":" if name in METHODS else "-"
            axes.plot(THRESHOLDS, values.mean(0), line, label=name, **look)
            axes.fill_between(THRESHOLDS, values.min(0), values.max(0), alpha=0.12, lw=0, **look)
        axes.set(xlabel="threshold of the normalised map", ylabel="boxes with IoU ≥ 0.5, %")
        axes.grid()
        axes.legend()
    return figure


def main() -> None:
    parser = arguments_parser(__doc__.splitlines()[0])
    parser.add_argument("--test-size", type=int, default=1000)
    parser.add_argument("--window", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "localisation")
    arguments = parsed(parser)
    raw = read_digits(arguments.data, arguments.data_dir)
    kept = slice(arguments.test_size)
    smallest, largest = SIDES[arguments.data]
    paste = partial(digit_canvases, smallest=smallest, largest=largest)

    def run(seed: int) -> dict[str, Any]:
        digits, target = training_digits(raw, arguments.train_size, seed)
        canvases = paste(digits, target, seed=1000 + seed)
        held_out = paste(digits[:HELD_OUT], target[:HELD_OUT], seed=2000 + seed)
        test = paste(raw.test.inputs[kept], raw.test.target[kept], seed=3000 + seed)
        model = train_gap_cnn(canvases.images, canvases.target, arguments.epochs, seed)
        found = localise(model, test, held_out, arguments.window)
        if seed == 0:
            figure = overlays(model, test, arguments.window, found)
            save_figure(figure, arguments.out / f"{arguments.data}-maps.png")
        return found

    names = ("epochs", "train_size", "test_size", "window")
    seeds = over_seeds(arguments.out, arguments, names, run)
    save_figure(sweep_figure(seeds), arguments.out / f"{arguments.data}-sweep.png")
    write_table(arguments.out, arguments, table(seeds))


if __name__ == "__main__":
    main()
