"""A long-tailed part of balanced data, the same in every stage of an experiment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lastlayer._checks import check_choice
from lastlayer.data import Split
from lastlayer.longtail.counts import class_counts
from lastlayer.longtail.profiles import profile_counts

#: Which classes are frequent: the first labels, or a random order.
ORDERS = ("label", "random")


def long_tail_counts(
    available: Tensor | Sequence[int],
    imbalance: float,
    *,
    profile: str = "exponential",
    order: str = "label",
    n_max: int | None = None,
    small: str = "error",
    seed: int = 0,
) -> Tensor:
    """Return how many examples each class keeps.

    Args:
        available: (K,) examples there are.
        imbalance: the most frequent class's examples per one of the rarest, at least 1.
        profile: ``"exponential"``, ``"step"`` or ``"pareto"``.
        order: ``"label"``: class 0 is the most frequent; ``"random"``: a random one, by the seed.
        n_max: examples of the most frequent class; None for what every class has.
        small: ``"error"`` or ``"clamp"`` (to 1) where a class would keep none.
        seed: fixes the random order.

    Returns:
        (K,) int64 counts. An imbalance of 1 without ``n_max`` keeps ``available`` as it is.

    Raises:
        ValueError: if an argument is out of range, a class would keep none, or has too few.

    Example:
        >>> long_tail_counts([50, 60, 50], 10)
        tensor([50, 15,  5])
    """
    check_choice("order", order, ORDERS)
    there = torch.as_tensor(available).cpu()
    num_classes = len(there)
    if imbalance == 1 and n_max is None:
        return there.to(torch.int64)
    most = int(there.min()) if n_max is None else n_max
    by_rank = profile_counts(profile, num_classes, most, imbalance, small=small)
    classes = torch.arange(num_classes)
    if order == "random":
        classes = torch.randperm(num_classes, generator=_generator(seed, 0))
    counts = torch.empty(num_classes, dtype=torch.int64)
    counts[classes] = torch.tensor(by_rank)
    short = (counts > there).nonzero().flatten()
    if len(short):
        label = int(short[0])
        raise ValueError(
            f"n_max={most} asks for {int(counts[label])} examples of class {label}, which has "
            f"{int(there[label])}; take a smaller n_max, or hold fewer examples out"
        )
    return counts


def long_tail_indices(target: Tensor, counts: Tensor, *, seed: int = 0) -> Tensor:
    """Draw ``counts[k]`` examples of every class k.

    The draw depends on the labels and the seed alone, and a class's larger count holds the examples
    of a smaller one: a second stage, or another imbalance in the same class order, sees no example
    of a class that a fuller tail would not have.

    Args:
        target: (N,) int64 labels.
        counts: (K,) how many of each class, at most what there are.
        seed: fixes the draw.

    Returns:
        (sum of the counts,) indices, rising.

    Raises:
        ValueError: if a class has too few examples.

    Example:
        >>> long_tail_indices(torch.tensor([1, 0, 1, 0]), torch.tensor([2, 1]), seed=0).numel()
        3
    """
    counts, there = counts.cpu(), class_counts(target, len(counts))
    if bool((counts > there).any()):
        label = int((counts > there).nonzero()[0])
        raise ValueError(
            f"counts ask for {int(counts[label])} examples of class {label}; it has "
            f"{int(there[label])}"
        )
    chosen = []
    for label, count in enumerate(counts.tolist()):
        members = (target == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=_generator(seed, 1 + label))
        chosen.append(members[order[:count]])
    return torch.cat(chosen).sort().values


def long_tail_subset(
    split: Split,
    imbalance: float,
    *,
    num_classes: int | None = None,
    profile: str = "exponential",
    order: str = "label",
    n_max: int | None = None,
    small: str = "error",
    seed: int = 0,
) -> Split:
    """Return a long-tailed part of a split; see :func:`long_tail_counts` for the arguments.

    Args:
        split: the examples to choose from, of training only.
        imbalance: the most frequent class's examples per one of the rarest, at least 1.
        num_classes: K; the largest label plus 1 if None.
        profile: shape of the tail.
        order: which classes are frequent.
        n_max: examples of the most frequent class.
        small: what to do where a class would keep none.
        seed: fixes the order and the draw.

    Returns:
        The part, in the order of the split.

    Raises:
        TypeError: if ``split`` is another data set.
        ValueError: if an argument is out of range, a class would keep none, or has too few.

    Example:
        >>> split = Split(torch.zeros(40, 2), torch.arange(40) % 2)
        >>> class_counts(long_tail_subset(split, 10))
        tensor([20,  2])
    """
    if not isinstance(split, Split):
        raise TypeError(
            f"split must be a lastlayer.data.Split; got {type(split).__name__}; of another "
            "data set take torch.utils.data.Subset at long_tail_indices of its labels"
        )
    counts = long_tail_counts(
        class_counts(split, num_classes),
        imbalance,
        profile=profile,
        order=order,
        n_max=n_max,
        small=small,
        seed=seed,
    )
    index = long_tail_indices(split.target, counts, seed=seed)
    return Split(split.inputs[index], split.target[index])


def _generator(seed: int, stream: int) -> torch.Generator:
    # Well mixed, as neighbouring seeds and classes must not share their draws.
    mixed = (seed * 0x9E3779B97F4A7C15 + stream * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63
    return torch.Generator().manual_seed(mixed)
