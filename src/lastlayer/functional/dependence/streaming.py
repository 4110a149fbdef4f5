"""H-scores of features that come batch by batch, from sums."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_finite, check_floating, check_labels
from lastlayer.functional.dependence.class_spread import ClassSpread
from lastlayer.functional.dependence.shrinkage import alpha_from_moments, shrunk_sum


class HScoreSums:
    r"""Sums over batches from which H-scores are read at any time.

    It keeps :math:`\sum f`, :math:`\sum f f^\top`, the sums per class and what Ledoit and Wolf's
    share needs, in float64 and relative to the first batch's mean: memory D^2 + K D whatever the
    number of examples. From the eigenvectors of the correlation matrix the values are those of
    :func:`~lastlayer.functional.dependence.h_score` up to rounding; as the sums square the
    features' condition number, directions with a relative singular value below about 1e-6 are
    lost, where the SVD of all features at hand keeps them.

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
            self._start(rows)
        rows = rows - self._shift
        square = rows.square().sum(1)
        self.num_examples += len(rows)
        self._sum += rows.sum(0)
        self._outer += rows.T @ rows
        self._square_rows += square @ rows
        self._square += square.sum()
        self._fourth += square.square().sum()
        labels, inverse, counts = torch.unique(target, return_inverse=True, return_counts=True)
        places = self._places([int(label) for label in labels])
        sums = rows.new_zeros(len(labels), rows.shape[1]).index_add_(0, inverse, rows)
        self._class_sum.index_add_(0, places, sums)
        self._class_count.index_add_(0, places, counts.double())

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
        return self.spread(rtol=rtol).between.sum()

    def shrunk_h_score(self) -> Tensor:
        """The H-score with Ledoit and Wolf's shrunk covariance.

        Returns:
            A 0-d float64 tensor.

        Raises:
            ValueError: if fewer than two examples were added.
        """
        spread = self.spread(standardize=False)
        return shrunk_sum(spread, self._alpha(spread))

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
        n = self.num_examples
        if n < 2:
            raise ValueError(f"an H-score needs at least 2 examples; got {n}")
        mean = self._sum / n
        covariance = self._outer / n - torch.outer(mean, mean)
        means = self._class_sum / self._class_count[:, None] - mean
        deviation = covariance.diagonal().clamp_min(0.0).sqrt()
        magnitude = self._shift.abs() + (self._outer.diagonal() / n).sqrt()
        varies = deviation > 8 * torch.finfo(torch.float64).eps * magnitude
        scale = deviation[varies] if standardize else torch.ones_like(deviation[varies])
        covariance = covariance[varies][:, varies] / torch.outer(scale, scale)
        variance, directions = torch.linalg.eigh(covariance)
        cut_off = max(n, len(mean)) * torch.finfo(torch.float64).eps if rtol is None else rtol
        keep = variance > cut_off * (variance[-1] if len(variance) else 0.0)
        variance, directions = variance[keep].flip(0), directions[:, keep].flip(1)
        along = (means[:, varies] / scale) @ directions
        weight = self._class_count[:, None] / n
        between = (weight * along.square()).sum(0) / variance
        if len(self._classes) == 1:
            between = torch.zeros_like(between)
        return ClassSpread(variance, between, n, len(mean), len(self._classes))

    def _alpha(self, spread: ClassSpread) -> Tensor:
        """Ledoit and Wolf's share; the fourth powers are moved from the shift to the mean."""
        n, mean = self.num_examples, self._sum / self.num_examples
        square = mean.square().sum()
        fourth = (
            self._fourth
            + 4 * mean @ self._outer @ mean
            - 4 * mean @ self._square_rows
            + 2 * square * self._square
            - 3 * n * square.square()
        )
        return alpha_from_moments(spread.variance, spread.num_features, n, fourth)

    def _start(self, rows: Tensor) -> None:
        self._shift = rows.mean(0)
        width = rows.shape[1]
        self._sum, self._square_rows = rows.new_zeros(width), rows.new_zeros(width)
        self._outer = rows.new_zeros(width, width)
        self._square, self._fourth = rows.new_zeros(()), rows.new_zeros(())
        self._class_sum, self._class_count = rows.new_zeros(0, width), rows.new_zeros(0)

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
