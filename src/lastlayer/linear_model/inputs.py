"""What users hand to the estimators, checked and turned into rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.validation import _check_sample_weight, validate_data
from torch import Tensor

from lastlayer._checks import is_number
from lastlayer.linear_model.class_weights import class_factors
from lastlayer.linear_model.rows.labels import index_classes
from lastlayer.linear_model.rows.matrices import SparseMatrix
from lastlayer.linear_model.rows.memory import LocalRows, cut_rows
from lastlayer.linear_model.rows.protocol import Block
from lastlayer.linear_model.rows.sources import all_finite


class Examples(NamedTuple):
    """Checked examples.

    Attributes:
        features: (n, d) tensor, or CSR matrix.
        target: (n,) class indices.
        weight: (n,) weights, or None where all are 1.
        classes: (K,) labels by index, sorted.
    """

    features: Any
    target: Tensor
    weight: Tensor | None
    classes: NDArray[Any]

    def promoted(self, other: np.dtype[Any]) -> Examples:
        """Return the examples in the wider of their precision and another one."""
        name = np.promote_types(str(self.features.dtype).removeprefix("torch."), other).name
        dtype = getattr(torch, name)
        tensor = isinstance(self.features, Tensor)
        return self._replace(
            features=self.features.to(dtype) if tensor else self.features.astype(name),
            weight=None if self.weight is None else self.weight.to(dtype),
        )

    def rows(self, *, block_rows: int | None = None) -> LocalRows:
        """Return the examples in blocks; rows without weight are left out."""
        features, target, weight = self.features, self.target, self.weight
        if weight is not None and bool((weight == 0).any()):
            kept = (weight > 0).nonzero().squeeze(1)
            features = features[kept.cpu().numpy() if sparse.issparse(features) else kept]
            target, weight = target[kept], weight[kept]
            if bool((weight == 1).all()):
                weight = None
        if isinstance(features, Tensor):
            return cut_rows(features, target, weight, block_rows=block_rows)
        matrix = SparseMatrix(features)
        return LocalRows([Block(matrix, target, weight)], matrix.dtype, matrix.device)


def check_examples(
    estimator: Any,
    features: Any,
    labels: Any,
    *,
    sample_weight: Any = None,
    class_weight: Any = None,
    device: str | torch.device | None = None,
    classes: NDArray[Any] | None = None,
    reset: bool = True,
) -> Examples:
    """Check features and labels as scikit-learn does, and more.

    Args:
        estimator: takes ``n_features_in_`` and the names of the columns.
        features: (n, d) array, CSR matrix or tensor, dense or sparse.
        labels: (n,) numbers or strings.
        sample_weight: (n,) weights of at least 0.
        class_weight: as scikit-learn has it.
        device: where to compute; that of a tensor of features if None.
        classes: all labels that there may be; those that occur if None.
        reset: whether the number of features is taken from these.

    Raises:
        ValueError: if a shape does not fit, a number is not finite, a weight is below 0, all are
            0, a label is unknown, or there are fewer than two classes.
    """
    tensor = isinstance(features, Tensor)
    if tensor:
        device = features.device if device is None else device
    kept_device = torch.device("cpu" if device is None else device)
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    checked, labels = validate_data(
        estimator,
        as_array(features),
        labels,
        accept_sparse="csr",
        dtype=[np.float64, np.float32],
        order="C",
        ensure_all_finite=False,
        reset=reset,
    )
    check_rows_finite(checked)
    target, classes = index_classes(labels, classes, name="y")
    weight = _weights(checked, classes, target, sample_weight, class_weight)
    if sparse.issparse(checked):
        if kept_device.type != "cpu":
            raise ValueError(f"sparse features are computed with on the CPU; got device={device!r}")
        return Examples(checked, target, weight, classes)
    values = features if tensor and features.dtype in _DTYPES else _as_tensor(checked)
    weight = None if weight is None else weight.to(kept_device)
    return Examples(values.detach().to(kept_device), target.to(kept_device), weight, classes)


_DTYPES = (torch.float32, torch.float64)


def _as_tensor(values: NDArray[Any]) -> Tensor:
    with warnings.catch_warnings():
        # Features may lie in a mapped file that is read-only; nothing writes to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def as_array(features: Any) -> Any:
    """Return a tensor as an array or, if sparse, as SciPy's; anything else as it is."""
    if not isinstance(features, Tensor):
        return features
    given = features.detach().cpu()
    if given.layout is not torch.strided:
        return _as_scipy(given)
    if given.dtype == torch.bfloat16:  # unknown to NumPy
        given = given.double()
    return given.numpy()


