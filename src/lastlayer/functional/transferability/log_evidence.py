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
)


class Evidence(NamedTuple):
    r"""Evidence of every column of the responses.

    Attributes:
        log_evidence: (T,) nats per example.
        prior_precision: (T,) a of the weights.
        noise_precision: (T,) b of the responses.
    """

    log_evidence: Tensor
    prior_precision: Tensor
    noise_precision: Tensor


def log_me(features: Tensor, target: Tensor, *, max_rounds: int = 11) -> Tensor:
    r"""Logarithm of the maximum evidence (LogME) of labels given features.

    Mean of :func:`log_evidence` over the columns of the one-hot label, or of real responses.
    Higher is better; it may be negative, and it compares features on one data set only. A model's
    own predictions as labels score above the true ones.

    Args:
        features: (N, D), finite, N >= 2; computed in float64.
        target: (N,) integer labels, not necessarily contiguous, or (N,) or (N, T) floating-point
            responses.
        max_rounds: the largest number of fixed-point rounds.

    Returns:
        A 0-d float64 tensor, nats per example and column.

    Raises:
        TypeError: if ``features`` are not floating-point.
        ValueError: if a shape does not fit, N < 2, or a number is not finite.

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
    features: Tensor, responses: Tensor, *, max_rounds: int = 11, tolerance: float = 1e-6
) -> Evidence:
    r"""Largest log evidence of responses under a Bayesian linear model, per example.

    With features F of singular values :math:`s_i`, weights
    :math:`w \sim N(0, a^{-1} I)` and :math:`y \sim N(F w, b^{-1} I)`,

    .. math:: \tfrac1n \log N\bigl(y; 0, b^{-1} I + a^{-1} F F^\top\bigr) = \tfrac1n \Bigl(
        \tfrac D2 \log a + \tfrac n2 \log b - \tfrac12 \sum_{i=1}^D \log(a + b s_i^2)
        - \tfrac b2 \|F m - y\|^2 - \tfrac a2 \|m\|^2 - \tfrac n2 \log 2\pi \Bigr)

    with the posterior mean m. The sum runs over all D directions: those without variance cancel
    :math:`(D - \operatorname{rank} F) \tfrac12 \log a` (a sum over the rank only is far off where
    n < D). From a = b = 1 the rounds set :math:`a = \gamma / \|m\|^2` and
    :math:`b = (n - \gamma) / \|F m - y\|^2` with
    :math:`\gamma = \sum_i b s_i^2 / (a + b s_i^2)`.

    Args:
        features: (N, D), finite, N >= 2; computed in float64.
        responses: (N, T), finite.
        max_rounds: the largest number of rounds.
        tolerance: stop when no logarithm of a precision changes by more.

    Returns:
        The :class:`Evidence`, float64. The value belongs to the precisions returned, whether or
        not the rounds have converged.

    Raises:
        TypeError: if a tensor is not floating-point.
        ValueError: if a shape or an option does not fit, or a number is not finite.

    Example:
        >>> evidence = log_evidence(torch.ones(4, 1), torch.tensor([[1.0], [2.0], [3.0], [2.0]]))
        >>> evidence.log_evidence
        tensor([-1.6135], dtype=torch.float64)

    Source: You et al., ICML 2021.
    """
    _check(features, responses, max_rounds)
    y = responses.detach().double()
    left, singular, _ = torch.linalg.svd(features.detach().double(), full_matrices=False)
    keep = singular > max(features.shape) * torch.finfo(torch.float64).eps * singular[:1]
    left, square = left[:, keep], singular[keep].square()[:, None]
    explained = left.T @ y
    unexplained = (y - left @ explained).square().sum(0)
    a, b = torch.ones_like(unexplained), torch.ones_like(unexplained)
    for _ in range(max_rounds):
        new_a, new_b = _round(a, b, square, explained, unexplained, len(y))
        change = torch.maximum((new_a / a).log().abs(), (new_b / b).log().abs())
        a, b = new_a, new_b
        if bool((change <= tolerance).all()):
            break
    weight, residual = _fit(a, b, square, explained, unexplained)
    ratio = torch.log1p(b * square / a).sum(0)  # of the D directions the others add log a - log a
    value = 0.5 * len(y) * (b.log() - math.log(2 * math.pi)) - 0.5 * ratio
    value = value - 0.5 * b * residual - 0.5 * a * weight
    return Evidence(value / len(y), a, b)


# A perfect fit asks for infinite b, useless features for infinite a.
_SMALLEST, _LARGEST = 1e-12, 1e12


def _round(
    a: Tensor, b: Tensor, square: Tensor, explained: Tensor, unexplained: Tensor, n: int
) -> tuple[Tensor, Tensor]:
    weight, residual = _fit(a, b, square, explained, unexplained)
    degrees = (b * square / (a + b * square)).sum(0)
    tiny = torch.finfo(torch.float64).tiny
    new_a = (degrees / weight.clamp_min(tiny)).clamp(_SMALLEST, _LARGEST)
    new_b = ((n - degrees) / residual.clamp_min(tiny)).clamp(_SMALLEST, _LARGEST)
    return torch.where(weight > 0, new_a, a), new_b


def _fit(
    a: Tensor, b: Tensor, square: Tensor, explained: Tensor, unexplained: Tensor
) -> tuple[Tensor, Tensor]:
    """Squared norms of the posterior mean and of its residual, both (T,)."""
    weight = (b * square.sqrt() * explained / (a + b * square)).square().sum(0)
    residual = (a * explained / (a + b * square)).square().sum(0) + unexplained
    return weight, residual


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
