"""Classes grouped by how often they occur in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lastlayer._checks import check_choice
from lastlayer.functional.class_priors import as_class_counts

#: Above so many training examples a class is one of many shots, below so many one of few.
MANY, FEW = 100, 20

SCHEMES = ("auto", "shots", "tertiles")


class ClassGroups(NamedTuple):
    """Classes in groups, from the most frequent to the rarest.

    Attributes:
        scheme: ``"shots"`` (by fixed numbers of examples) or ``"tertiles"`` (thirds of the ranks).
        members: (K,) bool masks by name; a group may be empty.
    """

    scheme: str
    members: dict[str, Tensor]

    def describe(self) -> str:
        """Return in one sentence what the groups are."""
        sizes = ", ".join(f"{name} {int(mask.sum())}" for name, mask in self.members.items())
        if self.scheme == "shots":
            return (
                f"Classes by training examples: many above {MANY}, medium {FEW} to {MANY}, few "
                f"below {FEW} ({sizes} classes)."
            )
        return f"Thirds of the classes by training examples ({sizes} classes)."


def shot_groups(
    class_counts: Tensor | Sequence[int], *, many: int = MANY, few: int = FEW
) -> ClassGroups:
    """Group classes by fixed numbers: many above 100 examples, few below 20, medium between.

    Args:
        class_counts: (K,) training examples of each class.
        many: the largest count that is medium.
        few: the smallest count that is medium.

    Returns:
        The groups ``"many"``, ``"medium"`` and ``"few"``; a group may be empty.

    Raises:
        ValueError: if a count is negative, or ``few`` exceeds ``many``.

    Example:
        >>> groups = shot_groups([101, 100, 20, 19])
        >>> {name: mask.nonzero().flatten().tolist() for name, mask in groups.members.items()}
        {'many': [0], 'medium': [1, 2], 'few': [3]}

    Source: the released code of Kang et al., "Decoupling representation and classifier for
    long-tailed recognition", ICLR 2020.
    """
    if few > many:
        raise ValueError(f"few must be at most many={many}; got {few}")
    counts = as_class_counts(class_counts, zero_counts="mask").cpu()
    medium = (counts >= few) & (counts <= many)
    return ClassGroups("shots", {"many": counts > many, "medium": medium, "few": counts < few})


def tertile_groups(class_counts: Tensor | Sequence[int]) -> ClassGroups:
    """Group classes into thirds by rank: head, mid and tail; a remainder goes to mid.

    Args:
        class_counts: (K,) training examples of each class; of equal counts the first class ranks
            first.

    Returns:
        The groups ``"head"``, ``"mid"`` and ``"tail"``; below 3 classes mid, or all but it, are
        empty.

    Example:
        >>> groups = tertile_groups([1, 2, 30, 40])
        >>> {name: mask.nonzero().flatten().tolist() for name, mask in groups.members.items()}
        {'head': [3], 'mid': [1, 2], 'tail': [0]}
    """
    counts = as_class_counts(class_counts, zero_counts="mask").cpu()
    num_classes = len(counts)
    third = num_classes // 3 if num_classes != 2 else 1
    order = counts.argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(num_classes)
    head, tail = rank < third, rank >= num_classes - third
    return ClassGroups("tertiles", {"head": head, "mid": ~(head | tail), "tail": tail})


def class_groups(class_counts: Tensor | Sequence[int], scheme: str = "auto") -> ClassGroups:
    """Group classes by fixed numbers of examples, or by thirds where those leave a group empty.

    Args:
        class_counts: (K,) training examples of each class.
        scheme: ``"shots"``, ``"tertiles"``, or ``"auto"`` for the first if none of its groups is
            empty, else the second.

    Raises:
        ValueError: if the scheme is unknown or a count is negative.

    Example:
        >>> class_groups([90, 50, 25]).scheme
        'tertiles'
    """
    check_choice("scheme", scheme, SCHEMES)
    if scheme == "tertiles":
        return tertile_groups(class_counts)
    groups = shot_groups(class_counts)
    if scheme == "auto" and not all(bool(mask.any()) for mask in groups.members.values()):
        return tertile_groups(class_counts)
    return groups
