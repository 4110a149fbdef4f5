"""Inputs and labels out of what holds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lastlayer.data import Split
from lastlayer.incremental.storage import Label


def as_inputs(inputs: Any) -> Tensor:
    """Return inputs as a float32 tensor on the CPU.

    Raises:
        ValueError: if there are none, or one is not finite.
    """
    tensor = torch.as_tensor(np.asarray(inputs) if not isinstance(inputs, Tensor) else inputs)
    tensor = tensor.detach().cpu().float()
    if tensor.dim() < 2 or len(tensor) == 0:
        raise ValueError(
            f"inputs must have shape (N, ...) with at least one example; got {tuple(tensor.shape)}"
        )
    finite = torch.isfinite(tensor).flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise ValueError(
            f"inputs must be finite; example {int((~finite).nonzero()[0])} holds NaN or infinity"
        )
    return tensor


def labelled_examples(data: Any, target: Any = None) -> tuple[Tensor, list[Label]]:
    """Return inputs and labels.

    Args:
        data: (N, ...) inputs with a ``target``; or a :class:`lastlayer.data.Split`, or a data set
            of (input, label) pairs.
        target: (N,) labels, whole numbers or strings.

    Raises:
        TypeError: if labels are neither whole numbers nor strings.
        ValueError: if there is no example, the lengths differ or an input is not finite.

    Example:
        >>> labelled_examples([[0.0, 1.0]], ["cat"])
        (tensor([[0., 1.]]), ['cat'])
    """
    if target is None:
        if isinstance(data, Split):
            data, target = data.inputs, data.target
        else:
            pairs = [data[i] for i in range(len(data))]
            if not pairs:
                raise ValueError("a task needs at least one example; got none")
            if any(not isinstance(pair, tuple | list) or len(pair) != 2 for pair in pairs):
                raise TypeError("data without a target must give (input, label) pairs")
            data = torch.stack([torch.as_tensor(pair[0]) for pair in pairs])
            target = [pair[1] for pair in pairs]
    listed = target.tolist() if hasattr(target, "tolist") else list(target)
    labels = [_label(label) for label in listed]
    if not labels:
        raise ValueError("a task needs at least one example; got none")
    inputs = as_inputs(data)
    if len(inputs) != len(labels):
        raise ValueError(f"{len(inputs)} inputs but {len(labels)} labels")
    return inputs, labels


def _label(label: Any) -> Label:
    if hasattr(label, "item"):
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise TypeError(f"labels must be whole numbers or strings; got {label!r}")
    return label
