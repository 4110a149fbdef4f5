"""H-scores of features that come batch by batch, from sums."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_finite, check_floating, check_labels
from lastlayer.functional.dependence.class_spread import ClassSpread
from lastlayer.functional.dependence.shrinkage import alpha_from_moments, shrunk_sum


class _Products(NamedTuple):
    """A symmetric matrix with the features' variances as eigenvalues, and the classes beside it.

    Attributes:
        matrix: (m, m) covariance of the features; or products of all examples, divided by n.
        classes: (m, K) class means times the roots of the class's shares; or 1 / sqrt(n_y) at the
            examples of class y, else 0.
        of_examples: whether it is the latter.
    """

    matrix: Tensor
    classes: Tensor
    of_examples: bool

    def h_score(self, cut_off: float) -> Tensor | None:
        """Return the H-score, or None if eigenvalues may lie below ``cut_off`` of the largest."""
        matrix = self.matrix
        if self.of_examples:  # centered examples have no constant direction: one is put in
            matrix = matrix + matrix.trace() / len(matrix) ** 2
        least = cut_off * self.matrix.trace() * torch.eye(len(matrix)).to(matrix)
        if torch.linalg.cholesky_ex(matrix - least).info:
            return None
        if self.of_examples or self.classes.shape[1] == 1:
            # As many directions as examples explain any label.
            return matrix.new_tensor(self.classes.shape[1] - 1)
        return self._solved(matrix)

    def shrunk_h_score(self, alpha: Tensor, sphere: Tensor) -> Tensor:
        """Return it for a matrix shrunk by ``alpha`` toward ``sphere`` times the identity."""
        eye = torch.eye(len(self.matrix)).to(self.matrix)
        solved = self._solved((1.0 - alpha) * self.matrix + sphere * eye)
        if self.of_examples:
            return self.classes.shape[1] - sphere * solved
        return (1.0 - alpha) * solved

    def _solved(self, matrix: Tensor) -> Tensor:
        """Return the trace of classes^T matrix^-1 classes."""
        factor = torch.linalg.cholesky(matrix)
        solved: Tensor = torch.linalg.solve_triangular(factor, self.classes, upper=False)
        return solved.square().sum()


class HScoreSums:
    r"""Sums over batches from which H-scores are read at any time.

    It keeps :math:`\sum f`, :math:`\sum f f^\top`, the sums per class and what Ledoit and Wolf's
    share needs, in float64 and relative to the first batch's mean: memory D^2 + K D whatever the
    number of examples. Up to D examples it keeps them instead, N D numbers, and reads the scores
    from their N x N products. The values are those of
    :func:`~lastlayer.functional.dependence.h_score` up to rounding; as products square the
    features' condition number, directions with a relative singular value below about 1e-6 are
    lost, where the SVD of all features at hand keeps them.

    Scores are solutions of linear systems, by Cholesky's factors. Directions, by eigenvectors, are
    looked for only where some may have to be left out: they cost ten times as much.

    Example:
        >>> features = torch.tensor([[0.0], [2.0], [2.0], [4.0]])
        >>> target = torch.tensor([0, 0, 1, 1])
        >>> sums = HScoreSums()
        >>> for batch in (slice(0, 3), slice(3, 4)):
        ...     sums.update(features[batch], target[batch])
        >>> sums.h_score()
        tensor(0.5000, dtype=torch.float64)
    """

    def __init__(self) -> None:
        self.num_examples = 0
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._classes: dict[int, int] = {}
        self._shift = torch.empty(0)

    def update(self, features: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            features: (B, D), finite; D is that of the first batch.
            target: (B,) integer labels.

        Raises:
            TypeError: if ``features`` are not floating-point or ``target`` not integers.
            ValueError: if a shape does not fit or a feature is not finite.
        """
        self._check(features, target)
        if len(features) == 0:
            return
        rows = features.detach().double()
        if self.num_examples == 0:
            self._shift = rows.mean(0)
            self._sum = torch.zeros_like(self._shift)
        rows = rows - self._shift
        self.num_examples += len(rows)
        self._sum += rows.sum(0)
        self._kept.append((rows, target))
        if self.num_examples > rows.shape[1]:
            for batch in self._kept:
                self._add(*batch)
            self._kept = []

    def h_score(self, *, rtol: float | None = None) -> Tensor:
        """The H-score of everything added so far.

        Args:
            rtol: directions with an eigenvalue of the correlation matrix of at most ``rtol`` times
                the largest are left out; None for max(N, D) times the float64 epsilon.

        Returns:
            A 0-d float64 tensor.

        Raises:
            ValueError: if fewer than two examples were added.
        """
        return self.h_score_and_rank(rtol=rtol)[0]

    def h_score_and_rank(self, *, rtol: float | None = None) -> tuple[Tensor, int]:
        """The H-score, and in how many directions the features vary, see :meth:`h_score`."""
        products = self._products(standardize=True)
        score = products.h_score(self._cut_off(rtol))
        if score is not None:
            return score, len(products.matrix) - products.of_examples
        found = self.spread(rtol=rtol)
        return found.between.sum(), found.rank

    def shrunk_h_score(self) -> Tensor:
        """The H-score with Ledoit and Wolf's shrunk covariance.

        Returns:
            A 0-d float64 tensor.

        Raises:
            ValueError: if fewer than two examples were added.
        """
        products = self._products(standardize=False)
        matrix, width = products.matrix, len(self._shift)
        alpha = alpha_from_moments(matrix, width, self.num_examples, self._fourth_powers())
        sphere = alpha * matrix.trace() / width
        if sphere > 1e4 * self._cut_off(None) * matrix.trace():  # far above what is left out
            return products.shrunk_h_score(alpha, sphere)
        return shrunk_sum(self.spread(standardize=False), alpha)

    def spread(self, *, standardize: bool = True, rtol: float | None = None) -> ClassSpread:
        """The between-class spread along the principal directions.

        Args:
            standardize: divide every column by its standard deviation first.
            rtol: as of :meth:`h_score`.

        Returns:
            The :class:`~lastlayer.functional.dependence.class_spread.ClassSpread`.

        Raises:
            ValueError: if fewer than two examples were added.
        """
        matrix, classes, of_examples = self._products(standardize)
        variance, directions = torch.linalg.eigh(matrix)
        keep = variance > self._cut_off(rtol) * (variance[-1] if len(variance) else 0.0)
        variance, directions = variance[keep].flip(0), directions[:, keep].flip(1)
        between = (directions.T @ classes).square().sum(1)
        if not of_examples:
            between = between / variance
        if classes.shape[1] == 1:
            between = torch.zeros_like(between)
        num_features, num_classes, n = self.sizes
        return ClassSpread(variance, between, n, num_features, num_classes)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Numbers of features, of classes and of examples."""
        if self._kept:
            classes = len(torch.unique(torch.cat([target for _, target in self._kept])))
        else:
            classes = len(self._classes)
        return len(self._shift), classes, self.num_examples

    def _cut_off(self, rtol: float | None) -> float:
        largest = max(self.num_examples, len(self._shift))
        return largest * torch.finfo(torch.float64).eps if rtol is None else rtol

    def _products(self, standardize: bool) -> _Products:
        n = self.num_examples
        if n < 2:
            raise ValueError(f"an H-score needs at least 2 examples; got {n}")
        if self._kept:
            rows, target = self._rows()
            square = (rows + self._mean).square().sum(0)
            varies, scale = self._scale(rows.square().mean(0), square, standardize)
            rows = rows[:, varies] / scale
            labels, inverse, counts = torch.unique(target, return_inverse=True, return_counts=True)
            classes = F.one_hot(inverse, len(labels)) / counts.double().sqrt()
            return _Products(rows @ rows.T / n, classes, of_examples=True)
        covariance = self._outer / n - torch.outer(self._mean, self._mean)
        varies, scale = self._scale(covariance.diagonal(), self._outer.diagonal(), standardize)
        covariance = covariance[varies][:, varies] / torch.outer(scale, scale)
        means = self._class_sum / self._class_count[:, None] - self._mean
        classes = (self._class_count[:, None] / n).sqrt() * means[:, varies] / scale
        return _Products(covariance, classes.T, of_examples=False)

    def _scale(self, variance: Tensor, square: Tensor, standardize: bool) -> tuple[Tensor, Tensor]:
        """Return which columns vary, and what these are divided by."""
        deviation = variance.clamp_min(0.0).sqrt()
        magnitude = self._shift.abs() + (square / self.num_examples).sqrt()
        varies = deviation > 8 * torch.finfo(torch.float64).eps * magnitude
        scale = deviation[varies]
        return varies, scale if standardize else torch.ones_like(scale)

    def _fourth_powers(self) -> Tensor:
        """Sum of the fourth powers of the centered rows' lengths."""
        if self._kept:
            return self._rows()[0].square().sum(1).square().sum()
        mean, square = self._mean, self._mean.square().sum()
        return (
            self._fourth
            + 4 * mean @ self._outer @ mean
            - 4 * mean @ self._square_rows
            + 2 * square * self._square
            - 3 * self.num_examples * square.square()
        )

    @property
    def _mean(self) -> Tensor:
        """The mean, less the shift."""
        return self._sum / self.num_examples

    def _rows(self) -> tuple[Tensor, Tensor]:
        """Return the centered examples that are kept, and their labels."""
        rows, target = (torch.cat(parts) for parts in zip(*self._kept, strict=True))
        return rows - self._mean, target

    def _add(self, rows: Tensor, target: Tensor) -> None:
        """Add a batch to the sums of second and higher order."""
        if not self._classes:
            width = rows.shape[1]
            self._outer, self._square_rows = rows.new_zeros(width, width), rows.new_zeros(width)
            self._square, self._fourth = rows.new_zeros(()), rows.new_zeros(())
            self._class_sum, self._class_count = rows.new_zeros(0, width), rows.new_zeros(0)
        square = rows.square().sum(1)
        self._outer += rows.T @ rows
        self._square_rows += square @ rows
        self._square += square.sum()
        self._fourth += square.square().sum()
        labels, inverse, counts = torch.unique(target, return_inverse=True, return_counts=True)
        places = self._places([int(label) for label in labels])
        sums = rows.new_zeros(len(labels), rows.shape[1]).index_add_(0, inverse, rows)
        self._class_sum.index_add_(0, places, sums)
        self._class_count.index_add_(0, places, counts.double())

    def _places(self, labels: list[int]) -> Tensor:
        """Rows of the labels among the class sums; new labels get new rows."""
        for label in labels:
            self._classes.setdefault(label, len(self._classes))
        new = len(self._classes) - len(self._class_count)
        pad = self._class_sum.new_zeros(new, self._class_sum.shape[1])
        self._class_sum = torch.cat([self._class_sum, pad])
        self._class_count = torch.cat([self._class_count, pad.new_zeros(new)])
        places = [self._classes[label] for label in labels]
        return torch.tensor(places, device=self._shift.device)

    def _check(self, features: Tensor, target: Tensor) -> None:
        check_floating("features", features)
        width = self._shift.shape[0] if self.num_examples else None
        if features.dim() != 2 or features.shape[1] == 0 or width not in (None, features.shape[1]):
            wanted = "(B, D) with D >= 1" if width is None else f"(B, {width})"
            raise ValueError(f"features must have shape {wanted}; got {tuple(features.shape)}")
        check_labels("target", target, len(features))
        check_finite("features", features)
