"""Over-balance, and the Meta Sampler that undoes it: ten Gaussians on a ring, long-tailed.

Run ``python studies/ring.py``. Ten unit Gaussians in the plane stand on a ring of radius 4, in an
order that the seed draws, with 5000 to 50 training examples; the head is linear, and the best
possible balanced accuracy is known (78.36 %). Balanced softmax corrects for the tail; on batches
with every class equally often it corrects once too often, and loses as much as plain softmax does
on the other side. The Meta Sampler begins at those rates and finds back to level ones. It writes a
file per seed, a table and a figure of the rates; called again it goes on.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from seeds import RESULTS, over_seeds, per_cent, write_table
from torch import Tensor

from lastlayer.heads import BalancedSoftmax, Softmax
from lastlayer.longtail import ClassDraw, MetaSampler, exponential_counts
from lastlayer.report import rates_figure, save_figure

FOLDER = RESULTS / "balms"
NUM_CLASSES, RADIUS, LARGEST, IMBALANCE = 10, 4.0, 5000, 100.0
TESTED_PER_CLASS = 10_000
BAYES_ACCURACY = 0.7836
RECORDED_EVERY = 25


#: Whether the loss is balanced softmax, the power of the initial rates, whether they are learned.
METHODS: dict[str, tuple[bool, float, bool]] = {
    "softmax": (False, 0.0, False),
    "balanced softmax": (True, 0.0, False),
    "softmax, class-balanced rates": (False, 1.0, False),
    "balanced softmax, class-balanced rates": (True, 1.0, False),
    "BALMS from level rates": (True, 0.0, True),
    "BALMS from class-balanced rates": (True, 1.0, True),
}


def class_counts() -> Tensor:
    return torch.tensor(exponential_counts(NUM_CLASSES, LARGEST, IMBALANCE))


def drawn_ring(counts: Tensor, order: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw examples; class k stands at place ``order[k]`` of the ring."""
    target = torch.repeat_interleave(torch.arange(NUM_CLASSES), counts)
    angle = 2 * math.pi * order[target] / NUM_CLASSES
    centre = RADIUS * torch.stack((angle.cos(), angle.sin()), dim=-1)
    return centre + torch.randn(centre.shape, generator=generator), target


def train(
    method: str, inputs: Tensor, target: Tensor, seed: int, steps: int, batch: int
) -> tuple[Softmax, list[list[float]]]:
    """Train a linear head by one method; return it and the rates every so many steps."""
    balanced, power, learned = METHODS[method]
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    draw = ClassDraw(target, NUM_CLASSES)
    head: Softmax = Softmax(2, NUM_CLASSES)
    if balanced:
        head = BalancedSoftmax(2, NUM_CLASSES, class_counts=draw.counts)
    sampler = MetaSampler(draw.counts, initial_power=power)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rates = [sampler.rates().tolist()]
    for step in range(steps):
        with torch.set_grad_enabled(learned):
            classes, weights = sampler.draw(batch, generator=generator)
        rows = draw.of_classes(classes, generator)
        if learned:
            meta_classes = torch.randint(NUM_CLASSES, (batch,), generator=generator)
            meta = draw.of_classes(meta_classes, generator)
            lr = optimizer.param_groups[0]["lr"]
            sampler.meta_step(
                head, inputs[rows], classes, weights, inputs[meta], meta_classes, lr=lr
            )
        optimizer.zero_grad()
        head(inputs[rows], classes).loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % RECORDED_EVERY == 0:
            rates.append(sampler.rates().tolist())
    return head, rates


def study(seed: int, steps: int, batch: int) -> dict[str, Any]:
    """Return every method's accuracy on balanced data, by class, and its rates."""
    generator = torch.Generator().manual_seed(1000 + seed)
    order = torch.randperm(NUM_CLASSES, generator=generator)
    inputs, target = drawn_ring(class_counts(), order, generator)
    tested = torch.full((NUM_CLASSES,), TESTED_PER_CLASS)
    test_inputs, test_target = drawn_ring(tested, order, generator)
    found = {}
    for method in METHODS:
        head, rates = train(method, inputs, target, seed, steps, batch)
        with torch.no_grad():
            right = head.predict(test_inputs) == test_target
        by_class = right.float().reshape(NUM_CLASSES, -1).mean(1).tolist()
        found[method] = {"accuracy": float(right.float().mean()), "by_class": by_class}
        if METHODS[method][2]:
            found[method]["rates"] = [[round(rate, 4) for rate in at] for at in rates]
    return {"methods": found}


def table(found: list[dict[str, Any]]) -> str:
    lines = [
        f"Balanced accuracy in per cent, mean and 95 % interval over {len(found)} seeds; the best "
        f"possible is {100 * BAYES_ACCURACY:.2f}.",
        "",
        "| method | all | three largest classes | three smallest | rates at the end |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for method in METHODS:
        runs = [numbers["methods"][method] for numbers in found]
        shares = (
            [run["accuracy"] for run in runs],
            [sum(run["by_class"][:3]) / 3 for run in runs],
            [sum(run["by_class"][-3:]) / 3 for run in runs],
        )
        last = [rate for run in runs if "rates" in run for rate in run["rates"][-1]]
        span = f"{min(last):.2f} to {max(last):.2f}" if last else "–"
        lines.append(f"| {method} | {' | '.join(map(per_cent, shares))} | {span} |")
    return "\n".join(lines) + "\n"


def draw(found: dict[str, Any]) -> None:
    method = "BALMS from class-balanced rates"
    rates = found["methods"][method]["rates"]
    steps = [RECORDED_EVERY * index for index in range(len(rates))]
    figure = rates_figure(steps, rates, class_counts(), title=method)
    save_figure(figure, FOLDER / "ring-rates.svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=512)
    parser.set_defaults(data="ring", data_dir=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = over_seeds(
        FOLDER,
        arguments,
        ("steps", "batch"),
        lambda seed: study(seed, arguments.steps, arguments.batch),
    )
    write_table(FOLDER, arguments, table(found))
    draw(found[0])


if __name__ == "__main__":
    main()
