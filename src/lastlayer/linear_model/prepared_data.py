"""One set of rows under many fits."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

from lastlayer.linear_model import block_reductions
from lastlayer.linear_model.base import LinearSoftmax
from lastlayer.linear_model.inputs import check_examples
from lastlayer.linear_model.rows.memory import LocalRows
from lastlayer.linear_model.rows.protocol import Step

Estimator = TypeVar("Estimator", bound=LinearSoftmax)

#: Sums that no weights go into.
CONSTANT_STEPS: tuple[Step, ...] = (block_reductions.totals, block_reductions.gram)


class SharedRows(LocalRows):
    """Rows that several fits look at: sums that no weights go into are taken once.

    So is the copy in float32, with its own sums.

    Args:
        rows: in memory.
    """

    def __init__(self, rows: LocalRows) -> None:
        super().__init__(rows.blocks, rows.dtype, rows.device)
        self._rows = rows
        self._sums: dict[tuple[object, ...], tuple[Tensor, ...]] = {}
        self._copy: tuple[Tensor, LocalRows] | None = None

    def reduce(self, step: Step, *shared: object) -> tuple[Tensor, ...]:
        """Return the sums over the blocks."""
        if step not in CONSTANT_STEPS:
            return self._rows.reduce(step, *shared)
        key = (step, *shared)
        if key not in self._sums:
            self._sums[key] = self._rows.reduce(step, *shared)
        return tuple(part.clone() for part in self._sums[key])

    def rounded(self, mean: Tensor) -> LocalRows:
        """Return the copy in float32, made once for a mean."""
        if self._copy is None or not torch.equal(self._copy[0], mean):
            self._copy = mean.clone(), SharedRows(self._rows.rounded(mean))
        return self._copy[1]

    def clear(self) -> None:
        """Forget what solvers kept."""
        super().clear()
        if self._copy is not None:
            self._copy[1].clear()


class PreparedData:
    """The same examples for many fits of one kind of estimator.

    Args:
        estimator: gives the options.
        X: (n, d) features.
        y: (n,) labels.
        sample_weight: (n,) weights.

    Raises:
        TypeError: if the estimator is none of this package.
        ValueError: if the examples do not fit.
    """

    def __init__(self, estimator: LinearSoftmax, X: Any, y: Any, sample_weight: Any = None) -> None:
        if not isinstance(estimator, LinearSoftmax):
            raise TypeError(
                "estimator must be one of lastlayer.linear_model's softmax estimators; "
                f"got {type(estimator).__name__}"
            )
        self._checked = clone_with(estimator)
        self._checked._check_options()
        examples = check_examples(
            self._checked,
            X,
            y,
            sample_weight=sample_weight,
            class_weight=estimator.class_weight,
            device=estimator.device,
        )
        self.classes = examples.classes
        self.rows = SharedRows(self._checked._rows(examples))

    def fit(self, model: Estimator, start: LinearSoftmax | None = None) -> Estimator:
        """Fit a model to the rows, from the weights of another one if given."""
        warm = model.warm_start
        if start is not None:
            model.coef_, model.intercept_, model.warm_start = start.coef_, start.intercept_, True
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self._checked, name):
                setattr(model, name, getattr(self._checked, name))
        try:
            # Not fit_rows: the rows have the weights of their classes already.
            model._fit_rows(self.rows, self.classes)
        finally:
            model.warm_start = warm
        return model


def clone_with(estimator: Estimator, **changes: Any) -> Estimator:
    """Return an estimator of the same kind that is not fitted, with some options changed."""
    # scikit-learn's clone would copy what a callback holds.
    return type(estimator)(**(estimator.get_params(deep=False) | changes))
