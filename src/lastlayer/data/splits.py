"""What a data source gives in the end: checked tensors for training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lastlayer._inputs import Inputs, first_not_finite, named_tensors

Kind = Literal["image", "vector"]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Inputs of any network with their labels.

    Args:
        inputs: a tensor, a tuple of tensors or tensors by name, N rows each; what is floating point
            is float32 and finite.
        target: int64 labels ``(N,)``.

    Raises:
        TypeError: if a dtype is another.
        ValueError: if the lengths differ, there is no example or an input is not finite.

    Example:
        >>> tokens = {"ids": torch.zeros(3, 7, dtype=torch.int64)}
        >>> len(Labelled(tokens, torch.tensor([0, 1, 1])))
        3
    """

    inputs: Inputs = field(repr=False)
    target: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        if self.target.dtype != torch.int64 or self.target.dim() != 1:
            raise TypeError(
                "target must be int64 of shape (N,); "
                f"got {self.target.dtype} of shape {tuple(self.target.shape)}"
            )
        for name, inputs in named_tensors(self.inputs).items():
            self._check(name, inputs)
        if len(self.target) == 0:
            raise ValueError("a split needs at least one example; got none")

    def _check(self, name: str, inputs: Tensor) -> None:
        if inputs.is_floating_point() and inputs.dtype != torch.float32:
            raise TypeError(f"{name} must be float32; got {inputs.dtype}")
        if len(inputs) != len(self.target):
            raise ValueError(f"{len(inputs)} {name} but {len(self.target)} labels")
        row = first_not_finite(inputs)
        if row is not None:
            raise ValueError(f"{name} must be finite; example {row} holds NaN or infinity")

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True, eq=False)
class Split(Labelled):
    """Examples of a data source with their labels.

    Args:
        inputs: float32; images ``(N, C, H, W)`` or vectors ``(N, D)``; finite.
        target: int64 labels ``(N,)``.

    Raises:
        TypeError: if a dtype is another.
        ValueError: if the lengths differ, the split is empty or an input is not finite.

    Example:
        >>> len(Split(torch.zeros(3, 2), torch.tensor([0, 1, 1])))
        3
    """

    inputs: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        if self.inputs.dtype != torch.float32:
            raise TypeError(f"inputs must be float32; got {self.inputs.dtype}")
        super().__post_init__()


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set ready for training.

    Args:
        name: the data source's name.
        train: every class has at least one example here.
        validation: drawn from the source's training part, or None.
        test: the source's own test part.
        class_names: one name per class, at least two.
        kind: ``"image"`` (values in [0, 1]) or ``"vector"``.
        mean: mean of each channel over ``train``; None for vectors.
        std: standard deviation of each channel over ``train``; None for vectors.
        notes: what the user should know about these data, one sentence each.
        extras: what prediction needs besides the model, such as a fitted vocabulary.

    Raises:
        ValueError: if labels are out of range, shapes differ, images leave [0, 1] or a class has
            no training example; the message names the split and the class.

    Example:
        >>> half = Split(torch.zeros(2, 3), torch.tensor([0, 1]))
        >>> splits = Splits("toy", half, None, half, ("no", "yes"), "vector")
        >>> splits.num_classes, splits.input_shape
        (2, (3,))
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    class_names: tuple[str, ...]
    kind: Kind
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()
    extras: Mapping[str, object] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise ValueError(f"{self.name}: needs at least two classes; got {self.class_names}")
        for part, split in self._parts():
            where = f"{self.name}, {part} split"
            check_labels(split.target, self.class_names, where=where)
            self._check_inputs(split.inputs, where)
        check_no_empty_class(self.train.target, self.class_names, where=f"{self.name}, train split")

    def _parts(self) -> list[tuple[str, Split]]:
        parts = [("train", self.train), ("validation", self.validation), ("test", self.test)]
        return [(part, split) for part, split in parts if split is not None]

    def _check_inputs(self, inputs: Tensor, where: str) -> None:
        if inputs.shape[1:] != self.input_shape:
            raise ValueError(
                f"{where}: inputs must have shape {self.input_shape} each, as in the train split; "
                f"got {tuple(inputs.shape[1:])}"
            )
        if self.kind == "vector":
            if inputs.dim() != 2:
                raise ValueError(f"{where}: vectors must be (N, D); got {tuple(inputs.shape)}")
            return
        if inputs.dim() != 4:
            raise ValueError(f"{where}: images must be (N, C, H, W); got {tuple(inputs.shape)}")
        low, high = (float(bound) for bound in inputs.aminmax())
        if low < 0.0 or high > 1.0:
            raise ValueError(f"{where}: images must lie in [0, 1]; got values {low:g} to {high:g}")

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.train.inputs.shape[1:])


def check_labels(target: Tensor, class_names: Sequence[str], *, where: str) -> None:
    """Raise ``ValueError`` unless every label is in [0, number of classes)."""
    outside = (target < 0) | (target >= len(class_names))
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise ValueError(
            f"{where}: labels must lie in [0, {len(class_names) - 1}]; "
            f"example {row} has label {int(target[row])}"
        )


def check_no_empty_class(target: Tensor, class_names: Sequence[str], *, where: str) -> None:
    """Raise ``ValueError`` naming a class that has no example."""
    counts = torch.bincount(target, minlength=len(class_names))
    if bool((counts == 0).any()):
        label = int((counts == 0).nonzero()[0])
        raise ValueError(f"{where}: class {class_names[label]!r} (label {label}) has no example")
