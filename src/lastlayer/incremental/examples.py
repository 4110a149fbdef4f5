"""Inputs and labels out of what holds them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lastlayer.data import Split
from lastlayer.incremental.storage import Label


def as_inputs(inputs: Any, shape: tuple[int, ...] | None = None) -> Tensor:
    """Return inputs as a float32 tensor on the CPU; the numbers stay, whatever their scale.

    Args:
        inputs: (N, ...) numbers, N >= 1.
        shape: that one input must have; None for any.

    Raises:
        TypeError: if they are no numbers.
        ValueError: if there are none, their shape is another, or one is not finite.

    Example:
        >>> as_inputs([[0, 255]])
        tensor([[  0., 255.]])
    """
    tensor = inputs if isinstance(inputs, Tensor) else torch.as_tensor(np.asarray(inputs))
    tensor = tensor.detach().cpu().float()
    if tensor.dim() < 2 or len(tensor) == 0:
        raise ValueError(
            f"inputs must have shape (N, ...) with at least one example; got {tuple(tensor.shape)}"
        )
    if shape is not None and tuple(tensor.shape[1:]) != shape:
        raise ValueError(
            f"inputs must have shape {shape} each, as those learned; got {tuple(tensor.shape[1:])}"
        )
    finite = torch.isfinite(tensor).flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise ValueError(
            f"inputs must be finite; example {int((~finite).nonzero()[0])} holds NaN or infinity"
        )
    return tensor


def as_labels(labels: Any) -> list[Label]:
    """Return labels as plain whole numbers and strings.

    Args:
        labels: (N,) of them: a tensor, an array, a series or a sequence.

    Raises:
        TypeError: if one is neither.

    Example:
        >>> as_labels(torch.tensor([3, 1])), as_labels(["cat", np.int64(2)])
        ([3, 1], ['cat', 2])
    """
    listed = labels.tolist() if hasattr(labels, "tolist") else labels
    if isinstance(listed, str) or not isinstance(listed, Iterable):
        raise TypeError(f"labels must be a sequence of shape (N,); got {labels!r}")
    return [_label(label) for label in listed]


def labelled_examples(
    data: Any, target: Any = None, *, shape: tuple[int, ...] | None = None
) -> tuple[Tensor, list[Label]]:
    """Return inputs and labels.

    Args:
        data: (N, ...) inputs with a ``target``; or a :class:`lastlayer.data.Split`, or a data set
            of (input, label) pairs.
        target: (N,) labels, whole numbers or strings.
        shape: that one input must have; None for any.

    Raises:
        TypeError: if labels are neither whole numbers nor strings, or ``data`` are no pairs.
        ValueError: if there is no example, the lengths differ, or an input does not fit.

    Example:
        >>> labelled_examples([[0.0, 1.0]], ["cat"])
        (tensor([[0., 1.]]), ['cat'])
    """
    if isinstance(data, Split):
        if target is not None:
            raise ValueError("data is a Split, which holds its labels; got target too")
        data, target = data.inputs, data.target
    elif target is None:
        data, target = _of_pairs(data)
    labels = as_labels(target)
    if not labels:
        raise ValueError("a task needs at least one example; got none")
    inputs = as_inputs(data, shape)
    if len(inputs) != len(labels):
        raise ValueError(f"{len(inputs)} inputs but {len(labels)} labels")
    return inputs, labels


def _of_pairs(data: Any) -> tuple[Tensor, list[Any]]:
    """Return the inputs and labels of a data set of pairs."""
    wanted = "data without a target must be a data set of (input, label) pairs"
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise TypeError(f"{wanted}, with a length; got {type(data).__name__}")
    pairs = [data[i] for i in range(len(data))]
    if not pairs:
        raise ValueError("a task needs at least one example; got none")
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"{wanted}; it gave {type(pair).__name__}")
    inputs = [torch.as_tensor(np.asarray(x) if not isinstance(x, Tensor) else x) for x, _ in pairs]
    shapes = dict.fromkeys(tuple(each.shape) for each in inputs)
    if len(shapes) > 1:
        raise ValueError(f"inputs must have one shape; got {' and '.join(map(str, shapes))}")
    return torch.stack(inputs), [label for _, label in pairs]


def _label(label: Any) -> Label:
    if getattr(label, "ndim", None) == 0:  # of a data set that gives tensors or arrays
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise TypeError(f"labels must be whole numbers or strings; got {label!r}")
    return label
