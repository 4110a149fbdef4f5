r"""The one objective that all solvers minimize.

.. math:: F(W, b) = \sum_i s_i \left[\mathrm{lse}(z_i) - z_{i, y_i}\right]
    + \tfrac{1}{2} \mathrm{tr}(W^\top Q W), \qquad z_i = W^\top a_i + b, \quad
    Q = \tfrac{1}{C} L^\top L

That is scikit-learn's ``LogisticRegression`` times 1/C: the intercept b has no penalty, s are
sample weights. Both of two classes have weights, so a problem of two classes is that of
scikit-learn's binary model with half the penalty, C there being 2 C here.

Features are centered implicitly: with an intercept the problem in :math:`a - \bar a` has the same
weights, a Gram matrix that is far better conditioned, and an intercept that hardly depends on the
weights. Parameters are one matrix ``theta`` of d rows, and one more, the centered intercept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lastlayer.linear_model import block_reductions
from lastlayer.linear_model.penalties import Penalty
from lastlayer.linear_model.rows.protocol import Rows

#: Products of a Gram matrix (rows x features^2) that are not worth saving.
SAMPLED_ABOVE = 1e9


@dataclass(frozen=True)
class Evaluation:
    """The objective at one point.

    Attributes:
        value: F.
        bound: a number that F is above everywhere; minus infinity where none is known.
        gradient: of F, like theta; empty where it was not asked for.
        curvature: mean over rows and classes but one of the loss's second derivative, see
            ``mean_curvature``.
        rounding_error: what was taken off the bound for rounding errors.
    """

    value: float
    bound: float
    gradient: Tensor
    curvature: float
    rounding_error: float = 0.0


class SoftmaxProblem:
    """The objective on given rows.

    Args:
        rows: features, labels and weights.
        num_classes: K, at least 2.
        penalty: of the weights.
        fit_intercept: whether there is an intercept.
    """

    def __init__(
        self, rows: Rows, num_classes: int, penalty: Penalty, *, fit_intercept: bool = True
    ) -> None:
        self.rows = rows
        self.num_classes = num_classes
        self.penalty = penalty
        self.fit_intercept = fit_intercept
        by_class, features, squares, count = rows.reduce(block_reductions.totals, num_classes)
        self.num_rows = int(count)
        self.class_weight = by_class
        self.total_weight = float(by_class.sum())
        if not self.total_weight > 0:
            raise ValueError("weights must not be 0 for all rows")
        mean = features.sum(1) / self.total_weight
        self.mean = mean if fit_intercept else torch.zeros_like(squares)
        self._class_features = features - torch.outer(self.mean, by_class)
        squares = squares - self.total_weight * self.mean.square()
        self.square_sums = squares.clamp_min(0.0)
        self._gram: Tensor | None = None

    # -- parameters -------------------------------------------------------------------------------

    def start(self) -> Tensor:
        """Return zero weights and, if there is one, the intercept that is best for them."""
        like = self.mean
        weights = like.new_zeros((self.rows.num_features, self.num_classes))
        if not self.fit_intercept:
            return weights
        # A class without weight would have an intercept of minus infinity.
        share = self.class_weight.clamp_min(1e-3 * self.total_weight / self.num_classes).log()
        return torch.cat([weights, (share - share.mean()).unsqueeze(0)])

    def start_value(self) -> float:
        """Return F at the start, without a pass over the rows."""
        log_share = torch.log_softmax(self._start_logits(), dim=0)
        return -float(self.class_weight @ log_share)

    def start_gradient(self) -> Tensor:
        """Return F's gradient at the start, without a pass over the rows."""
        share = torch.softmax(self._start_logits(), dim=0)
        features = torch.outer(self._class_features.sum(1), share) - self._class_features
        return self.with_intercept(features, self.total_weight * share - self.class_weight)

    def gradient_noise(self) -> float:
        """Return the size of a rounding error in the gradient's entries.

        An entry is a sum of features times residuals, which are up to 1.
        """
        raw = self.square_sums + self.total_weight * self.mean.square()
        largest = max(float(raw.max()), self.total_weight) if len(raw) else self.total_weight
        return torch.finfo(raw.dtype).eps * math.sqrt(largest * self.total_weight)

    def _start_logits(self) -> Tensor:
        start = self.start()
        return start[-1] if self.fit_intercept else torch.zeros_like(self.class_weight)

    def warm_start(self, weights: Tensor, intercept: Tensor) -> Tensor:
        """Return theta of earlier weights, or the start where that has a lower objective.

        Weights that were found at another scale of the features are wrong for certain about many
        rows; from there the way is longer than from zero, by any factor.
        """
        theta = centered(self.join(weights, intercept))
        return theta if self.evaluate(theta).value <= self.start_value() else self.start()

    def split(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (d, K) and intercept (K,) of the features as they are."""
        weights = theta[: self.rows.num_features]
        if not self.fit_intercept:
            return weights, torch.zeros_like(weights[0]) if len(weights) else weights.sum(0)
        return weights, theta[-1] - self.mean @ weights

    def join(self, weights: Tensor, intercept: Tensor) -> Tensor:
        """Return theta of weights and intercept."""
        if not self.fit_intercept:
            return weights.clone()
        return torch.cat([weights, (intercept + self.mean @ weights).unsqueeze(0)])

    # -- the objective ----------------------------------------------------------------------------

    def evaluate(self, theta: Tensor, *, keep: bool = False) -> Evaluation:
        """Return value, bound and gradient; ``keep`` for products with the Hessian there."""
        weights, bias = self.split(theta)
        sums = self.rows.reduce(block_reductions.evaluate, weights, bias, keep)
        return self.assemble(weights, sums, self.mean)

    def assemble(self, weights: Tensor, sums: tuple[Tensor, ...], mean: Tensor) -> Evaluation:
        """Return the evaluation of the sums of ``evaluate`` over features less ``mean``."""
        loss, entropy, curvature, gradient, residual = sums
        gradient = gradient - torch.outer(mean, residual)
        pull = self.penalty.times(weights)
        value = float(loss) + self._penalty_value(weights, pull)
        bound, rounding_error = self._bound(float(entropy), gradient, residual)
        return Evaluation(
            value=value,
            bound=bound,
            rounding_error=rounding_error,
            gradient=self.with_intercept(gradient + pull, residual),
            curvature=self.mean_curvature(curvature),
        )

    def without_gradient(self, theta: Tensor, loss: float, curvature: float) -> Evaluation:
        """Return an evaluation of a loss that is known already, without gradient and bound."""
        weights = theta[: self.rows.num_features]
        value = loss + self._penalty_value(weights, self.penalty.times(weights))
        empty = theta.new_empty(0)
        return Evaluation(value=value, bound=-math.inf, gradient=empty, curvature=curvature)

    def mean_curvature(self, totals: Tensor) -> float:
        r"""Return the loss's curvature per unit of weight and class but one.

        .. math:: c = \max\left(\textstyle\sum_i s_i (1 - |p_i|^2), \sum_i s_i |p_i - e_{y_i}|^2
            \right) / (n (K - 1))

        The two are the traces of the Hessian, which is Fisher's information, and of its estimate
        from the labels; they agree in expectation where the probabilities are right. Where rows
        are wrong for certain the Hessian vanishes, though the loss bends before they are right:
        steps by the Hessian alone would go too far by any factor. Below a rounding error no
        curvature is known.
        """
        mean = float(totals.max()) / self.total_weight / (self.num_classes - 1)
        return max(mean, torch.finfo(self.rows.dtype).eps)

    def _penalty_value(self, weights: Tensor, pull: Tensor) -> float:
        return 0.5 * float((weights * pull).sum(dtype=torch.float64))

    def hessian_times(self, direction: Tensor) -> Tensor:
        """Return the Hessian's product with a direction, at the last evaluation that kept."""
        weights, bias = self.split(direction)
        along, sums = self.rows.reduce(block_reductions.hessian_times, weights, bias)
        along = along - torch.outer(self.mean, sums) + self.penalty.times(weights)
        return self.with_intercept(along, sums)

    def with_intercept(self, weights: Tensor, bias: Tensor) -> Tensor:
        """Return a matrix like theta of its parts; weights alone without an intercept."""
        return torch.cat([weights, bias.unsqueeze(0)]) if self.fit_intercept else weights

    def _bound(self, entropy: float, gradient: Tensor, residual: Tensor) -> tuple[float, float]:
        r"""Return a lower bound of F from the dual objective at the probabilities P.

        Beside it what was taken off for rounding errors.

        .. math:: D(P) = \sum_i s_i H(p_i) - \tfrac{1}{2} \mathrm{tr}(M^\top Q^{-1} M), \quad
            M = A^\top S (Y - P)

        With an intercept P must have the column sums of Y. A mixture of P with one distribution q
        for all rows has them; the entropy of a mixture is at least the mixture of the entropies,
        and centered features do not see q. What rounding may have added is taken off: every entry
        of M is a sum of products, each known to a rounding error.
        """
        kept, spread = 1.0, 0.0
        dual = -gradient
        if self.fit_intercept:
            found, wanted = self.class_weight + residual, self.class_weight
            kept = min(1.0, float((wanted / found.clamp_min(1e-300)).min()))
            if not kept > 0:
                return -math.inf, 0.0
            # wanted - kept * found is (1 - kept) * total * q.
            rest = (wanted - kept * found).clamp_min(0.0)
            total = float(rest.sum())
            if total > 0:
                spread = -float(torch.special.xlogy(rest, rest / total).sum())
            dual = (1 - kept) * self._class_features - kept * gradient
        eps = torch.finfo(gradient.dtype).eps
        norm = 2 * eps * math.sqrt(float(self.square_sums.sum()) * self.total_weight)
        pulled = self.penalty.conjugate(dual)
        if math.isinf(pulled):
            return -math.inf, 0.0
        further = (math.sqrt(pulled) + math.sqrt(self.penalty.largest_conjugate(norm))) ** 2
        rounding_error = further - pulled + 4 * eps * (abs(entropy) + self.total_weight)
        return kept * entropy + spread - pulled - rounding_error, rounding_error

    @property
    def certifies(self) -> bool:
        """Whether bounds can come near the optimum."""
        empty = self.fit_intercept and bool((self.class_weight <= 0).any())
        return not empty and math.isfinite(self.penalty.conjugate(self._class_features))

    def separates(self, theta: Tensor) -> bool:
        """Return whether every label wins its row: then F has no minimum without a penalty."""
        (count,) = self.rows.reduce(block_reductions.count_errors, *self.split(theta))
        return int(count) == 0

    # -- second derivatives -----------------------------------------------------------------------

    def gram(self) -> Tensor:
        """Return the Gram matrix of the centered features, (d, d); computed once."""
        if self._gram is None:
            self._gram = centered_gram(self.rows.reduce(block_reductions.gram), self.mean)
        return self._gram

    def sampled_gram(self) -> Tensor:
        """Return the Gram matrix, estimated from every so many rows if there are very many."""
        every = self.sampling
        if every == 1:
            return self.gram()
        return every * centered_gram(self.rows.reduce(block_reductions.gram, every), self.mean)

    @property
    def sampling(self) -> int:
        """Every how many rows a preconditioner looks at: so that 8 remain for each feature.

        All, where that costs little (below about 0.1 s), and all of rows that are not in memory.
        """
        width = self.rows.num_features
        if not self.rows.in_memory or self.num_rows * width**2 < SAMPLED_ABOVE:
            return 1
        return max(1, self.num_rows // (8 * width))


def centered(theta: Tensor) -> Tensor:
    """Return parameters less their mean over the classes, (K,) the last dimension.

    Softmax does not see what all classes share, and a penalty is least without it.
    """
    return theta - theta.mean(-1, keepdim=True)


def centered_gram(sums: tuple[Tensor, ...], mean: Tensor) -> Tensor:
    """Return the sum of s (a - mean)(a - mean)' of the sums of ``block_reductions.gram``."""
    gram, features, weight = sums
    cross = torch.outer(features.squeeze(1), mean)
    return gram - cross - cross.T + weight * torch.outer(mean, mean)
