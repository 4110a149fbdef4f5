"""LogME: the evidence of labels under a Bayesian linear model on features."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import (
    check_count,
    check_finite,
    check_floating,
    check_labelled_features,
    check_positive,
)


class Evidence(NamedTuple):
    r"""Evidence of every column of the responses.

    Attributes:
        log_evidence: (T,) nats per example.
        prior_precision: (T,) a of the weights; infinite where features are worth nothing.
        noise_precision: (T,) b of the responses.
    """

    log_evidence: Tensor
    prior_precision: Tensor
    noise_precision: Tensor


def log_me(features: Tensor, target: Tensor, *, max_rounds: int = 100) -> Tensor:
    r"""Logarithm of the maximum evidence (LogME) of labels given features.

    Mean of :func:`log_evidence` over the columns of the one-hot label, or of real responses.
    Higher is better; it may be negative, and it compares features on one data set only. A model's
    own predictions as labels score above the true ones. It does not change when the features are
    multiplied by a number, and is never below that of features that are worth nothing.

    Args:
        features: (N, D), finite, N >= 2; computed in float64.
        target: (N,) integer labels, not necessarily contiguous, or (N,) or (N, T) floating-point
            responses.
        max_rounds: as of :func:`log_evidence`.

    Returns:
        A 0-d float64 tensor, nats per example and column.

    Raises:
        TypeError: if ``features`` are not floating-point.
        ValueError: if a shape does not fit, N < 2, a number is not finite, or real responses are 0
            throughout.

    Example:
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> log_me(features, torch.tensor([0, 0, 1, 1]))
        tensor(-0.7871, dtype=torch.float64)

    Source: You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning",
    ICML 2021.
    """
    if target.is_floating_point():
        responses = target if target.dim() == 2 else target[:, None]
    else:
        check_labelled_features(features, target)
        labels, inverse = torch.unique(target, return_inverse=True)
        responses = F.one_hot(inverse, len(labels)).double()
    return log_evidence(features, responses, max_rounds=max_rounds).log_evidence.mean()


def log_evidence(
    features: Tensor, responses: Tensor, *, max_rounds: int = 100, tolerance: float = 1e-8
) -> Evidence:
    r"""Largest log evidence of responses under a Bayesian linear model, per example.

    With features F of singular values :math:`s_i`, weights
    :math:`w \sim N(0, a^{-1} I)` and :math:`y \sim N(F w, b^{-1} I)`,

    .. math:: \tfrac1n \log N\bigl(y; 0, b^{-1} I + a^{-1} F F^\top\bigr) = \tfrac12 \Bigl(
        \log b - \log 2\pi - \tfrac bn Q(\lambda)
        - \tfrac1n \sum_i \log(1 + \lambda s_i^2) \Bigr), \quad \lambda = \tfrac ba, \quad
        Q(\lambda) = \min_w \|F w - y\|^2 + \tfrac1\lambda \|w\|^2

    For a given :math:`\lambda` the best b is :math:`n / Q(\lambda)`, which leaves a function of
    one number. It may have several maxima, so it is scanned from 0 to where it can only fall, and
    the best place is narrowed down by golden sections. The maximum is free in a and b: features
    times c have the same evidence, with :math:`c^2 a`; responses times c have :math:`\log c` less.

    The published program has up to 11 rounds of a fixed point instead, from a = b = 1. They end
    near the maximum where features and responses are of ordinary size, short of it elsewhere.

    Args:
        features: (N, D), finite, N >= 2; computed in float64.
        responses: (N, T), finite, no column 0 throughout.
        max_rounds: the largest number of golden sections after the scan.
        tolerance: stop when every :math:`\log \lambda` is known to so much.

    Returns:
        The :class:`Evidence`, float64. Its values belong to the precisions returned. The noise's
        variance is at least 1e-12 of the responses' mean square, for a perfect fit has no maximum.

    Raises:
        TypeError: if a tensor is not floating-point.
        ValueError: if a shape or an option does not fit, a number is not finite, or a column of
            the responses is 0 throughout.

    Example:
        >>> evidence = log_evidence(torch.ones(4, 1), torch.tensor([[1.0], [2.0], [3.0], [2.0]]))
        >>> evidence.log_evidence
        tensor([-1.6135], dtype=torch.float64)

    Source: You et al., ICML 2021.
    """
    _check(features, responses, max_rounds)
    check_positive("tolerance", tolerance)
    y = responses.detach().double()
    size = y.square().mean(0).sqrt()
    if not bool(size.all()):
        column = int((size == 0).nonzero()[0])
        raise ValueError(f"responses: column {column} is 0 throughout; its evidence has no maximum")
    y = y / size
    left, singular, _ = torch.linalg.svd(features.detach().double(), full_matrices=False)
    largest = singular[0]
    keep = singular > max(features.shape) * torch.finfo(torch.float64).eps * largest
    left, square = left[:, keep], (singular[keep] / largest).square()[:, None]
    explained = left.T @ y
    unexplained = (y - left @ explained).square().sum(0)
    profile = _Profile(square, explained.square(), unexplained, len(y))
    log_ratio = _maximum(profile, max_rounds, tolerance)
    value, b = profile(log_ratio)
    a = torch.where(log_ratio.isneginf(), torch.inf, b / log_ratio.exp() * largest.square())
    return Evidence(value - size.log(), a / size.square(), b / size.square())


# A perfect fit asks for infinite precision of the noise.
_LARGEST_PRECISION = 1e12


class _Profile(NamedTuple):
    """Evidence with the best b, of responses with mean square 1 and a largest singular value of 1.

    Attributes:
        square: (r, 1) squared singular values.
        explained: (r, T) squared coordinates of the responses along their directions.
        unexplained: (T,) squared norm of the rest.
        n: number of examples.
    """

    square: Tensor
    explained: Tensor
    unexplained: Tensor
    n: int

    def __call__(self, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (T,) evidence and the (T,) best b at the (T,) logarithms of b / a."""
        odds = log_ratio.exp() * self.square
        residual = (self.explained / (1.0 + odds)).sum(0) + self.unexplained
        b = (self.n / residual).clamp_max(_LARGEST_PRECISION)
        penalty = b * residual + odds.log1p().sum(0)
        return 0.5 * (b.log() - math.log(2.0 * math.pi) - penalty / self.n), b

    def grid(self) -> list[float]:
        """Logarithms of b / a that are dense enough to see every maximum."""
        if not len(self.square):
            return []
        # Below it is linear in b / a; above, more of b / a costs more than it explains.
        high = math.log(_LARGEST_PRECISION * self.n / float(self.square.min()))
        return torch.arange(_LOWEST, high + _STEP, _STEP).tolist()


