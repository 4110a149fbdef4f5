"""What all softmax estimators share: scikit-learn's conventions around a solver."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from typing import Any, NamedTuple, Self, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from lastlayer._checks import is_number, is_whole
from lastlayer._docs import show_keywords
from lastlayer.linear_model import block_reductions
from lastlayer.linear_model.class_weights import check_class_weights, weigh_classes
from lastlayer.linear_model.inputs import (
    Examples,
    as_array,
    check_dense,
    check_examples,
    checked_array,
)
from lastlayer.linear_model.penalties import Penalty, Smoothing, Tikhonov
from lastlayer.linear_model.problem import SoftmaxProblem, centered
from lastlayer.linear_model.rows.memory import LocalRows
from lastlayer.linear_model.rows.protocol import Rows
from lastlayer.linear_model.shared_arguments import (
    DEFAULTS,
    HINTS,
    SharedArguments,
    whole_doc,
)
from lastlayer.linear_model.solvers.progress import Callback, Progress

_SEPARATED = "separates the classes: there is no optimum without a penalty; lower C"


class RowMeasures(NamedTuple):
    """How well a model predicts the labels of rows.

    Attributes:
        nll: mean negative log-likelihood, in nats.
        standard_error: of that mean.
        accuracy: share of the rows that are right.
        num_rows: how many there are.
    """

    nll: float
    standard_error: float
    accuracy: float
    num_rows: int


class LinearSoftmax(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # untyped bases
    r"""Base of the estimators: multinomial logistic regression on features.

    .. math:: F(W, b) = \sum_i s_i \left[\mathrm{lse}(z_i) - z_{i, y_i}\right]
        + \frac{1}{2 C} \|L W\|^2, \qquad z_i = W^\top a_i + b

    C means what it means in scikit-learn's ``LogisticRegression``. Both of two classes have
    weights, so that for two classes the model is that of ``LogisticRegression(C=2 * C)``.

    A subclass takes these arguments as ``**shared: Unpack[SharedArguments]`` and gets signature and
    docs of them from here; other defaults are given with it:
    ``class Mine(LinearSoftmax, max_iter=100)``.

    Args:
        C: inverse strength of the penalty, above 0; infinity for none.
        penalty_operator: L of the penalty, (m, d), such as
            :func:`lastlayer.linear_model.discrete_laplacian`; the identity if None.
        fit_intercept: whether there is an intercept; it has no penalty.
        class_weight: as in ``sklearn.linear_model.LogisticRegression``.
        tol: relative gap to the minimum, certified by a dual bound, at which to stop. Without such
            a bound (no penalty or a singular one) the largest entry of the gradient
            relative to that at zero weights.
        max_iter: most iterations.
        warm_start: whether to start from the last fit, if its weights are better than zero.
        device: where to compute, such as ``"cuda"``; where the features are if None.
        callback: called with a :class:`lastlayer.linear_model.Record` every iteration; returning
            True stops.

    Attributes:
        classes_: (K,) labels, sorted.
        coef_: (K, d) weights; two rows for two classes.
        intercept_: (K,).
        n_iter_: iterations taken.
        converged_: whether ``tol`` was reached.
        gap_: the certified relative gap; infinity where there is no bound.
        history_: lists by quantity, see :class:`lastlayer.linear_model.Record`.
    """

    C: float
    penalty_operator: Any
    fit_intercept: bool
    class_weight: Any
    tol: float
    max_iter: int
    warm_start: bool
    device: Any
    callback: Callback | None

    _defaults: SharedArguments = DEFAULTS

    def __init__(self, C: float = 1.0, **shared: Unpack[SharedArguments]) -> None:
        self.C = C
        for name, default in self._defaults.items():
            setattr(self, name, shared.pop(name, default))  # type: ignore[misc]
        if shared:
            raise TypeError(f"{type(self).__name__} has no arguments {sorted(shared)}")

    def __init_subclass__(cls, **defaults: Unpack[SharedArguments]) -> None:
        super().__init_subclass__()
        cls._defaults = cls._defaults | defaults
        if "__init__" in vars(cls):
            show_keywords(cls.__init__, cls._defaults, HINTS)
        if cls.__doc__ and LinearSoftmax.__doc__:
            cls.__doc__ = whole_doc(cls.__doc__, LinearSoftmax.__doc__)

    # -- fitting ----------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the weights.

        Args:
            X: (n, d) features: array, CSR matrix, or tensor on any device, dense or sparse;
                float32 and float64 are kept.
            y: (n,) labels.
            sample_weight: (n,) weights of at least 0.

        Returns:
            The estimator.

        Raises:
            ValueError: if an argument or an option does not fit.
        """
        self._check_options()
        examples = self._examples(X, y, sample_weight, class_weight=self.class_weight)
        return self._fit_rows(self._rows(examples), examples.classes)

    def fit_rows(self, rows: Rows, classes: Any = None) -> Self:
        """Fit the weights to rows that are not in memory, or not of this process alone.

        Args:
            rows: such as :func:`lastlayer.linear_model.rows.rows_from_files` gives.
            classes: (K,) labels by class index, sorted; what the rows know if None.

        Returns:
            The estimator.

        Raises:
            ValueError: if there are fewer than two classes, or an option does not fit.
        """
        self._check_options()
        return self._fit_rows(*self._take_rows(rows, classes))

    def _take_rows(self, rows: Rows, classes: Any = None) -> tuple[Rows, NDArray[Any]]:
        """Return rows with class weights and their classes; note what the features are."""
        known = rows.classes
        if classes is None:
            classes = () if known is None else known
        classes = np.asarray(classes)
        if classes.ndim != 1 or len(classes) < 2:
            raise ValueError(f"classes must be at least 2 labels; got {classes.tolist()}")
        if known is not None and not np.array_equal(classes, known):
            raise ValueError(
                f"classes must be those of the rows, {known.tolist()}; got {classes.tolist()}"
            )
        self.n_features_in_ = rows.num_features
        # As scikit-learn does where it is handed the features themselves.
        if rows.feature_names is not None:
            self.feature_names_in_ = np.asarray(rows.feature_names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return weigh_classes(rows, classes, self.class_weight), classes

    def _examples(self, X: Any, y: Any, sample_weight: Any = None, **how: Any) -> Examples:
        """Return checked examples; ``how`` as in :func:`check_examples`."""
        return check_examples(self, X, y, sample_weight=sample_weight, device=self.device, **how)

    def _rows(self, examples: Examples) -> LocalRows:
        return examples.rows()

    def _fit_rows(self, rows: Rows, classes: NDArray[Any]) -> Self:
        problem = SoftmaxProblem(
            rows, len(classes), self._penalty(rows), fit_intercept=self.fit_intercept
        )
        progress = Progress(problem, float(self.tol), self.callback)
        theta = self._solve(problem, self._start(problem, classes), progress)
        rows.clear()
        separated = math.isinf(self.C) and problem.separates(theta)
        self.classes_ = classes
        self._keep(problem, theta)
        self.n_iter_ = max(1, len(progress.records) - 1)
        self.history_ = progress.columns()
        self.converged_ = progress.proven and not separated
        self.gap_ = progress.records[-1].gap
        if not (self.converged_ or progress.stopped):
            advice = _SEPARATED if separated else self._advice(progress)
            warnings.warn(f"{type(self).__name__} {advice}", ConvergenceWarning, stacklevel=3)
        return self

    @abstractmethod
    def _solve(self, problem: SoftmaxProblem, theta: Tensor, progress: Progress) -> Tensor:
        """Return the minimizer."""

    def _start(self, problem: SoftmaxProblem, classes: NDArray[Any]) -> Tensor:
        shape = (len(classes), problem.rows.num_features)
        if not self.warm_start or getattr(self, "coef_", np.empty(0)).shape != shape:
            return problem.start()
        return problem.warm_start(*self._parameters(problem.rows))

    def _keep(self, problem: SoftmaxProblem, theta: Tensor) -> None:
        weights, intercept = (centered(part) for part in problem.split(theta))
        self.coef_ = weights.T.contiguous().cpu().numpy()
        self.intercept_ = intercept.cpu().numpy()

    def _parameters(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return weights (d, K) and intercept (K,) as the rows are computed with."""
        parts = (torch.from_numpy(part.copy()) for part in (self.coef_.T, self.intercept_))
        weights, intercept = (part.to(rows.device, rows.dtype) for part in parts)
        return weights, intercept

    def _penalty(self, rows: Rows) -> Penalty:
        strength = 0.0 if math.isinf(self.C) else 1.0 / float(self.C)
        if self.penalty_operator is None:
            return Tikhonov(strength)
        operator = as_array(self.penalty_operator)
        if sparse.issparse(operator):
            operator = operator.toarray()
        operator = torch.as_tensor(operator).to(rows.device, rows.dtype)
        if operator.dim() != 2 or operator.shape[1] != rows.num_features:
            raise ValueError(
                "penalty_operator must be (m, n_features) with "
                f"n_features={rows.num_features}; got {tuple(operator.shape)}"
            )
        return Smoothing(strength, operator)

    def _check_options(self) -> None:
        for name, low in (("C", 0.0), ("tol", None), ("max_iter", 0)):
            value = getattr(self, name)
            if not (is_number(value) and (value >= 0 if low is None else value > low)):
                least = "at least 0" if low is None else f"above {low:g}"
                raise ValueError(f"{name} must be {least}; got {value!r}")
        if not is_whole(self.max_iter):
            raise ValueError(f"max_iter must be a whole number; got {self.max_iter!r}")
        check_class_weights(self.class_weight)

    def _advice(self, progress: Progress) -> str:
        last = progress.records[-1]
        reached = f"a certified relative gap of {last.gap:.1e}"
        if math.isinf(last.gap):
            reached = f"a largest gradient entry of {last.gradient:.1e}"
        ran_out = len(progress.records) > self.max_iter
        why = f"max_iter={self.max_iter} is used up" if ran_out else "rounding ends the progress"
        more = "raise max_iter or tol" if ran_out else "raise tol, or use float64"
        advice = f"stopped at {reached}, tol={float(self.tol):g}: {why}; {more}"
        if self.C >= 1e4 or math.isinf(self.C):
            advice += "; classes that can be separated have no optimum without a penalty: lower C"
        return advice

    # -- prediction -------------------------------------------------------------------------------

    def _logits(self, X: Any) -> Any:
        check_is_fitted(self)
        if not isinstance(X, Tensor):
            rows = checked_array(self, X, reset=False)
            return np.asarray(rows @ self.coef_.T + self.intercept_)
        # Half precision holds features, but not logits.
        least = torch.float32 if X.is_floating_point() else torch.float64
        dtype = torch.promote_types(X.dtype, least)
        if X.layout is not torch.strided:
            return torch.from_numpy(self._logits(as_array(X))).to(X.device, dtype)
        check_dense(self, X)
        weights = torch.from_numpy(self.coef_).to(X.device, dtype)
        return X.to(dtype) @ weights.T + torch.from_numpy(self.intercept_).to(X.device, dtype)

    def decision_function(self, X: Any) -> Any:
        """Return the logits, (n, K); their difference, (n,), for two classes."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_log_proba(self, X: Any) -> Any:
        """Return log-probabilities, (n, K): a tensor of a tensor."""
        logits = self._logits(X)
        if isinstance(logits, Tensor):
            return torch.log_softmax(logits, dim=1)
        return torch.log_softmax(torch.from_numpy(logits), dim=1).numpy()

    def predict_proba(self, X: Any) -> Any:
        """Return probabilities, (n, K): a tensor of a tensor."""
        logits = self._logits(X)
        if isinstance(logits, Tensor):
            return torch.softmax(logits, dim=1)
        return torch.softmax(torch.from_numpy(logits), dim=1).numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable labels, (n,)."""
        logits = self._logits(X)
        best = logits.argmax(1)
        rows = best.cpu().numpy() if isinstance(best, Tensor) else best
        return np.asarray(self.classes_[rows])

    def measure_rows(self, rows: Rows) -> RowMeasures:
        """Return how well the labels of rows are predicted, in one pass over them.

        Every row counts once, whatever its weight.

        Args:
            rows: of the features and the classes fitted to; see ``lastlayer.linear_model.rows``.

        Raises:
            ValueError: if the number of features or the classes are others.
        """
        check_is_fitted(self)
        if rows.num_features != self.n_features_in_:
            raise ValueError(
                f"rows must have the {self.n_features_in_} features fitted to; "
                f"got {rows.num_features}"
            )
        if rows.classes is not None and not np.array_equal(rows.classes, self.classes_):
            raise ValueError(
                f"rows must be of the classes fitted to, {self.classes_.tolist()}; "
                f"got {rows.classes.tolist()}"
            )
        sums = rows.reduce(block_reductions.prediction_sums, *self._parameters(rows))
        count, loss, squares, right = (float(part) for part in sums)
        spread = max(0.0, squares - loss * loss / count)
        error = math.sqrt(spread / (count - 1) / count) if count > 1 else math.inf
        return RowMeasures(loss / count, error, right / count, int(count))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
