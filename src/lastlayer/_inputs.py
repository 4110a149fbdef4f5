"""What a network is given: a tensor, a tuple of tensors, or tensors by name, a row an example each.

A tensor is the network's one argument, a tuple its positional ones, a mapping (a ``dict``, or what
a tokenizer of transformers returns) its keywords.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]


def named_tensors(inputs: Inputs, name: str = "inputs") -> dict[str, Tensor]:
    """Return the tensors under what they are called in messages, such as ``inputs['ids']``.

    Raises:
        TypeError: if ``inputs`` is something else, or holds something else than tensors.
        ValueError: if there is no tensor, one has no dimension, or their numbers of rows differ.
    """
    if isinstance(inputs, Tensor):
        named = {name: inputs}
    elif isinstance(inputs, tuple):
        named = {f"{name}[{i}]": part for i, part in enumerate(inputs)}
    elif isinstance(inputs, Mapping):
        named = {f"{name}[{key!r}]": part for key, part in inputs.items()}
    else:
        raise TypeError(_wanted(name, inputs))
    for which, part in named.items():
        if not isinstance(part, Tensor):
            raise TypeError(f"{which} must be a tensor; got {type(part).__name__}")
        if part.dim() == 0:
            raise ValueError(f"{which} must have shape (N, ...); got a number")
    sizes = {which: len(part) for which, part in named.items()}
    if len(set(sizes.values())) != 1:
        listed = ", ".join(f"{which}: {size}" for which, size in sizes.items()) or "no tensor"
        raise ValueError(f"{name} must hold one row per example in every tensor; got {listed}")
    return named


def _wanted(name: str, inputs: object) -> str:
    return (
        f"{name} must be a tensor, a tuple of tensors or a mapping of names to tensors; "
        f"got {type(inputs).__name__}"
    )


def num_examples(inputs: Inputs, name: str = "inputs") -> int:
    """Return the number of rows; raises as :func:`named_tensors`."""
    return len(next(iter(named_tensors(inputs, name).values())))


def map_inputs(function: Callable[..., Tensor], inputs: Inputs, *others: Inputs) -> Inputs:
    """Apply a function to every tensor, together with those in its place in other inputs."""
    rest: Sequence[Any] = others
    if isinstance(inputs, Tensor):
        return function(inputs, *rest)
    if isinstance(inputs, tuple):
        return tuple(map(function, inputs, *rest))
    return {key: function(part, *(o[key] for o in rest)) for key, part in inputs.items()}


def take(inputs: Inputs, index: Tensor | slice) -> Inputs:
    """Return the rows at an index."""
    return map_inputs(lambda part: part[index], inputs)


def batches(inputs: Inputs, size: int) -> Iterator[Inputs]:
    """Yield the rows in order, ``size`` at a time."""
    for start in range(0, num_examples(inputs), size):
        yield take(inputs, slice(start, start + size))


def join(parts: Sequence[Inputs]) -> Inputs:
    """Return the rows of several inputs of one form, one after another."""
    return map_inputs(lambda *rows: torch.cat(rows), *parts)


def call(module: Callable[..., Any], inputs: Inputs, **options: Any) -> Any:
    """Call a network with its inputs; raise ``TypeError`` if they are something else."""
    if isinstance(inputs, Tensor):
        return module(inputs, **options)
    if isinstance(inputs, tuple):
        return module(*inputs, **options)
    if isinstance(inputs, Mapping):
        return module(**inputs, **options)
    raise TypeError(_wanted("inputs", inputs))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module of ``model`` in evaluation mode, and back in its own afterwards."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


#: Under which of these names a mapping may hold the labels.
LABELS = ("labels", "label", "target", "targets")


def without_labels(batch: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return what a mapping holds beside its labels, and the labels.

    Raises ``ValueError`` if it holds none, or two.
    """
    found = [key for key in LABELS if key in batch]
    if len(found) != 1:
        raise ValueError(
            f"a mapping must hold its labels under one of {', '.join(LABELS)}; "
            f"its keys are {sorted(batch)}"
        )
    return {key: part for key, part in batch.items() if key != found[0]}, batch[found[0]]


def first_not_finite(part: Tensor) -> int | None:
    """Return the first row that holds NaN or infinity, if any."""
    finite = torch.isfinite(part)
    rows = (~(finite.flatten(1).all(dim=1) if part.dim() > 1 else finite)).nonzero()
    return int(rows[0]) if len(rows) else None


def to_weight(inputs: Inputs, weight: Tensor) -> Inputs:
    """Bring inputs to a weight's device, and floating-point ones to its dtype; integers stay."""

    def moved(part: Tensor) -> Tensor:
        return part.to(weight.device, weight.dtype if part.is_floating_point() else part.dtype)

    return map_inputs(moved, inputs)


def blank(inputs: Inputs) -> Inputs:
    """Return inputs of the same form without an example: what :func:`form` tells apart."""
    return map_inputs(lambda part: torch.empty((0, *part.shape[1:]), dtype=part.dtype), inputs)


def take_apart(inputs: Inputs) -> tuple[str, dict[str, Tensor]]:
    """Return ``"tensor"``, ``"tuple"`` or ``"mapping"``, and the tensors by name for a file.

    A lone tensor is called ``""``, those of a tuple are called by their place.
    """
    if isinstance(inputs, Tensor):
        return "tensor", {"": inputs}
    if isinstance(inputs, tuple):
        return "tuple", {str(i): part for i, part in enumerate(inputs)}
    return "mapping", {str(key): part for key, part in inputs.items()}


def put_together(kind: str, parts: Mapping[str, Tensor]) -> Inputs:
    """Return the inputs that :func:`take_apart` took apart, in whatever order the parts come."""
    if kind == "tensor":
        return parts[""]
    return tuple(parts[str(i)] for i in range(len(parts))) if kind == "tuple" else dict(parts)


def form(inputs: Inputs) -> str:
    """Return in words what one example is; equal for inputs that can be joined.

    >>> form({"ids": torch.zeros(2, 7, dtype=torch.int64), "image": torch.zeros(2, 3, 8, 8)})
    'ids: int64 of shape (7,), image: float32 of shape (3, 8, 8)'
    """

    def one(part: Tensor) -> str:
        return f"{str(part.dtype).removeprefix('torch.')} of shape {tuple(part.shape[1:])}"

    if isinstance(inputs, Tensor):
        return one(inputs)
    if isinstance(inputs, tuple):
        return f"({', '.join(map(one, inputs))})"
    return ", ".join(f"{key}: {one(inputs[key])}" for key in sorted(inputs))
