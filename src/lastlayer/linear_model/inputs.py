"""What users hand to the estimators, checked and turned into rows."""

from __future__ import annotations

import math
import warnings
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
    """Check features and labels as scikit-learn does, and more; see ``LinearSoftmax.fit``.

    ``device`` is where to compute, that of a tensor of features if None; ``classes`` are all labels
    that there may be, those that occur if None; ``reset`` takes the number of features from these.
    The estimator gets it, and the names of the columns.
    """
    tensor = isinstance(features, Tensor)
    if tensor:
        device = features.device if device is None else device
    kept_device = torch.device("cpu" if device is None else device)
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    checked, labels = checked_array(estimator, features, labels, order="C", reset=reset)
    target, classes = index_classes(labels, classes, name="y")
    weight = _weights(checked, classes, target, sample_weight, class_weight)
    if sparse.issparse(checked):
        if kept_device.type != "cpu":
            raise ValueError(f"sparse features are computed with on the CPU; got device={device!r}")
        return Examples(checked, target, weight, classes)
    with warnings.catch_warnings():
        # Features may lie in a mapped file that is read-only; nothing writes to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        kept = tensor and features.dtype in (torch.float32, torch.float64)
        values = features if kept else torch.from_numpy(checked)
    weight = None if weight is None else weight.to(kept_device)
    return Examples(values.detach().to(kept_device), target.to(kept_device), weight, classes)


def checked_array(estimator: Any, features: Any, labels: Any = "no_validation", **how: Any) -> Any:
    """Return features, (n, d), as a finite array or CSR matrix; labels, if given, beside them.

    ``how`` as in scikit-learn's ``validate_data``.
    """
    checked = validate_data(
        estimator,
        as_array(features),
        labels,
        accept_sparse="csr",
        dtype=[np.float64, np.float32],
        ensure_all_finite=False,
        **how,
    )
    check_rows_finite(checked[0] if isinstance(checked, tuple) else checked)
    return checked


def check_dense(estimator: Any, rows: Tensor) -> None:
    """Raise ``ValueError`` unless a dense tensor has the features fitted to, and is finite."""
    if rows.dim() != 2 or rows.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has shape {tuple(rows.shape)}, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )
    check_rows_finite(rows)


#: Of the sparse tensors that are taken.
_LAYOUTS = (torch.sparse_csr, torch.sparse_csc, torch.sparse_coo)


def as_array(features: Any) -> Any:
    """Return a tensor as an array or, if sparse, as SciPy's; anything else as it is."""
    if not isinstance(features, Tensor):
        return features
    given = features.detach().cpu()
    dense = given.layout is torch.strided
    # Half precision is unknown to SciPy, and some to NumPy.
    if given.dtype == torch.bfloat16 or (given.dtype == torch.float16 and not dense):
        given = given.double()
    if dense:
        return given.numpy()
    if given.dim() != 2 or given.layout not in _LAYOUTS or given.dense_dim():
        raise ValueError(
            "a sparse tensor must have shape (n, d) and the layout CSR, CSC or COO; "
            f"got shape {tuple(given.shape)} and {given.layout}"
        )
    given = given.to_sparse_coo().coalesce()  # type: ignore[no-untyped-call]
    return sparse.coo_array(
        (given.values().numpy(), tuple(given.indices().numpy())), shape=tuple(given.shape)
    )


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
        count = len(np.unique(features.tocoo().row[bad]))
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
