"""Class weights: what they may be, and rows that they multiply."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from lastlayer.linear_model.block_reductions import weight_by_class
from lastlayer.linear_model.rows.protocol import Block, Rows, Step


class ClassWeightedRows:
    """Rows whose weights are multiplied by their class's of (K,) factors."""

    in_memory = False

    def __init__(self, rows: Rows, factors: Tensor) -> None:
        self.rows = rows
        self.factors = factors.to(rows.device, rows.dtype)
        self.num_features, self.classes = rows.num_features, rows.classes
        self.feature_names, self.dtype, self.device = rows.feature_names, rows.dtype, rows.device

    def reduce(self, step: Step, *shared: object) -> tuple[Tensor, ...]:
        """Return the sums over the blocks, reweighted."""
        return self.rows.reduce(reweighted, self.factors, step, *shared)

    def clear(self) -> None:
        """Forget what solvers kept."""
        self.rows.clear()


def reweighted(block: Block, factors: Tensor, step: Step, *shared: object) -> tuple[Tensor, ...]:
    """Take a step on a block whose rows weigh their class's factor more."""
    weight = factors[block.target]
    if block.weight is not None:
        weight = weight * block.weight
    return step(Block(block.matrix, block.target, weight, block.state), *shared)


def check_class_weights(class_weight: Any) -> None:
    """Raise ``ValueError`` unless these are class weights, of whatever labels."""
    if class_weight is None or (isinstance(class_weight, str) and class_weight == "balanced"):
        return
    if not isinstance(class_weight, Mapping):
        raise ValueError(
            "class_weight must be None, 'balanced' or a dictionary from label to weight; "
            f"got {class_weight!r}"
        )
    wrong = {
        label: weight
        for label, weight in class_weight.items()
        if not (isinstance(weight, Real) and 0 <= float(weight) < math.inf)
    }
    if wrong:
        raise ValueError(f"class_weight must hold finite numbers of at least 0; got {wrong!r}")


def class_factors(class_weight: Any, classes: NDArray[Any], by_class: Tensor) -> Tensor:
    """Return what the rows of every class are multiplied by, (K,) float64 on the CPU.

    As in scikit-learn, balanced classes weigh the same; those that have no weight do not count
    among them. Of a mapping from label to weight classes that it does not name get 1. ``by_class``
    is the (K,) weight of the rows of each class.
    """
    check_class_weights(class_weight)
    found = by_class.detach().cpu().double()
    if isinstance(class_weight, str):
        present = found > 0
        return torch.where(present, found.sum() / (present.sum() * found), 1.0)
    weights = compute_class_weight(dict(class_weight), classes=classes, y=classes)
    factors = torch.from_numpy(np.asarray(weights, dtype=np.float64))
    if not bool((factors * found).any()):
        raise ValueError(
            "class_weight must not be 0 for all classes whose rows have a weight; "
            f"got {class_weight!r}"
        )
    return factors


def weigh_classes(rows: Rows, classes: NDArray[Any], class_weight: Any) -> Rows:
    """Return rows with class weights, which may be None; see :func:`class_factors`."""
    if class_weight is None:
        return rows
    (by_class,) = rows.reduce(weight_by_class, len(classes))
    return ClassWeightedRows(rows, class_factors(class_weight, classes, by_class))
