"""Accuracy by class and by groups of classes, from one table of labels and predictions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lastlayer._checks import check_count


def confusion_counts(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count how often each class is predicted for each label.

    Args:
        prediction: (N,) int64 predicted classes in [0, K).
        target: (N,) int64 labels in [0, K).
        num_classes: K.

    Returns:
        (K, K) int64; rows are labels, columns predictions.

    Raises:
        TypeError: if a dtype is not int64.
        ValueError: if the shapes differ or a class is out of range.

    >>> confusion_counts(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    check_count("num_classes", num_classes)
    if prediction.shape != target.shape or target.dim() != 1:
        raise ValueError(
            "prediction and target must have one shape (N,); got "
            f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    for name, classes in (("prediction", prediction), ("target", target)):
        if classes.dtype != torch.int64:
            raise TypeError(f"{name} must hold int64 class indices; got dtype {classes.dtype}")
        outside = classes[(classes < 0) | (classes >= num_classes)]
        if len(outside):
            raise ValueError(f"{name} must lie in [0, {num_classes - 1}]; got {int(outside[0])}")
    pairs = (target * num_classes + prediction).cpu()
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_accuracy(confusion: Tensor) -> Tensor:
    """Return the (K,) float64 share of each class's examples that are right; NaN of no example.

    Args:
        confusion: (K, K) of :func:`confusion_counts`.

    >>> class_accuracy(torch.tensor([[1, 1], [0, 0]])).tolist()
    [0.5, nan]
    """
    table = _table(confusion)
    return table.diagonal() / table.sum(dim=1)


def balanced_accuracy(confusion: Tensor) -> float:
    r"""Mean over classes of the accuracy in each, :math:`\frac1K \sum_k \mathrm{acc}_k`.

    On a balanced test set it is the accuracy. Classes without an example are left out.

    Args:
        confusion: (K, K) of :func:`confusion_counts`, not all 0.

    Returns:
        A number in [0, 1].

    >>> balanced_accuracy(torch.tensor([[8, 0], [1, 1]]))
    0.75
    """
    if not bool(_table(confusion).any()):
        raise ValueError("confusion must hold at least one example; got none")
    return float(class_accuracy(confusion).nanmean())


def group_accuracy(confusion: Tensor, groups: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean accuracy over the classes of each group.

    Args:
        confusion: (K, K) of :func:`confusion_counts`.
        groups: (K,) bool masks by name, such as ``lastlayer.longtail.class_groups(...).members``.

    Returns:
        Accuracies by name; NaN for a group without an example, which is not an accuracy of 0.

    Raises:
        ValueError: if a mask does not fit.

    >>> masks = {"head": torch.tensor([True, False]), "tail": torch.tensor([False, True])}
    >>> group_accuracy(torch.tensor([[8, 0], [1, 1]]), masks)
    {'head': 1.0, 'tail': 0.5}
    """
    accuracy = class_accuracy(confusion)
    return {
        name: float(accuracy[_mask(name, mask, len(accuracy))].nanmean())
        for name, mask in groups.items()
    }


def group_confusion(confusion: Tensor, groups: Mapping[str, Tensor]) -> Tensor:
    """Which group's classes are predicted for the examples of each group.

    The entry (tail, head) is the tail-to-head confusion: the share of the tail's examples that are
    taken for a head class, each class of the tail counting alike.

    Args:
        confusion: (K, K) of :func:`confusion_counts`.
        groups: (K,) bool masks by name, every class in one of them.

    Returns:
        (G, G) float64 in the order of ``groups``: rows of sum 1, NaN for a group without an
        example. The diagonal is at least the group's accuracy.

    Raises:
        ValueError: if a mask does not fit, or a class is in no group or in two.

    >>> masks = {"head": torch.tensor([True, False]), "tail": torch.tensor([False, True])}
    >>> group_confusion(torch.tensor([[8, 0], [1, 1]]), masks).tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """
    table = _table(confusion)
    masks = torch.stack([_mask(name, mask, len(table)) for name, mask in groups.items()])
    if not bool((masks.sum(dim=0) == 1).all()):
        raise ValueError("groups must hold every class exactly once")
    into = (table / table.sum(dim=1, keepdim=True)) @ masks.double().T
    return torch.stack([into[mask].nanmean(dim=0) for mask in masks])


def _mask(name: str, mask: Tensor, num_classes: int) -> Tensor:
    if mask.shape != (num_classes,) or mask.dtype != torch.bool:
        raise ValueError(
            f"group {name!r} must be a bool mask of shape ({num_classes},); got {mask.dtype} of "
            f"shape {tuple(mask.shape)}"
        )
    return mask.cpu()


def _table(confusion: Tensor) -> Tensor:
    if confusion.dim() != 2 or confusion.shape[0] != confusion.shape[1] or not len(confusion):
        raise ValueError(f"confusion must have shape (K, K); got {tuple(confusion.shape)}")
    return confusion.detach().cpu().double()
