"""How often each class occurs in whatever holds labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lastlayer._inputs import without_labels
from lastlayer.data import Labelled, Splits

#: Where data sets keep their labels.
ATTRIBUTES = ("target", "targets", "labels")


def class_counts(data: Any, num_classes: int | None = None) -> Tensor:
    """Count the examples of each class.

    A data loader is counted by its data set, whatever its sampler draws; a data set by its labels
    if it has them as ``target``, ``targets`` or ``labels``, else example by example.

    Args:
        data: integer labels (a tensor of any shape, or a sequence), a :class:`Split`, the training
            part of :class:`Splits`, a data set of (input, label) pairs
            or of mappings that hold a label, or a loader of one.
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
    if isinstance(data, Splits):
        num_classes = data.num_classes if num_classes is None else num_classes
        data = data.train
    labels = _labels(data).flatten()
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
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
    if isinstance(data, Tensor):
        return data
    if isinstance(data, Labelled):
        return data.target
    if isinstance(data, torch.utils.data.DataLoader):
        return _labels(data.dataset)
    if isinstance(data, torch.utils.data.TensorDataset):
        return data.tensors[-1]
    if isinstance(data, torch.utils.data.Subset):
        return _labels(data.dataset)[torch.as_tensor(data.indices)]
    if isinstance(data, torch.utils.data.ConcatDataset):
        return torch.cat([_labels(part) for part in data.datasets])
    for name in ATTRIBUTES:
        if hasattr(data, name):
            return torch.as_tensor(getattr(data, name))
    if isinstance(data, Iterable) or hasattr(data, "__getitem__"):
        return _collected(data)
    raise TypeError(f"data must hold labels; got {type(data).__name__}")


def _collected(data: Any) -> Tensor:
    found = [torch.as_tensor(label).flatten() for label in _each_label(data)]
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)


def _each_label(data: Any) -> Iterator[Any]:
    """Yield the label of every example or batch; a plain sequence of labels holds them itself."""
    examples = data if isinstance(data, Iterable) else (data[i] for i in range(len(data)))
    for example in examples:
        if isinstance(example, Mapping):
            yield without_labels(example)[1]
        elif isinstance(example, (tuple, list)):
            if len(example) < 2:
                raise TypeError("a data set must give (input, label) pairs")
            yield example[1]
        else:
            yield example
