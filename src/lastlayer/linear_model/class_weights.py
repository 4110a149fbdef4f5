"""Class weights for rows that only steps can see."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from lastlayer.linear_model.passes import weight_by_class
from lastlayer.linear_model.rows import Block, Rows, Step


class ClassWeightedRows:
    """Rows whose weights are multiplied by their class's.

    Args:
        rows: the rows.
        factors: (K,) by class index.
    """

    in_memory = False

    def __init__(self, rows: Rows, factors: Tensor) -> None:
        self.rows = rows
        self.factors = factors.to(rows.device, rows.dtype)
        self.num_features = rows.num_features
        self.dtype = rows.dtype
        self.device = rows.device

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


def weigh_classes(rows: Rows, classes: NDArray[Any], class_weight: Any) -> Rows:
    """Return rows with class weights, which mean what they mean in scikit-learn.

    Args:
        rows: the rows.
        classes: (K,) labels by class index.
        class_weight: ``"balanced"``, a mapping from label to weight, or None.

    Raises:
        ValueError: if it is none of these, or names labels that there are not.
    """
    if class_weight is None:
        return rows
    if isinstance(class_weight, str) and class_weight == "balanced":
        (found,) = rows.reduce(weight_by_class, len(classes))
        present = found > 0
        factors = torch.where(present, found.sum() / (present.sum() * found), 1.0)
        return ClassWeightedRows(rows, factors)
    weights = compute_class_weight(class_weight, classes=classes, y=classes)
    return ClassWeightedRows(rows, torch.from_numpy(np.asarray(weights, dtype=np.float64)))
