"""One set of rows under many fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from lastlayer.linear_model import block_reductions
from lastlayer.linear_model.base import LinearSoftmax
from lastlayer.linear_model.rows.memory import LocalRows
from lastlayer.linear_model.rows.protocol import Block, Rows, Step

Estimator = TypeVar("Estimator", bound=LinearSoftmax)

#: Sums that no weights go into.
CONSTANT_STEPS: tuple[Step, ...] = (block_reductions.totals, block_reductions.gram)


class SharedRows(LocalRows):
    """Rows that several fits look at: sums that no weights go into are taken once.

    So is the copy in float32, with its own sums.
    """

    def __init__(self, rows: LocalRows) -> None:
        super().__init__(rows.blocks, rows.dtype, rows.device, rows.num_features)
        self.in_memory = rows.in_memory
        self._rows = rows
        self._sums: dict[tuple[object, ...], tuple[Tensor, ...]] = {}
        self._copy: tuple[Tensor, LocalRows] | None = None

    def __iter__(self) -> Iterator[Block]:
        return iter(self._rows)

    @property
    def num_rows(self) -> int:
        """Return the number of examples."""
        return self._rows.num_rows

    @property
    def block_rows(self) -> int:
        """Return the number of examples of the largest block."""
        return self._rows.block_rows

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
        self._rows.clear()
        if self._copy is not None:
            self._copy[1].clear()


class PreparedData:
    """The same examples, arrays or rows of any kind, for many fits of one kind of estimator.

    Raises:
        TypeError: if the estimator is none of this package.
        ValueError: if the examples do not fit.
    """

    def __init__(
        self, estimator: LinearSoftmax, X: Any, y: Any = None, sample_weight: Any = None
    ) -> None:
        if not isinstance(estimator, LinearSoftmax):
            raise TypeError(
                "estimator must be one of lastlayer.linear_model's softmax estimators; "
                f"got {type(estimator).__name__}"
            )
        self._checked = clone_with(estimator)
        self._checked._check_options()
        rows: Rows
        if isinstance(X, Rows):
            rows, self.classes = self._checked._take_rows(X)
        else:
            examples = self._checked._examples(
                X, y, sample_weight, class_weight=estimator.class_weight
            )
            rows, self.classes = self._checked._rows(examples), examples.classes
        # Those of other processes, and with class weights on top, keep no sums.
        self.rows = SharedRows(rows) if isinstance(rows, LocalRows) else rows

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
