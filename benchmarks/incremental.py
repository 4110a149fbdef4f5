"""Cost of the parts of incremental learning, each beside what it replaces.

Run ``python benchmarks/incremental.py``. Every round times all calls in turn; the figures are
medians over the rounds of the time and of the ratio within a round. A step is forward and backward
pass and an SGD step of an MLP; a step with a teacher, or with a learned alpha, does that as well.
Herding is held against distances computed for all candidates at every pick.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from paired import RESULTS, Call, paired_medians, print_table, write_results
from torch import Tensor, nn

from lastlayer.functional.incremental import distillation_loss, herding_order
from lastlayer.heads import BalancedSoftmax, Classifier, HeadOutput, grow, set_class_counts
from lastlayer.incremental import MetaOldWeight

WIDTH, BATCH, META_BATCH, LR = 256, 128, 128, 0.05
#: Old and new classes of a step.
STEPS = ((10, 2), (50, 10), (900, 100))
#: Examples, features, exemplars of a class.
SELECTIONS = ((500, 64, 20), (5000, 512, 20), (5000, 512, 200))
#: Classes before and new ones, of heads of 512 features.
GROWTHS = ((100, 10), (10_000, 100))


def step_calls(num_old: int, num_new: int) -> dict[str, Call]:
    """Return a plain step, and steps with what incremental learning adds."""
    torch.manual_seed(0)
    total = num_old + num_new
    counts = torch.cat([torch.full((num_old,), 20), torch.full((num_new,), 500)])
    backbone = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())
    model = Classifier(backbone, BalancedSoftmax(WIDTH, total, class_counts=counts))
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, fused=True)
    inputs, target = torch.randn(BATCH, WIDTH), torch.randint(total, (BATCH,))
    meta_inputs, meta_target = torch.randn(META_BATCH, WIDTH), torch.randint(total, (META_BATCH,))
    alpha = MetaOldWeight()

    def step(*, taught: bool = False, learned: bool = False) -> None:
        features = model.features(inputs)
        if learned:
            with torch.no_grad():
                meta_features = model.features(meta_inputs)
            layer = model.head.classifier
            alpha.meta_step(
                layer.weight, layer.bias, features, target, counts, num_old,
                meta_features, meta_target, lr=LR,
            )  # fmt: skip
            set_class_counts(model.head, alpha.counts(counts, num_old))
        out = model.head(features, target)
        if not isinstance(out, HeadOutput):
            raise TypeError("a head in training returns its loss")
        loss = out.loss
        if taught:
            with torch.no_grad():
                logits = teacher.head.logits(teacher.features(inputs))[:, :num_old]
            loss = loss + distillation_loss(model.head.logits(features)[:, :num_old], logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return {
        "plain step": step,
        "with distillation": lambda: step(taught=True),
        "with a learned alpha": lambda: step(learned=True),
    }


def all_distances(features: Tensor, size: int) -> list[int]:
    """Choose as herding does, by the distance of every candidate's running mean at every pick."""
    directions = torch.nn.functional.normalize(features.double(), dim=1)
    mean, total, chosen = directions.mean(0), torch.zeros(features.shape[1]).double(), []
    for count in range(1, size + 1):
        distance = (mean - (total + directions) / count).norm(dim=1)
        distance[chosen] = torch.inf
        chosen.append(int(distance.argmin()))
        total = total + directions[chosen[-1]]
    return chosen


def selection_calls(examples: int, width: int, size: int) -> dict[str, Call]:
    """Return herding, and the same by all distances."""
    torch.manual_seed(0)
    features = torch.randn(examples, width)
    return {
        "all distances at every pick": lambda: all_distances(features, size),
        "herding_order": lambda: herding_order(features, size),
    }


def growth_calls(num_old: int, num_new: int) -> dict[str, Call]:
    """Return a fresh head of the new size, and a copy that grows with its optimizer's state."""
    torch.manual_seed(0)
    head = BalancedSoftmax(512, num_old, class_counts=[20] * num_old)
    optimizer = torch.optim.Adam(head.parameters())
    counts = [20] * num_old + [500] * num_new
    head(torch.randn(4, 512), torch.arange(4)).loss.backward()
    optimizer.step()

    def grown() -> None:
        pair = copy.deepcopy((head, optimizer))
        grow(pair[0], num_new, class_counts=counts, optimizer=pair[1])

    return {
        "a copy of head and optimizer": lambda: copy.deepcopy((head, optimizer)),
        "the copy, grown": grown,
        "a fresh head": lambda: BalancedSoftmax(512, num_old + num_new, class_counts=counts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases = {
        "steps": {f"{old} + {new} classes": step_calls(old, new) for old, new in STEPS},
        "exemplars": {
            f"{size} of {count}, D {width}": selection_calls(count, width, size)
            for count, width, size in SELECTIONS
        },
        "growth": {f"{old} + {new} classes": growth_calls(old, new) for old, new in GROWTHS},
    }
    results = {}
    for title, table in cases.items():
        results[title] = {
            name: paired_medians(calls, rounds=arguments.rounds, minimum_seconds=0.02)
            for name, calls in table.items()
        }
        print_table(f"{title}: time relative to the first (milliseconds)", results[title])
    output = arguments.output or RESULTS / "incremental.json"
    write_results(output, results, width=WIDTH, batch=BATCH)


if __name__ == "__main__":
    main()