def _as_scipy(given: Tensor) -> Any:
    if given.dim() != 2 or given.layout not in _LAYOUTS or given.dense_dim():
        raise ValueError(
            "a sparse tensor must have shape (n, d) and the layout CSR, CSC or COO; "
            f"got shape {tuple(given.shape)} and {given.layout}"
        )
    if given.layout == torch.sparse_coo:
        given = given.coalesce()
    values, *where = _LAYOUTS[given.layout](given)
    if values.dtype in (torch.float16, torch.bfloat16):  # unknown to SciPy
        values = values.double()
    indices = tuple(part.numpy() for part in where)
    shape = tuple(given.shape)
    if given.layout == torch.sparse_coo:
        return sparse.coo_array((values.numpy(), indices), shape=shape)
    kind = sparse.csr_array if given.layout == torch.sparse_csr else sparse.csc_array
    return kind((values.numpy(), *indices), shape=shape)


#: The values of a sparse tensor, and where they are, as SciPy takes them.
_LAYOUTS: dict[torch.layout, Callable[[Tensor], tuple[Tensor, ...]]] = {
    torch.sparse_csr: lambda given: (given.values(), given.col_indices(), given.crow_indices()),
    torch.sparse_csc: lambda given: (given.values(), given.row_indices(), given.ccol_indices()),
    torch.sparse_coo: lambda given: (given.values(), *given.indices()),
}


def check_rows_finite(features: Any) -> None:
    """Raise ``ValueError`` with the number of rows that hold NaN or infinity."""
    if isinstance(features, Tensor):
        if bool(torch.isfinite(features).all()):
            return
        features = as_array(features)
    values = features.data if sparse.issparse(features) else features
    if all_finite(values):
        return
    bad = ~np.isfinite(values)
    kind = "NaN" if np.isnan(values).any() else "infinity"
    if sparse.issparse(features):
        count = len(
            np.unique(np.repeat(np.arange(features.shape[0]), np.diff(features.indptr))[bad])
        )
    else:
        count = int(bad.any(axis=1).sum())
    raise ValueError(f"Input X contains {kind}: {count} of {features.shape[0]} rows are not finite")


def _weights(
    features: Any,
    classes: NDArray[Any],
    target: Tensor,
    sample_weight: Any,
    class_weight: Any,
) -> Tensor | None:
    if isinstance(sample_weight, Tensor):
        sample_weight = sample_weight.detach().cpu().numpy()
    if sample_weight is None and class_weight is None:
        return None
    weight = _check_sample_weight(
        sample_weight, features, dtype=features.dtype, ensure_non_negative=True, copy=True
    )
    if not weight.any():
        raise ValueError("sample_weight must not be 0 for all rows")
    if class_weight is not None:
        by_class = np.bincount(target.numpy(), weights=weight, minlength=len(classes))
        factors = class_factors(class_weight, classes, torch.from_numpy(by_class))
        weight *= factors[target].numpy()
    return None if (weight == 1).all() else torch.from_numpy(weight)


def check_positive_or_auto(name: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number above 0 or ``"auto"``."""
    if isinstance(value, str) and value == "auto":
        return
    if not (is_number(value) and 0.0 < float(value) < math.inf):
        raise ValueError(f"{name} must be a finite number above 0, or 'auto'; got {value!r}")


def check_share(name: str, value: object, low: float, high: float) -> None:
    """Raise ``ValueError`` unless ``value`` is a number of [low, high)."""
    if not (is_number(value) and low <= float(value) < high):
        raise ValueError(f"{name} must be in [{low:g}, {high:g}); got {value!r}")
