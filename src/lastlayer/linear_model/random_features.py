"""Random features: a fixed random layer under a linear model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from lastlayer._checks import check_choice, check_count
from lastlayer.linear_model.inputs import check_dense, check_positive_or_auto, checked_array

#: Nonlinearities by name; they may work in place.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "sigmoid": torch.sigmoid_,
    "cos": torch.cos_,
}


class RandomFeatures(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]  # untyped bases
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    r"""Features of a layer that is drawn once and never trained, an extreme learning machine's.

    .. math:: h(x) = \sigma(R x + b), \qquad R_{jk} \sim N(0, s^2), \qquad b_j \sim N(0, 1)

    With ``"cos"`` the offsets are uniform in :math:`[0, 2\pi)` and the features are times
    :math:`\sqrt{2 / m}`: their inner products approximate the Gaussian kernel
    :math:`\exp(-s^2 |x - x'|^2 / 2)`.

    Args:
        n_components: m, how many features.
        activation: ``"relu"``, ``"tanh"``, ``"sigmoid"`` or ``"cos"``.
        scale: s, above 0; ``"auto"`` is one over the root mean squared norm of the rows fitted to,
            so that :math:`R x` has unit variance whatever the units of x.
        random_state: seed of R and b; with the same seed float32 and float64 get the same ones.

    Attributes:
        components_: (m, d) R.
        offset_: (m,) b.
        scale_: s.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.pipeline import make_pipeline
        >>> from lastlayer.linear_model import LBFGSSoftmax
        >>> X, y = load_iris(return_X_y=True)
        >>> model = make_pipeline(RandomFeatures(50, random_state=0), LBFGSSoftmax(C=10))
        >>> model.fit(X, y).score(X, y) > 0.97
        True

    Source: Huang, Zhu and Siew, "Extreme learning machine", Neurocomputing 2006; for the cosine
    Rahimi and Recht, "Random features for large-scale kernel machines", NIPS 2007.
    """

    def __init__(
        self,
        n_components: int = 500,
        activation: str = "relu",
        scale: float | str = "auto",
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.activation = activation
        self.scale = scale
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Draw the layer; of the rows only width, dtype and mean squared norm matter.

        Args:
            X: (n, d) array, CSR matrix or tensor, dense or sparse.
            y: not looked at.

        Returns:
            The transformer.

        Raises:
            ValueError: if an option is out of range or a row is not finite.
        """
        check_count("n_components", self.n_components)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_positive_or_auto("scale", self.scale)
        rows = checked_array(self, X, reset=True)
        self.scale_ = _one_over_norm(rows) if self.scale == "auto" else float(self.scale)
        count = int(self.n_components)
        random = check_random_state(self.random_state)
        # Drawn in float64 whatever the rows are in.
        components = self.scale_ * random.standard_normal((count, rows.shape[1]))
        if self.activation == "cos":
            offset = random.uniform(0, 2 * math.pi, count)
        else:
            offset = random.standard_normal(count)
        self.components_ = components.astype(rows.dtype)
        self.offset_ = offset.astype(rows.dtype)
        return self

    def transform(self, X: Any) -> Any:
        """Return the features of rows.

        Args:
            X: (n, d) array, CSR matrix, or tensor on any device, dense or sparse.

        Returns:
            (n, m) dense, in the dtype of X; a tensor of a tensor, where it is.
        """
        check_is_fitted(self)
        if isinstance(X, Tensor) and X.layout is torch.strided:
            check_dense(self, X)
            given = X if X.is_floating_point() else X.to(torch.float64)
            return self._activate(given @ torch.from_numpy(self.components_).to(given).T)
        rows = checked_array(self, X, reset=False)
        projected = np.asarray(rows @ self.components_.T.astype(rows.dtype))
        features = self._activate(torch.from_numpy(projected))
        if isinstance(X, Tensor):
            return features.to(X.device, X.dtype if X.is_floating_point() else features.dtype)
        return features.numpy()

    def _activate(self, projected: Tensor) -> Tensor:
        projected += torch.from_numpy(self.offset_).to(projected)
        features = ACTIVATIONS[self.activation](projected)
        if self.activation == "cos":
            features.mul_(math.sqrt(2 / len(self.offset_)))
        return features

    @property
    def _n_features_out(self) -> int:
        return len(self.offset_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _one_over_norm(rows: NDArray[Any] | Any) -> float:
    """Return one over the root of the rows' mean squared norm; 1 if all are zero."""
    values = rows.data if sparse.issparse(rows) else rows
    total = float(np.square(values, dtype=np.float64).sum())
    return math.sqrt(rows.shape[0] / total) if total > 0 else 1.0
