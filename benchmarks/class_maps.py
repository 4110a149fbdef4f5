"""Time of class maps of 1,000 images of 64x64 beside the forward pass alone.

Run ``python benchmarks/class_maps.py``. The network is gap-cnn with a softmax head of ten
classes, in evaluation mode and without gradients. One thread; every round times all calls
in turn, so that a slow moment of the machine falls on all of them; the figures are medians over the
rounds of the time, and of the ratio to the forward pass within a round. Below that, one product
from a map that is there already, beside the maps of all classes. Where captum is installed, its
LayerGradCam is timed beside ours on the contrasts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from paired import RESULTS, Call, paired_medians, print_table, write_results
from torch import Tensor

import lastlayer
from lastlayer.functional.class_maps import class_map
from lastlayer.information import ClassMaps, ContrastModel
from lastlayer.information.readout import read_out
from lastlayer.models import GapCNN

SIDE = 64
BATCH = 125
METHODS = ("cam", "infocam", "infocam+")


def network(num_classes: int) -> lastlayer.Classifier:
    torch.manual_seed(0)
    head = lastlayer.heads.Softmax(64, num_classes)
    return lastlayer.Classifier(GapCNN((1, SIDE, SIDE)), head).eval()


@torch.no_grad()
def forward(model: lastlayer.Classifier, images: Tensor) -> None:
    for part in images.split(BATCH):
        model(part)


def captum_maps(model: lastlayer.Classifier, images: Tensor, target: Tensor) -> Call | None:
    """Return a call of captum's signed maps of the contrasts, if captum is installed."""
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        return None
    gradcam = LayerGradCam(ContrastModel(model), model.backbone.layers.relu4)

    def call() -> None:
        for part, labels in zip(images.split(BATCH), target.split(BATCH), strict=True):
            gradcam.attribute(part, target=labels)

    return call


def whole(num_classes: int, num_images: int, rounds: int) -> dict[str, dict[str, float]]:
    """Time from images to maps."""
    model = network(num_classes)
    images = torch.rand(num_images, 1, SIDE, SIDE)
    target = torch.randint(num_classes, (num_images,))
    calls: dict[str, Call] = {"forward pass": lambda: forward(model, images)}
    for method in METHODS:
        explain = ClassMaps(model, method=method)
        calls[method] = lambda e=explain: e(images, target, batch_size=BATCH)
    window = ClassMaps(model, window=5)
    calls["infocam, window 5"] = lambda: window(images, target, batch_size=BATCH)
    if (captum := captum_maps(model, images, target)) is not None:
        calls["captum LayerGradCam"] = captum
    return paired_medians(calls, rounds=rounds)


def product(num_classes: int, rounds: int) -> dict[str, dict[str, float]]:
    """Time from the last feature map of one batch to maps."""
    readout = read_out(network(num_classes), torch.rand(BATCH, 1, SIDE, SIDE))
    features, weight = readout.features, readout.weight.detach()
    target = torch.randint(num_classes, (BATCH,))
    every = torch.arange(num_classes).expand(BATCH, -1)
    calls: dict[str, Call] = {
        "cam": lambda: class_map(features, weight, target, method="cam"),
        "infocam": lambda: class_map(features, weight, target),
        "infocam of all classes": lambda: class_map(features, weight, every),
    }
    return paired_medians(calls, rounds=rounds, minimum_seconds=0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=RESULTS / "class_maps.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = {f"K = {k}": whole(k, arguments.images, arguments.rounds) for k in (10,)}
    print_table("time relative to the forward pass (milliseconds)", results)
    products = {f"K = {k}": product(k, arguments.rounds) for k in (10, 100)}
    print_table(f"from the last map of {BATCH} images (milliseconds)", products)
    write_results(
        arguments.output,
        {"from images": results, "from the last map": products},
        images=arguments.images,
        side=SIDE,
        batch=BATCH,
        rounds=arguments.rounds,
    )


if __name__ == "__main__":
    main()
