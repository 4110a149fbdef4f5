"""Cost of a meta step relative to a plain step of the head, and of its draw over classes.

Run ``python benchmarks/meta_sampler.py``. Every round times all calls in turn; the figures are
medians over the rounds of the time and of the ratio within a round. A plain step is a draw without
gradient, the head's forward and backward pass and an SGD step; the step with the Meta Sampler has
a meta step before it. The draw over all examples is the published one: a straight-through
Gumbel-softmax over N entries per draw in place of K.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from paired import RESULTS, Call, paired_medians, print_table, write_results
from torch import Tensor

from lastlayer.functional.meta_sampling import draw_examples, group_by_class, gumbel_noise
from lastlayer.heads import HeadOutput, build_head
from lastlayer.longtail import MetaSampler

FEATURES, META_BATCH, LR = 64, 512, 0.1
#: Batch, classes, examples.
CASES = ((512, 10, 5_000), (512, 100, 10_000), (512, 1000, 100_000), (128, 365, 60_000))
#: The published draw is left out where its numbers would not fit in memory beside the rest.
LARGEST_DRAW = 100_000_000


def long_tail(num_classes: int, num_examples: int) -> Tensor:
    """Return labels whose counts fall a hundredfold from the first class to the last."""
    shares = 100.0 ** (-torch.arange(num_classes) / (num_classes - 1))
    counts = (num_examples * shares / shares.sum()).long().clamp_min(1)
    return torch.repeat_interleave(torch.arange(num_classes), counts)


def calls(head_name: str, batch: int, num_classes: int, num_examples: int) -> dict[str, Call]:
    """Return what to time for one case."""
    torch.manual_seed(0)
    target = long_tail(num_classes, num_examples)
    features = torch.randn(len(target), FEATURES)
    groups = group_by_class(target, num_classes)
    sampler = MetaSampler(groups.counts)
    head = build_head(head_name, FEATURES, num_classes)
    optimizer = torch.optim.SGD(head.parameters(), lr=LR, momentum=0.9, fused=True)

    def head_step(rows: Tensor, classes: Tensor) -> None:
        out = head(features[rows], classes)
        if not isinstance(out, HeadOutput):
            raise TypeError("a head in training returns its loss")
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()

    def plain() -> None:
        with torch.no_grad():
            classes, _ = sampler.draw(batch)
        head_step(draw_examples(groups, classes), classes)

    def with_meta_step() -> None:
        classes, weights = sampler.draw(batch)
        rows = draw_examples(groups, classes)
        meta_classes = torch.randint(num_classes, (META_BATCH,))
        meta = features[draw_examples(groups, meta_classes)]
        sampler.meta_step(head, features[rows], classes, weights, meta, meta_classes, lr=LR)
        head_step(rows, classes)

    def draw_over_examples() -> Tensor:
        log_rates = F.logsigmoid(sampler.rate_logits)[target].log_softmax(-1)
        score = log_rates + gumbel_noise(log_rates.new_empty(batch, len(target)))
        return score.softmax(-1).gather(-1, score.argmax(-1, keepdim=True))

    table: dict[str, Call] = {
        "plain step": plain,
        "step with the Meta Sampler": with_meta_step,
        "its draw over classes": lambda: sampler.draw(batch),
    }
    if batch * len(target) <= LARGEST_DRAW:
        table["published draw over examples"] = draw_over_examples
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--heads", default="softmax,dropmax")
    parser.add_argument("--cases", type=int, default=len(CASES), help="the first so many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = {}
    for head in arguments.heads.split(","):
        table = {
            f"B {batch}, K {classes}, N {examples}": paired_medians(
                calls(head, batch, classes, examples),
                rounds=arguments.rounds,
                minimum_seconds=0.02,
            )
            for batch, classes, examples in CASES[: arguments.cases]
        }
        print_table(f"{head}: time relative to a plain step (milliseconds)", table)
        results[head] = table
    output = arguments.output or RESULTS / "meta-sampler.json"
    write_results(output, results, features=FEATURES, meta_batch=META_BATCH)


if __name__ == "__main__":
    main()
