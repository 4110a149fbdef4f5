"""What studies over seeds share: digits, a trained gap-cnn, one file per seed, intervals."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import lastlayer
from lastlayer.data.canvases import as_unit_images
from lastlayer.data.sources import Raw
from lastlayer.data.subset import balanced_subset
from lastlayer.evaluation import mean_interval
from lastlayer.models import GapCNN

RESULTS = Path(__file__).resolve().parents[1] / "results"
DATA = ("digits", "mnist")


def arguments_parser(description: str) -> argparse.ArgumentParser:
    """The arguments that every such study has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", choices=DATA, default="digits")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--train-size", type=int, default=None, help="all digits; 2000 of mnist")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    arguments = parser.parse_args()
    if arguments.data == "mnist" and arguments.train_size is None:
        arguments.train_size = 2000
    torch.set_num_threads(1)
    return arguments


def training_digits(raw: Raw, count: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Return a source's training digits, or a class-balanced draw of them."""
    inputs, target = raw.train.inputs, raw.train.target
    if count is not None and count < len(target):
        rng = np.random.default_rng([seed, 7])
        drawn = balanced_subset(target.numpy(), count, class_names=raw.class_names, rng=rng)
        rows = torch.from_numpy(drawn)
        inputs, target = inputs[rows], target[rows]
    return as_unit_images(inputs, target), target


def train_gap_cnn(images: Tensor, target: Tensor, epochs: int, seed: int) -> lastlayer.Classifier:
    """Train gap-cnn with a softmax head: Adam from 0.002 linearly to 0, batches of 64."""
    torch.manual_seed(seed)
    head = lastlayer.heads.Softmax(64, int(target.max()) + 1)
    model = lastlayer.Classifier(GapCNN(images.shape[1:]), head)
    batches = max(1, len(target) // 64)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, epochs * batches)
    for _ in range(epochs):
        for rows in torch.randperm(len(target)).split(64)[:batches]:
            logits = head.classifier(model.features(images[rows]))
            optimizer.zero_grad()
            F.cross_entropy(logits, target[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def over_seeds(
    folder: Path, arguments: argparse.Namespace, names: tuple[str, ...], run: Callable[[int], Any]
) -> list[dict[str, Any]]:
    """Return every seed's numbers: from its file if that has the same settings, else from a run."""
    settings = {name: getattr(arguments, name) for name in names}
    found = []
    for seed in range(arguments.seeds):
        path = folder / arguments.data / f"seed-{seed}.json"
        if not path.exists() or json.loads(path.read_text())["settings"] != settings:
            start = time.perf_counter()
            numbers = {"settings": settings} | run(seed)
            numbers["seconds"] = round(time.perf_counter() - start, 1)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(numbers, indent=1) + "\n")
            partial.replace(path)
            print(f"seed {seed}: {numbers['seconds']} s", flush=True)
        found.append(json.loads(path.read_text()))
    return found


def per_cent(values: list[float]) -> str:
    """Mean and half the width of its 95 % interval over the seeds, of shares."""
    interval = mean_interval([100 * value for value in values])
    half = interval.high - interval.mean
    return f"{interval.mean:.1f} ± {half:.1f}" if math.isfinite(half) else f"{interval.mean:.1f}"


def write_table(folder: Path, arguments: argparse.Namespace, table: str) -> None:
    """Write and print the table, with the command that made it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{arguments.data}.md").write_text(table)
    command = ["python", *(word for word in sys.argv if word != str(arguments.data_dir))]
    about = {"command": command, "torch": torch.__version__}
    (folder / f"{arguments.data}.json").write_text(json.dumps(about, indent=1) + "\n")
    print(table, flush=True)
