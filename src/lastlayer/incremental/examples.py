"""Inputs and labels out of what holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lastlayer._inputs import (
    Inputs,
    first_not_finite,
    form,
    join,
    map_inputs,
    named_tensors,
    num_examples,
    without_labels,
)
from lastlayer.data import Labelled
from lastlayer.incremental.storage import Label


def as_inputs(inputs: Any, like: Inputs | None = None, *, keep_integers: bool = False) -> Inputs:
    """Return inputs on the CPU, floating-point ones in float32; the numbers stay.

    Args:
        inputs: (N, ...) numbers, N >= 1, which become one float32 tensor; or a tuple of tensors or
            arrays, or a mapping of names to them, for a network of several arguments, of which
            integers stay integers.
        like: inputs whose form one input must have; None for any.
        keep_integers: whether those of a single tensor stay too, as a network with an embedding
            needs its tokens.

    Example:
        >>> as_inputs([[0, 255]])
        tensor([[  0., 255.]])
        >>> as_inputs({"ids": [[0, 255]]})
        {'ids': tensor([[  0, 255]])}
    """
    if isinstance(inputs, DataLoader):
        raise TypeError("inputs must be without labels; got a DataLoader: give what it yields")
    found = _tensors(inputs)
    if isinstance(found, Tensor):
        if found.dim() < 2 or len(found) == 0:
            raise ValueError(
                "inputs must have shape (N, ...) with at least one example; "
                f"got {tuple(found.shape)}"
            )
        whole = keep_integers and found.dtype in (torch.int32, torch.int64)
        found = found.long() if whole else found.float()
    if num_examples(found) == 0:
        raise ValueError("inputs must hold at least one example; got none")
    if like is not None and form(found) != form(like):
        raise ValueError(f"inputs must be {form(like)} each, as those learned; got {form(found)}")
    for name, part in named_tensors(found).items():
        row = first_not_finite(part)
        if row is not None:
            raise ValueError(f"{name} must be finite; example {row} holds NaN or infinity")
    return found


def as_labels(labels: Any) -> list[Label]:
    """Return (N,) labels of any kind of sequence as plain whole numbers and strings, or raise.

    Example:
        >>> as_labels(torch.tensor([3, 1])), as_labels(["cat", np.int64(2)])
        ([3, 1], ['cat', 2])
    """
    listed = labels.tolist() if hasattr(labels, "tolist") else labels
    if isinstance(listed, str) or not isinstance(listed, Iterable):
        raise TypeError(f"labels must be a sequence of shape (N,); got {labels!r}")
    return [_label(label) for label in listed]


def labelled_examples(
    data: Any, target: Any = None, like: Inputs | None = None, *, keep_integers: bool = False
) -> tuple[Inputs, list[Label]]:
    """Return inputs and labels.

    Args:
        data: inputs as of :func:`as_inputs` with a ``target``; or what holds both: a
            :class:`lastlayer.data.Split`, a data set of examples, a ``DataLoader`` of batches. An
            example or a batch is an (inputs, label) pair, or a mapping that has the labels under
            one of :data:`lastlayer._inputs.LABELS`; so may ``data`` be.
        target: (N,) labels, whole numbers or strings.
        like: as of :func:`as_inputs`.
        keep_integers: as of :func:`as_inputs`.

    Example:
        >>> labelled_examples([[0.0, 1.0]], ["cat"])
        (tensor([[0., 1.]]), ['cat'])
    """
    if isinstance(data, Labelled):
        if target is not None:
            raise ValueError("data is a Split, which holds its labels; got target too")
        data, target = data.inputs, data.target
    elif isinstance(data, DataLoader) and target is not None:
        raise ValueError("data is a DataLoader, which yields its labels; got target too")
    elif target is None:
        if isinstance(data, Mapping):
            data, target = without_labels(data)
        else:
            data, target = _gathered(data)
    labels = as_labels(target)
    if not labels:
        raise ValueError("a task needs at least one example; got none")
    inputs = as_inputs(data, like, keep_integers=keep_integers)
    if num_examples(inputs) != len(labels):
        several = "; a tuple is several inputs of a network" if isinstance(inputs, tuple) else ""
        raise ValueError(f"{num_examples(inputs)} inputs but {len(labels)} labels{several}")
    return inputs, labels


def _gathered(data: Any) -> tuple[Inputs, list[Any]]:
    """Return the inputs and labels of a data set of examples, or of all batches of a loader."""
    in_batches = isinstance(data, DataLoader)
    if not in_batches and not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise TypeError(f"{_WANTED}, with a length; got {type(data).__name__}")
    found = data if in_batches else (data[i] for i in range(len(data)))
    pairs = [_pair(each) for each in found]
    if not pairs:
        raise ValueError("a task needs at least one example; got none")
    inputs, labels = [inputs for inputs, _ in pairs], [label for _, label in pairs]
    if in_batches:
        labels = [label for batch in labels for label in as_labels(batch)]
    else:
        inputs = [map_inputs(lambda part: part[None], one) for one in inputs]
    forms = list(dict.fromkeys(map(form, inputs)))
    if len(forms) > 1:
        raise ValueError(
            f"inputs must have one shape and dtype; got {forms[0]} and {forms[1]} (tokens are "
            "padded to one length)"
        )
    return join(inputs), labels


_WANTED = "data without a target must be a data set of (input, label) pairs"


def _pair(example: Any) -> tuple[Inputs, Any]:
    """Return the inputs and the label of an example, or of a batch."""
    if isinstance(example, Mapping):
        inputs, label = without_labels(example)
    elif isinstance(example, tuple | list) and len(example) == 2:
        inputs, label = example
    else:
        several = isinstance(example, tuple | list)
        got = type(example).__name__ + (f" of {len(example)}" if several else "")
        hint = "; several inputs go together, as ((a, b), label)" if several else ""
        raise TypeError(f"{_WANTED}; it gave {got}{hint}")
    # A loader makes lists of the tuples of a data set.
    if isinstance(inputs, list) and _is_several(tuple(inputs)):
        inputs = tuple(inputs)
    return _tensors(inputs), label


def _tensors(inputs: Any) -> Inputs:
    """Return one tensor, or those of a tuple or mapping; see :func:`_tensor`."""
    if isinstance(inputs, Mapping):
        return {str(key): _tensor(part, f"inputs[{key!r}]") for key, part in inputs.items()}
    if _is_several(inputs):
        return tuple(_tensor(part, f"inputs[{i}]") for i, part in enumerate(inputs))
    return _tensor(inputs, "inputs")


def _is_several(inputs: Any) -> bool:
    return (
        isinstance(inputs, tuple)
        and bool(inputs)
        and all(isinstance(part, Tensor | np.ndarray) for part in inputs)
    )


def _tensor(inputs: Any, name: str) -> Tensor:
    """Return numbers as a tensor on the CPU, floating-point ones in float32."""
    if not isinstance(inputs, Tensor):
        try:
            inputs = torch.as_tensor(np.asarray(inputs))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name} must hold numbers of one shape: {error}") from error
    found: Tensor = inputs.detach().cpu()
    return found.float() if found.is_floating_point() else found


def _label(label: Any) -> Label:
    if getattr(label, "ndim", None) == 0:  # of a data set that gives tensors or arrays
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise TypeError(f"labels must be whole numbers or strings; got {label!r}")
    return label
