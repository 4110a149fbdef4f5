"""How many examples each class keeps: the shapes of long tails."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from lastlayer._checks import (
    check_at_least,
    check_choice,
    check_count,
    check_inside,
    check_positive,
)

#: What a class does whose share falls below one example.
SMALL = ("error", "clamp")


class Profile(Protocol):
    """Counts by rank, the most frequent class first."""

    def __call__(
        self, num_classes: int, n_max: int, imbalance: float, *, small: str = "error"
    ) -> list[int]:
        """Return the counts of the K classes."""


def exponential_counts(
    num_classes: int, n_max: int, imbalance: float, *, small: str = "error"
) -> list[int]:
    r"""Counts that fall by the same factor from class to class.

    .. math:: n_i = \lfloor n_{\max} \, r^{-i / (K - 1)} \rfloor, \qquad i = 0, \dots, K - 1

    with the imbalance r. This is the profile of CIFAR-10-LT and CIFAR-100-LT.

    Args:
        num_classes: K, at least 1; a single class keeps everything.
        n_max: examples of the most frequent class.
        imbalance: r, the most frequent class's examples per one of the rarest, at least 1.
        small: ``"error"`` or ``"clamp"`` (to 1) where a count would be 0.

    Returns:
        K counts, falling.

    Raises:
        ValueError: if an argument is out of range, or a count would be 0.

    Example:
        >>> exponential_counts(10, 5000, 200)
        [5000, 2775, 1540, 854, 474, 263, 146, 81, 45, 25]

    Source: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, and
    the released code of Cao et al. (LDAM), NeurIPS 2019.
    """
    check_imbalance(imbalance)
    last = max(1, num_classes - 1)
    return _counts(num_classes, n_max, lambda i: (1.0 / imbalance) ** (i / last), small)


def step_counts(
    num_classes: int,
    n_max: int,
    imbalance: float,
    *,
    small: str = "error",
    head_fraction: float = 0.5,
) -> list[int]:
    """Counts of two levels: a first part of the classes is full, the others have n_max / r.

    Args:
        num_classes: K, at least 1.
        n_max: examples of the frequent classes.
        imbalance: r, at least 1.
        small: ``"error"`` or ``"clamp"`` (to 1) where a count would be 0.
        head_fraction: share of frequent classes in (0, 1); their number is rounded down, but is at
            least 1.

    Returns:
        K counts, falling.

    Raises:
        ValueError: if an argument is out of range, or a count would be 0.

    Example:
        >>> step_counts(5, 100, 10)
        [100, 100, 10, 10, 10]

    Source: the released code of Cao et al., "Learning Imbalanced Datasets with
    Label-Distribution-Aware Margin Loss", NeurIPS 2019, where half of the classes are full.
    """
    check_imbalance(imbalance)
    check_inside("head_fraction", head_fraction, 0.0, 1.0)
    full = max(1, int(head_fraction * num_classes))
    return _counts(num_classes, n_max, lambda i: 1.0 if i < full else 1.0 / imbalance, small)


def pareto_counts(
    num_classes: int,
    n_max: int,
    imbalance: float,
    *,
    small: str = "error",
    alpha: float = 6.0,
) -> list[int]:
    r"""Counts that fall as a power of the rank.

    .. math:: n_i = \lfloor n_{\max} (1 + c\, i)^{-\alpha} \rfloor, \qquad
        c = \frac{r^{1/\alpha} - 1}{K - 1}

    The shape of ImageNet-LT and Places-LT, whose own lists are one random draw and are not
    reproduced by a formula. A large exponent approaches the exponential profile.

    Args:
        num_classes: K, at least 1; a single class keeps everything.
        n_max: examples of the most frequent class.
        imbalance: r, at least 1.
        small: ``"error"`` or ``"clamp"`` (to 1) where a count would be 0.
        alpha: exponent, above 0.

    Returns:
        K counts, falling.

    Raises:
        ValueError: if an argument is out of range, or a count would be 0.

    Example:
        >>> pareto_counts(4, 1000, 8, alpha=3.0)
        [1000, 421, 216, 125]

    Source: derived here.
    """
    check_imbalance(imbalance)
    check_positive("alpha", alpha)
    slope = (imbalance ** (1.0 / alpha) - 1.0) / max(1, num_classes - 1)
    return _counts(num_classes, n_max, lambda i: (1.0 + slope * i) ** -alpha, small)


#: The profiles by name.
PROFILES: dict[str, Profile] = {
    "exponential": exponential_counts,
    "step": step_counts,
    "pareto": pareto_counts,
}


def profile_counts(
    name: str, num_classes: int, n_max: int, imbalance: float, *, small: str = "error"
) -> list[int]:
    """Return the counts of a named profile, the most frequent class first.

    Args:
        name: a name of :data:`PROFILES`.
        num_classes: K, at least 1.
        n_max: examples of the most frequent class.
        imbalance: the most frequent class's examples per one of the rarest, at least 1.
        small: ``"error"`` or ``"clamp"`` where a count would be 0.

    Raises:
        ValueError: if an argument is out of range, or a count would be 0.

    Example:
        >>> profile_counts("step", 4, 20, 4)
        [20, 20, 5, 5]
    """
    check_choice("profile", name, PROFILES)
    return PROFILES[name](num_classes, n_max, imbalance, small=small)


def check_imbalance(imbalance: float) -> None:
    """Raise ``ValueError`` unless the imbalance is a finite number of at least 1."""
    check_at_least("imbalance", imbalance, 1.0)


def _counts(num_classes: int, n_max: int, share: Callable[[int], float], small: str) -> list[int]:
    check_count("num_classes", num_classes)
    check_count("n_max", n_max)
    check_choice("small", small, SMALL)
    # 49 * (1 / 49) is a little less than 1: what rounding took is given back before truncation.
    counts = [math.floor(n_max * share(i) * (1.0 + 1e-12)) for i in range(num_classes)]
    if small == "error" and min(counts) < 1:
        rank = next(i for i, count in enumerate(counts) if count < 1)
        raise ValueError(
            f"n_max must leave every class an example; with n_max={n_max} the class of rank {rank} "
            f"keeps none. Take a smaller imbalance, more examples, or small='clamp'"
        )
    return [max(1, count) for count in counts]
