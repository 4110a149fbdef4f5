"""The estimator that learns from a stream, by stochastic gradient descent."""

from __future__ import annotations

from typing import Any, Self, Unpack

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor

from lastlayer._checks import check_count
from lastlayer.linear_model.base import LinearSoftmax
from lastlayer.linear_model.inputs import Examples, check_positive_or_auto, check_share
from lastlayer.linear_model.problem import SoftmaxProblem
from lastlayer.linear_model.rows.memory import LocalRows
from lastlayer.linear_model.shared_arguments import SharedArguments
from lastlayer.linear_model.solvers.progress import Progress
from lastlayer.linear_model.solvers.sgd import descend, safe_rate, solve_sgd


class SGDSoftmax(LinearSoftmax, tol=1e-2, max_iter=100):
    r"""Softmax classifier by stochastic gradient descent: the rival that learns from a stream.

    A fit averages the iterates, the last ones most, and looks at the objective after every epoch.

    Args:
        class_weight: as in ``sklearn.linear_model.LogisticRegression``; not ``"balanced"`` for
            ``partial_fit``.
        max_iter: most epochs.
        batch_size: rows of a step.
        learning_rate: first step, of the mean loss, halved after every epoch that brings nothing;
            ``"auto"`` is as large as the rows' second moment, the loss's curvature and the size of
            the batches allow, for ``partial_fit`` one over the rows' mean squared norm.
        momentum: in [0, 1).
        random_state: seed of the order of the rows.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> model = SGDSoftmax(tol=0.2, max_iter=500, batch_size=16, random_state=0).fit(X, y)
        >>> model.score(X, y) > 0.95
        True
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        batch_size: int = 256,
        learning_rate: float | str = "auto",
        momentum: float = 0.9,
        random_state: Any = None,
        **shared: Unpack[SharedArguments],
    ) -> None:
        super().__init__(C, **shared)
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.random_state = random_state

    def _check_options(self) -> None:
        super()._check_options()
        check_count("batch_size", self.batch_size)
        check_positive_or_auto("learning_rate", self.learning_rate)
        check_share("momentum", self.momentum, 0, 1)

    def _advice(self, progress: Progress) -> str:
        advice = super()._advice(progress)
        start, *epochs = (record.objective for record in progress.records)
        if self.learning_rate != "auto" and epochs and min(epochs) >= start:
            rate = float(self.learning_rate)
            advice += f"; no epoch came below the start: lower learning_rate={rate:g}"
        return advice

    def _generator(self) -> torch.Generator:
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        return torch.Generator().manual_seed(int(seed))

    def _rows(self, examples: Examples) -> LocalRows:
        # One block: batches are drawn from all rows, whatever their order.
        return examples.rows(block_rows=len(examples.target))

    def _solve(self, problem: SoftmaxProblem, theta: Tensor, progress: Progress) -> Tensor:
        self.rows_seen_ = problem.total_weight  # for partial_fit to go on
        self._velocity = torch.zeros_like(theta).cpu().numpy()
        return solve_sgd(
            problem,
            theta,
            progress,
            max_iter=int(self.max_iter),
            batch_size=int(self.batch_size),
            learning_rate=self.learning_rate,
            momentum=float(self.momentum),
            generator=self._generator(),
        )

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Take one epoch of steps on some rows.

        The penalty is shared out over the rows seen so far: a stream of N rows in all has, once
        seen, the penalty of a fit to N rows.

        Args:
            X: (n, d) features.
            y: (n,) labels.
            classes: (K,) all labels there will be; needed in the first call.
            sample_weight: (n,) weights of at least 0.

        Returns:
            The estimator; in float64 once any rows were.

        Raises:
            ValueError: if an argument or an option does not fit; for ``class_weight="balanced"``.
            FloatingPointError: if the steps lead to weights that are not finite.
        """
        self._check_options()
        if isinstance(self.class_weight, str):
            raise ValueError(
                "class_weight='balanced' is not for partial_fit, which would balance every batch "
                "by itself; pass a dictionary, such as "
                "compute_class_weight('balanced', classes=classes, y=y) gives of a large sample"
            )
        first = not hasattr(self, "coef_")
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit")
        same = first or classes is None or np.array_equal(np.unique(classes), self.classes_)
        if not same:
            raise ValueError(
                f"classes={list(classes)!r} are not those of the first call, "
                f"{list(self.classes_)!r}"
            )
        examples = self._examples(
            X,
            y,
            sample_weight,
            class_weight=self.class_weight,
            classes=np.unique(classes) if first else self.classes_,
            reset=first,
        )
        if not first:
            examples = examples.promoted(self.coef_.dtype)
        rows = self._rows(examples)
        problem = SoftmaxProblem(
            rows, len(examples.classes), self._penalty(rows), fit_intercept=self.fit_intercept
        )
        self._descend(problem, first)
        self.classes_ = examples.classes
        return self

    def _descend(self, problem: SoftmaxProblem, first: bool) -> None:
        if first:
            self.n_iter_ = 0
            self._keep(problem, torch.zeros_like(problem.start()))
        # Centering by the rows of one call would make intercepts of different calls incomparable.
        problem.square_sums += problem.total_weight * problem.mean.square()
        problem.mean.zero_()
        theta = problem.join(*self._parameters(problem.rows))
        rate = safe_rate(problem) if self.learning_rate == "auto" else float(self.learning_rate)
        # The penalty is shared out over all rows seen.
        problem.total_weight += getattr(self, "rows_seen_", 0.0)
        velocity = torch.zeros_like(theta)
        if hasattr(self, "_velocity"):
            velocity = torch.from_numpy(self._velocity).to(theta)
        theta, velocity, _ = descend(
            problem,
            theta,
            velocity,
            rate,
            float(self.momentum),
            batch_size=int(self.batch_size),
            generator=self._generator(),
        )
        if not bool(torch.isfinite(theta).all()):
            raise FloatingPointError(
                "the weights are no longer finite; scale the features, or take a smaller "
                f"learning_rate than {rate:g}"
            )
        self.rows_seen_ = problem.total_weight
        self._velocity = velocity.cpu().numpy()  # an array, as pickles and skops know
        self._keep(problem, theta)
        self.n_iter_ += 1
