"""What a data source is: a function from a folder and options to everything it could read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lastlayer.data.splits import Kind
from lastlayer.registry import Registry


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs as they were read (uint8 images, float tensors or texts) with their labels."""

    inputs: Tensor | tuple[str, ...]
    target: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.target):
            raise ValueError(f"{len(self.inputs)} inputs but {len(self.target)} labels")
        if len(self.target) == 0:
            raise ValueError("a data source needs at least one example in each part; got none")

    def take(self, index: npt.NDArray[np.int64]) -> Examples:
        """Return the examples at ``index``, in that order."""
        rows = torch.from_numpy(index)
        if isinstance(self.inputs, Tensor):
            return Examples(self.inputs[rows], self.target[rows])
        return Examples(tuple(self.inputs[row] for row in index), self.target[rows])


class FittedEncoder(Protocol):
    """Turns texts into vectors as learned from a training split."""

    def transform(self, texts: tuple[str, ...]) -> Tensor:
        """Return float32 vectors ``(N, D)``."""
        ...

    def extras(self) -> dict[str, object]:
        """Return what it takes to build this encoder again, as plain data."""
        ...


class Encoder(Protocol):
    """Learns from the training texts how to turn texts into vectors."""

    def fit(self, texts: tuple[str, ...]) -> FittedEncoder:
        """Learn from ``texts`` alone."""
        ...


@dataclass(frozen=True, eq=False)
class Raw:
    """All that a source read, before a training subset or a validation part is drawn.

    Args:
        train: the source's training part.
        test: the source's test part.
        class_names: one name per class; labels index it.
        kind: ``"image"`` or ``"vector"``. uint8 images are scaled to [0, 1] later.
        encoder: for texts, what makes vectors of them; fitted on the drawn training split.
        notes: what the user should know about these data, one sentence each.
    """

    train: Examples
    test: Examples
    class_names: tuple[str, ...]
    kind: Kind
    encoder: Encoder | None = None
    notes: tuple[str, ...] = ()


Source = Callable[..., Raw]
"""A source takes ``data_dir`` (a ``pathlib.Path`` or None) and keyword-only options."""

SOURCES: Registry[Source] = Registry(kind="data source", group="lastlayer.data")
