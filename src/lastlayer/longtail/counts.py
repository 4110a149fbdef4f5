"""How often each class occurs in whatever holds labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from lastlayer._checks import check_count, holds_integers
from lastlayer._inputs import without_labels
from lastlayer.data import Labelled, Splits

#: Where data sets keep their labels.
ATTRIBUTES = ("target", "targets", "labels")


def class_counts(data: Any, num_classes: int | None = None) -> Tensor:
    """Count the examples of each class.

    A data loader is counted by its data set, whatever its sampler draws. A data set is counted
    without reading its examples if it has whole numbers as ``target``, ``targets`` or ``labels``,
    one an example, which its ``target_transform`` may change; else example by example.

    Args:
        data: integer labels (a tensor of any shape, or a sequence), a :class:`Split`, the training
            part of :class:`Splits`, a mapping that holds labels, a data set of (input, label) pairs
            or of such mappings, a ``TensorDataset`` that ends in labels, or a loader of one.
        num_classes: K; for :class:`Splits` known, else the largest label plus 1 if None.

    Returns:
        (K,) int64 counts; classes that do not occur have 0.

    Raises:
        TypeError: if labels are not integers, or there are none to be found.
        ValueError: if a label is out of range, or there is no label and no ``num_classes``.

    Examples:
        >>> class_counts(torch.tensor([0, 2, 2]), num_classes=4)
        tensor([1, 0, 2, 0])
        >>> class_counts([("an input", 1), ("another", 1)])
        tensor([0, 2])
    """
    if num_classes is not None:
        check_count("num_classes", num_classes)
    if isinstance(data, Splits):
        num_classes = data.num_classes if num_classes is None else num_classes
        data = data.train
    labels = _labels(data)
    if not holds_integers(labels):
        raise TypeError(f"labels must be integers; got {labels.dtype}")
    labels = labels.to(torch.int64)
    if num_classes is None:
        if not len(labels):
            raise ValueError("num_classes must be given where there is no label; got None")
        num_classes = int(labels.max()) + 1
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        outside = labels[(labels < 0) | (labels >= num_classes)]
        raise ValueError(f"labels must lie in [0, {num_classes - 1}]; got {int(outside[0])}")
    return torch.bincount(labels, minlength=num_classes).cpu()


def _labels(data: Any) -> Tensor:
    held = _held(data)
    return (_collected(data) if held is None else held).flatten()


def _held(data: Any) -> Tensor | None:
    """Return the labels that can be had without reading examples; None if there are none."""
    if isinstance(data, Tensor):
        return data
    if isinstance(data, np.ndarray):
        return _as_labels(data)
    if isinstance(data, Labelled):
        return data.target
    if isinstance(data, DataLoader):
        return _held(data.dataset)
    if isinstance(data, Mapping):
        return _as_labels(without_labels(data)[1])
    if isinstance(data, TensorDataset):
        return _of_tensors(data.tensors)
    if isinstance(data, Subset):
        labels = _held(data.dataset)
        return None if labels is None else labels[torch.as_tensor(data.indices, dtype=torch.int64)]
    if isinstance(data, ConcatDataset):
        parts = [_held(part) for part in data.datasets]
        found = [part.flatten() for part in parts if part is not None]
        return torch.cat(found) if len(found) == len(parts) else None
    return _held_by_name(data)


def _of_tensors(tensors: tuple[Tensor, ...]) -> Tensor:
    """Return the labels among the tensors of a data set: the last one, unless others may be."""
    could_be = [part for part in tensors[1:] if part.dim() == 1 and holds_integers(part)]
    if len(tensors) < 2 or len(could_be) > 1:
        raise TypeError(
            f"data must have one tensor of labels behind its inputs; of {len(tensors)} tensors "
            f"{len(could_be)} could be: give the labels themselves"
        )
    return could_be[0] if could_be else tensors[-1]


def _held_by_name(data: Any) -> Tensor | None:
    """Return the labels that a data set keeps, as its ``target_transform`` leaves them."""
    transforms = getattr(data, "transforms", None)
    if transforms is not None and not hasattr(transforms, "target_transform"):
        return None  # torchvision's for input and label together
    for name in ATTRIBUTES:
        labels = _whole_numbers(getattr(data, name, None))
        if labels is not None and (not hasattr(data, "__len__") or len(labels) == len(data)):
            transform = getattr(data, "target_transform", None)
            if transform is None:
                return labels
            return _joined(_of_one(transform(label)) for label in labels.tolist())
    return None


def _whole_numbers(labels: Any) -> Tensor | None:
    """Return an attribute as labels if it holds some: others have names, or masks, in it."""
    try:
        found = None if labels is None else torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        return None
    return found if found is not None and found.dim() and holds_integers(found) else None


def _collected(data: Any) -> Tensor:
    if isinstance(data, DataLoader):
        data = data.dataset
    if isinstance(data, ConcatDataset):
        return torch.cat([_labels(part) for part in data.datasets])
    if not hasattr(data, "__iter__") and not (
        hasattr(data, "__getitem__") and hasattr(data, "__len__")
    ):
        raise TypeError(f"data must hold labels; got {type(data).__name__}")
    return _joined(_each_label(data))


def _joined(labels: Iterable[Tensor]) -> Tensor:
    found = [label.flatten() for label in labels]
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)


def _each_label(data: Any) -> Iterator[Tensor]:
    """Yield the label of every example or batch; a plain sequence of labels holds them itself."""
    examples = data if hasattr(data, "__iter__") else (data[i] for i in range(len(data)))
    for example in examples:
        if isinstance(example, Mapping):
            inputs, label = without_labels(example)
            yield _of_one(label, *inputs.values())
        elif isinstance(example, (tuple, list)):
            if len(example) < 2:
                raise TypeError("a data set must give (input, label) pairs")
            yield _of_one(example[1], *(example[:1] if len(example) == 2 else ()))
        else:
            yield _as_labels(example)


def _of_one(label: Any, *inputs: Any) -> Tensor:
    """Return the label of an example, or those of a batch, which has as many inputs."""
    found = _as_labels(label)
    is_batch = found.dim() == 1 and any(
        isinstance(part, Tensor | np.ndarray) and part.shape[:1] == found.shape for part in inputs
    )
    if found.numel() != 1 and not is_batch:
        raise TypeError(
            "labels must be one whole number for each example, the second of a pair; got one of "
            f"shape {tuple(found.shape)}: give the labels themselves"
        )
    return found


def _as_labels(label: Any) -> Tensor:
    try:
        return torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"labels must be integers; got {label!r}") from error
