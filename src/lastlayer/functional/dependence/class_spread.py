"""The whitened between-class spread of features, from which every one-sided H-score is read."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lastlayer._checks import check_labeled_features


class ClassSpread(NamedTuple):
    r"""Principal directions of features, and how far the class means lie along each.

    Attributes:
        variance: (r,) variances :math:`\lambda_i` (divisor n) above 0 along the directions.
        between: (r,) variances of the class means along them, in units of :math:`\lambda_i`; they
            lie in [0, 1] and their sum is the H-score.
        num_examples: n.
        num_features: d.
        num_classes: number of labels with at least one example.
    """

    variance: Tensor
    between: Tensor
    num_examples: int
    num_features: int
    num_classes: int

    @property
    def rank(self) -> int:
        """Number of directions in which the features vary."""
        return len(self.variance)


def class_spread(
    features: Tensor, target: Tensor, *, standardize: bool = True, rtol: float | None = None
) -> ClassSpread:
    r"""Spread of the class means along the principal directions of features.

    With the centered (N, D) features :math:`F = U S V^\top` (thin SVD, float64) and the class means
    :math:`m_y` of the rows of U, direction i has the between-class share
    :math:`\sum_y n_y m_{yi}^2`. No covariance matrix is formed or inverted.

    ``standardize`` divides every column by its standard deviation first, so that the cut-off does
    not depend on the units of the columns; the sum of the shares stays the same. Directions with a
    singular value of at most ``rtol`` times the largest count as constant; None is max(N, D) times
    the float64 epsilon.
    """
    check_labeled_features(features, target)
    centered = features.detach().double()
    magnitude = centered.abs().amax(0)
    centered = centered - centered.mean(0)
    deviation = centered.square().mean(0).sqrt()
    # What is left of a constant column is the rounding of its mean, not a direction.
    varies = deviation > 8 * torch.finfo(torch.float64).eps * magnitude
    centered = centered[:, varies]
    if standardize:
        centered = centered / deviation[varies]
    left, singular, _ = torch.linalg.svd(centered, full_matrices=False)
    if rtol is None:
        rtol = max(features.shape) * torch.finfo(torch.float64).eps
    keep = singular > rtol * singular[:1]  # none if nothing varies
    left, singular = left[:, keep], singular[keep]
    labels, inverse, counts = torch.unique(target, return_inverse=True, return_counts=True)
    sums = left.new_zeros(len(labels), left.shape[1]).index_add_(0, inverse, left)
    between = (sums.square() / counts[:, None]).sum(0)
    if len(labels) == 1:  # the rounding of the overall mean
        between = torch.zeros_like(between)
    variance = singular.square() / len(features)
    return ClassSpread(variance, between, len(features), features.shape[1], len(labels))
