"""Time of each loss on logits, forward and backward, relative to torch's cross entropy.

Run ``python benchmarks/losses.py``. One thread; every round times all losses in turn, so that a
slow moment of the machine falls on all of them; the figures are medians over the rounds of the
time, and of the ratio to cross entropy within a round. The entmax package is timed beside ours
where it is installed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from paired import RESULTS, Call, paired_medians, print_table, write_results
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


def step(loss: Loss, logits: Tensor, target: Tensor) -> Call:
    return lambda: torch.autograd.grad(loss(logits, target), logits)


def measure(num_classes: int, rounds: int) -> dict[str, dict[str, float]]:
    generator = torch.Generator().manual_seed(0)
    logits = 3.0 * torch.randn(NUM_ROWS, num_classes, generator=generator)
    logits.requires_grad_()
    target = torch.randint(num_classes, (NUM_ROWS,), generator=generator)
    calls = {name: step(loss, logits, target) for name, loss in losses(num_classes).items()}
    return paired_medians(calls, rounds=rounds, minimum_seconds=0.005)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", type=Path, default=RESULTS / "losses.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {f"K = {k}": measure(k, arguments.rounds) for k in NUM_CLASSES}
    print_table("time relative to torch cross_entropy (milliseconds)", results)
    write_results(arguments.output, results, rows=NUM_ROWS, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
