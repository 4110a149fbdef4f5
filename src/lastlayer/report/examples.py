"""Which test inputs a picture shows: the easiest of every class, and the most wrong."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_PER_CLASS = 2


def easy_and_hard(log_prob: Tensor, target: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return indices of easy and hard inputs, each ordered by class.

    Args:
        log_prob: (N, K) log-probabilities of the model that chooses.
        target: (N,) labels.
        count: inputs of either kind; the easy ones are one per class, the hard ones two at most,
            those that are predicted wrong first.
    """
    truth = log_prob.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    wrong = log_prob.argmax(dim=-1) != target
    easy = _first_per_class(truth.argsort(descending=True), target, 1, count)
    hardest = truth.argsort()
    hardest = torch.cat([hardest[wrong[hardest]], hardest[~wrong[hardest]]])
    return easy, _first_per_class(hardest, target, MOST_PER_CLASS, count)


def _first_per_class(order: Tensor, target: Tensor, most: int, count: int) -> Tensor:
    taken: dict[int, int] = {}
    chosen = []
    for index in order.tolist():
        label = int(target[index])
        if taken.get(label, 0) < most:
            taken[label] = taken.get(label, 0) + 1
            chosen.append(index)
        if len(chosen) == count:
            break
    return torch.tensor(sorted(chosen, key=lambda index: int(target[index])))
