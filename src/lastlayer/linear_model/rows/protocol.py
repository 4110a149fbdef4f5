"""What a solver sees of the examples: rows in blocks, of which it sums up what it needs.

A solver hands a step to :meth:`Rows.reduce`; the step sees one block, may keep tensors beside the
rows in ``block.state``, and returns what is to be summed. So one solver serves matrices in memory,
files larger than it and rows spread over processes or a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Tensor

from lastlayer.linear_model.rows.matrices import Matrix


@dataclass
class Block:
    """Rows that are worked on together.

    Attributes:
        matrix: their features.
        target: (n,) class indices.
        weight: (n,) weights of at least 0, or None for ones.
        state: what a solver keeps beside the rows.
    """

    matrix: Matrix
    target: Tensor
    weight: Tensor | None = None
    state: MutableMapping[str, Tensor] = field(default_factory=dict)


#: What a solver does with a block: returns the tensors that are to be summed over all of them.
Step = Callable[..., tuple[Tensor, ...]]


def add_up(parts: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Return the sums of tuples of tensors; the first tuple's are overwritten."""
    totals: tuple[Tensor, ...] | None = None
    for found in parts:
        if totals is None:
            totals = found
            continue
        for total, part in zip(totals, found, strict=True):
            total += part
    return totals or ()


@runtime_checkable
class Rows(Protocol):
    """All examples, wherever they are: what ``fit_rows`` and ``measure_rows`` take.

    Whoever has examples elsewhere writes a class with these attributes and two methods.

    Attributes:
        num_features: d.
        classes: (K,) labels by class index, sorted; None if the rows do not know them.
        feature_names: (d,) names of the features, or None.
        dtype: of the features.
        device: where the sums are.
        in_memory: whether this process holds all rows as they are to be weighed. Only then may
            some be drawn, as a sample does not depend on how files or processes cut the rows, and
            a copy be made, as it fits beside them.
    """

    num_features: int
    classes: NDArray[Any] | None
    feature_names: Sequence[str] | None
    dtype: torch.dtype
    device: torch.device
    in_memory: bool

    def reduce(self, step: Step, *shared: object) -> tuple[Tensor, ...]:
        """Return the sums over all blocks of what ``step(block, *shared)`` returns.

        A step returns new tensors, not its state: they are summed in place.
        """

    def clear(self) -> None:
        """Forget what solvers kept beside the rows."""
