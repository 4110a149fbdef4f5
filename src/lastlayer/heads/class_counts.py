"""The training set's class counts within a head, and the account of what it corrects by them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lastlayer.functional.class_priors import PriorCorrection, as_class_counts
from lastlayer.heads.base import Head


def keep_class_counts(
    head: Head, class_counts: Tensor | Sequence[float] | None, *, zero_counts: str = "error"
) -> Tensor:
    """Register checked class counts as the buffer ``class_counts`` of a head; return them."""
    if class_counts is None:
        raise ValueError(
            f"{type(head).__name__} needs class_counts: how often each of the {head.num_classes} "
            "classes occurs in the training data"
        )
    given = torch.as_tensor(class_counts).detach().cpu()
    counts = as_class_counts(given, head.num_classes, zero_counts=zero_counts)
    head.register_buffer("class_counts", counts.to(head.classifier.weight.device))
    return counts


def prior_correction(
    head: Head, class_counts: Tensor | Sequence[float], sampling_prior: Tensor | None = None
) -> PriorCorrection:
    """Return the account of what a head and the sampling of its batches correct.

    Args:
        head: any head; most correct nothing.
        class_counts: (K,) positive counts of the classes in the training data.
        sampling_prior: (K,) counts or probabilities of the classes as they are drawn; None for
            those of the data.

    Returns:
        The account; it warns if the class prior is corrected twice.

    Example:
        >>> from lastlayer.heads import BalancedSoftmax
        >>> head = BalancedSoftmax(8, 2, class_counts=[90, 10])
        >>> prior_correction(head, [90, 10])
        PriorCorrection(2 classes, loss offset 1.00)
    """
    weight = head.weight if head.weight is None or bool((head.weight > 0).all()) else None
    return PriorCorrection(
        class_counts,
        sampling_prior=sampling_prior,
        class_weight=weight,
        loss_tau=head.loss_tau,
        post_hoc_tau=head.post_hoc_tau,
    )