# Each direction's terms rise or fall over a width of several units of the logarithm.
_LOWEST, _STEP = math.log(1e-6), 0.5
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def _maximum(profile: _Profile, max_rounds: int, tolerance: float) -> Tensor:
    """Return the (T,) logarithms of the best b / a; minus infinity where 0 is best."""
    best = torch.full_like(profile.unexplained, -torch.inf)
    value = profile(best)[0]
    for place in profile.grid():
        there = profile(torch.full_like(best, place))[0]
        best, value = torch.where(there > value, place, best), torch.maximum(value, there)
    low, high = best - _STEP, best + _STEP
    width = 2.0 * _STEP
    for _ in range(max_rounds):
        if width <= tolerance:
            break
        width *= _GOLDEN
        left, right = high - width, low + width
        rises = profile(left)[0] < profile(right)[0]
        low, high = torch.where(rises, left, low), torch.where(rises, high, right)
    return (low + high) / 2.0


def _check(features: Tensor, responses: Tensor, max_rounds: int) -> None:
    check_count("max_rounds", max_rounds)
    check_floating("features", features)
    check_floating("responses", responses)
    if features.dim() != 2 or features.shape[1] == 0 or len(features) < 2:
        raise ValueError(
            f"features must have shape (N, D) with N >= 2, D >= 1; got {tuple(features.shape)}"
        )
    if responses.dim() != 2 or len(responses) != len(features) or responses.shape[1] == 0:
        raise ValueError(
            f"responses must have shape ({len(features)}, T); got {tuple(responses.shape)}"
        )
    check_finite("features", features)
    check_finite("responses", responses)
