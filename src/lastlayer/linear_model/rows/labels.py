"""Labels of any kind as class indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor


def index_classes(
    labels: Any, classes: Any = None, *, name: str = "labels"
) -> tuple[Tensor, NDArray[Any]]:
    """Return class indices, (n,), and the labels by index, (K,), sorted.

    ``classes`` are all labels that there may be, those that occur if None; ``name`` is what the
    labels are called in an error.
    """
    given = as_labels(labels)
    check_classification_targets(given)
    found = np.unique(given)
    classes = found if classes is None else np.unique(as_labels(classes))
    if len(unknown := np.setdiff1d(found, classes)):
        raise ValueError(
            f"{name} has labels that are not among the classes: {unknown[:5].tolist()}"
        )
    if len(classes) < 2:
        raise ValueError(
            f"solvers need at least 2 classes; {name} contains 1 class: {classes.tolist()}"
        )
    return torch.from_numpy(np.searchsorted(classes, given).astype(np.int64)), classes


def as_labels(labels: Any) -> NDArray[Any]:
    """Return labels as an array (n,)."""
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    return np.asarray(column_or_1d(labels))


def as_weight(weight: Any, count: int, dtype: torch.dtype) -> Tensor | None:
    """Return weights (n,), finite and at least 0, as a tensor; None stays None."""
    if weight is None:
        return None
    if isinstance(weight, Tensor):
        weight = weight.detach().cpu().numpy()
    values = np.asarray(weight, dtype=np.float64)
    if values.shape != (count,):
        raise ValueError(f"weight must have shape ({count},), one a row; got {values.shape}")
    wrong = int((~np.isfinite(values) | (values < 0)).sum())
    if wrong:
        raise ValueError(f"weight must be finite and at least 0; {wrong} of {count} are not")
    return torch.from_numpy(values).to(dtype)
