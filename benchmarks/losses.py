"""Time of each loss on logits, forward and backward, relative to torch's cross entropy.

Run ``python benchmarks/losses.py``. One thread; every round times all losses in turn, so that a
slow moment of the machine falls on all of them; the figures are medians over the rounds of the
time, and of the ratio to cross entropy within a round. The entmax package is timed beside ours
where it is installed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.functional import class_sampling, fenchel_young

Loss = Callable[[Tensor, Tensor], Tensor]
NUM_ROWS = 256
NUM_CLASSES = (10, 100, 1000, 10_000)


def losses(num_classes: int) -> dict[str, Loss]:
    """Our losses, and the entmax package's, by name; cross entropy of torch first."""
    counts = 1.0 / torch.arange(1.0, num_classes + 1.0)
    samples = num_classes * 2 // 5
    table: dict[str, Loss] = {
        "torch cross_entropy": F.cross_entropy,
        "cross_entropy": fenchel_young.cross_entropy,
        "sparsemax_loss": fenchel_young.sparsemax_loss,
        "entmax15_loss": fenchel_young.entmax15_loss,
        "entmax_loss(1.25)": lambda o, t: fenchel_young.entmax_loss(o, t, 1.25),
        "class_dropout_loss(0.4)": lambda o, t: class_sampling.class_dropout_loss(o, t, 0.4),
        "sampled_softmax_loss": lambda o, t: class_sampling.sampled_softmax_loss(o, t, samples),
        "sampled_softmax_loss, learned": lambda o, t: class_sampling.sampled_softmax_loss(
            o, t, samples, counts
        ),
    }
    try:
        import entmax
    except ImportError:
        return table
    table["entmax: sparsemax_loss"] = lambda o, t: entmax.sparsemax_loss(o, t).mean()
    table["entmax: entmax15_loss"] = lambda o, t: entmax.entmax15_loss(o, t).mean()
    table["entmax: entmax_bisect_loss(1.25)"] = lambda o, t: entmax.entmax_bisect_loss(
        o, t, 1.25
    ).mean()
    return table


def seconds(loss: Loss, logits: Tensor, target: Tensor) -> float:
    start = time.perf_counter()
    torch.autograd.grad(loss(logits, target), logits)
    return time.perf_counter() - start


def measure(num_classes: int, rounds: int) -> dict[str, dict[str, float]]:
    generator = torch.Generator().manual_seed(0)
    logits = 3.0 * torch.randn(NUM_ROWS, num_classes, generator=generator)
    logits.requires_grad_()
    target = torch.randint(num_classes, (NUM_ROWS,), generator=generator)
    table = losses(num_classes)
    times: dict[str, list[float]] = {name: [] for name in table}
    for warm_up in [True] + [False] * rounds:
        for name, loss in table.items():
            elapsed = seconds(loss, logits, target)
            if not warm_up:
                times[name].append(elapsed)
    base = times["torch cross_entropy"]
    return {
        name: {
            "milliseconds": 1e3 * statistics.median(values),
            "relative": statistics.median(v / b for v, b in zip(values, base, strict=True)),
        }
        for name, values in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/losses.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {str(k): measure(k, arguments.rounds) for k in NUM_CLASSES}

    print("time relative to torch cross_entropy (milliseconds), forward and backward")
    print(f"{'N = 256':34s}" + "".join(f"{f'K = {k}':>18s}" for k in NUM_CLASSES))
    for name in results[str(NUM_CLASSES[0])]:
        cells = (results[str(k)][name] for k in NUM_CLASSES)
        print(
            f"{name:34s}"
            + "".join(f"{c['relative']:9.1f} ({c['milliseconds']:6.2f})" for c in cells)
        )
    document = {
        "rows": NUM_ROWS,
        "rounds": arguments.rounds,
        "threads": 1,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "results": results,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
