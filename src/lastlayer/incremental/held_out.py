"""A class-balanced part of a task's examples, held out for a correction."""

from __future__ import annotations

import torch

from lastlayer._inputs import take
from lastlayer.data import Labelled
from lastlayer.longtail import class_counts


def hold_out(data: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled | None]:
    """Split examples into those to train on and as many of every class to fit a correction on.

    Args:
        data: labelled examples.
        share: in (0, 1), of the examples of the class that has fewest; at least one of every class.
        seed: which ones.

    Returns:
        The rest, and the held-out part. A class of a single example keeps it for training; None
        for the part if no class can spare one.

    Example:
        >>> data = Labelled(torch.zeros(12, 1), torch.tensor([0] * 10 + [1] * 2))
        >>> rest, held_out = hold_out(data, 0.1, seed=0)
        >>> len(rest), held_out.target.tolist()
        (10, [0, 1])
    """
    counts = class_counts(data.target)
    each = max(1, int(share * float(counts[counts > 0].min())))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    target = data.target[order]
    taken = []
    for row in counts.nonzero().flatten().tolist():
        of_class = order[target == row]
        taken.append(of_class[: min(each, len(of_class) - 1)])
    index = torch.cat(taken)
    if not len(index):
        return data, None
    kept = torch.ones(len(data), dtype=torch.bool)
    kept[index] = False
    return (
        Labelled(take(data.inputs, kept), data.target[kept]),
        Labelled(take(data.inputs, index), data.target[index]),
    )
