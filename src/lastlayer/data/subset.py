"""Draws by class: balanced training subsets, validation parts, stratified test parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lastlayer.data.sources import Examples

Indices = npt.NDArray[np.int64]


def level_counts(available: Indices, size: int, order: Indices) -> Indices:
    """Return how many to take of each class so that the counts are as level as they can be.

    Every class is filled to the same level, or to what it has; what remains goes one each to the
    first classes of ``order``, a permutation, that have more.

    Example:
        >>> level_counts(np.array([9, 2, 9]), 9, order=np.array([2, 0, 1]))
        array([3, 2, 4])
    """
    low, high = 0, int(available.max())
    while low < high:  # the highest level whose sum does not exceed size
        middle = (low + high + 1) // 2
        if np.minimum(available, middle).sum() <= size:
            low = middle
        else:
            high = middle - 1
    counts: Indices = np.minimum(available, low)
    rest = size - int(counts.sum())
    with_more = order[available[order] > low]
    counts[with_more[:rest]] += 1
    return counts


def proportional_counts(available: Indices, size: int) -> Indices:
    """Return how many to take of each class in proportion to what it has (largest remainders).

    Of a class with one example none is taken, and of no class all: what stays keeps every class.

    Example:
        >>> proportional_counts(np.array([60, 30, 10]), 10)
        array([6, 3, 1])
    """
    limit = np.maximum(available - 1, 0)
    if size > limit.sum():
        raise ValueError(
            f"cannot take {size} of {int(available.sum())} examples and leave one of each class"
        )
    wanted = available * (size / max(int(available.sum()), 1))
    counts: Indices = np.minimum(np.floor(wanted).astype(np.int64), limit)
    while (rest := size - int(counts.sum())) > 0:
        remainder = np.where(counts < limit, wanted - counts, -np.inf)
        chosen = np.argsort(-remainder, kind="stable")[:rest]
        counts[chosen[np.isfinite(remainder[chosen])]] += 1
    return counts


def take_counts(target: Indices, counts: Indices, rng: np.random.Generator) -> Indices:
    """Return indices of ``counts[k]`` random examples of each class k, in ascending order.

    With the same generator a larger count holds the examples of a smaller one.
    """
    chosen = [
        rng.permutation(np.flatnonzero(target == label))[:count]
        for label, count in enumerate(counts)
    ]
    return np.sort(np.concatenate(chosen))


def balanced_subset(
    target: Indices, size: int, *, class_names: Sequence[str], rng: np.random.Generator
) -> Indices:
    """Draw ``size`` examples, the same number of each class (a remainder goes one each).

    Returns indices into ``target``, ascending. With the same generator state a larger subset holds
    a smaller one.
    """
    num_classes = len(class_names)
    if size < num_classes:
        raise ValueError(
            f"train_size must be at least {num_classes}, one example of each class; got {size}"
        )
    available = np.bincount(target, minlength=num_classes)
    order = rng.permutation(num_classes)
    counts = level_counts(available, min(size, len(target)), order)
    needed = size // num_classes
    scarce = int(available.argmin())
    if counts.sum() < size or counts.max() - counts.min() > 1:
        raise ValueError(
            f"train_size {size} needs at least {needed} training examples of each class; "
            f"class {class_names[scarce]!r} has {available[scarce]}"
        )
    return take_counts(target, counts, rng)


def stratified_subset(target: Indices, size: int, rng: np.random.Generator) -> Indices:
    """Draw ``size`` examples in proportion to the classes, leaving at least one of each class."""
    return take_counts(target, proportional_counts(np.bincount(target), size), rng)


def level_subset(target: Indices, size: int, rng: np.random.Generator) -> Indices:
    """Draw ``size`` examples with class counts as level as the classes allow."""
    available = np.bincount(target)
    return take_counts(target, level_counts(available, size, rng.permutation(len(available))), rng)


def set_test_apart(examples: Examples, *, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Split examples into a training and a test part in proportion to the classes.

    The seed is the split's own, not the run's: runs that differ in their seed keep the test part.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"test_fraction must lie in (0, 1); got {fraction!r}")
    if seed < 0:
        raise ValueError(f"split_seed must be at least 0; got {seed!r}")
    target = examples.target.numpy()
    size = max(1, round(fraction * len(target)))
    test = stratified_subset(target, size, np.random.default_rng(seed))
    return examples.take(np.setdiff1d(np.arange(len(target)), test)), examples.take(test)
