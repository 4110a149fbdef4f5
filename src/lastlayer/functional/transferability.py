"""Which features, or which source model, will serve a new task: scores without training.

``log_me`` and ``trans_rate`` take features and target labels; ``leep`` and ``nce`` what a source
model predicts. The H-scores are in :mod:`lastlayer.functional.dependence`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import (
    check_choice,
    check_count,
    check_finite,
    check_floating,
    check_labeled_features,
    check_labels,
    check_positive,
)
from lastlayer.functional.dependence.table import joint_table


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
        check_labeled_features(features, target)
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


def leep(*, source_prob: Tensor, target: Tensor) -> Tensor:
    r"""Log expected empirical prediction (LEEP).

    .. math:: \frac1n \sum_i \log \sum_z \hat P(y_i \mid z)\, \theta_z(x_i), \qquad
        \hat P(y, z) = \frac1n \sum_i [y_i = y]\, \theta_z(x_i)

    It judges on the examples that :math:`\hat P` comes from: H(Y) + LEEP is an optimistic
    estimate of a lower bound of the mutual information.

    Args:
        source_prob: (N, Z) :math:`\theta`, the source model's probabilities of its own labels;
            rows of sum 1.
        target: (N,) integer labels of the target task.

    Returns:
        A 0-d float64 tensor of at most 0; higher is better.

    Raises:
        TypeError: if ``source_prob`` is not floating-point or ``target`` not integers.
        ValueError: if a shape does not fit, there is no example, or a row is no distribution.

    Example:
        >>> prob = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
        >>> leep(source_prob=prob, target=torch.tensor([0, 0, 1]))
        tensor(-0.3853, dtype=torch.float64)

    Source: Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned
    Representations", ICML 2020.
    """
    theta = _distributions(source_prob)
    check_labels("target", target, len(theta))
    labels, inverse = torch.unique(target, return_inverse=True)
    table = theta.new_zeros(len(labels), theta.shape[1]).index_add_(0, inverse, theta)
    source = table.sum(0)
    given_source = table / source.where(source > 0, 1.0)  # a label never predicted weighs nothing
    return (given_source[inverse] * theta).sum(1).log().mean()


def nce(*, source_label: Tensor, target: Tensor) -> Tensor:
    r"""Negative conditional entropy (NCE) of a target label given a source label.

    .. math:: -\hat H(Y \mid Z) = \sum_{y, z} \hat P(y, z) \log \hat P(y \mid z)

    :math:`\hat H(Y) + \mathrm{NCE}` is the plug-in mutual information of the two labels. It is
    :func:`leep` with one-hot probabilities.

    Args:
        source_label: (N,) integers, the source model's predicted labels.
        target: (N,) integer labels of the target task.

    Returns:
        A 0-d float64 tensor of at most 0, nats; higher is better.

    Raises:
        TypeError: if the labels are not integers.
        ValueError: if the lengths differ or there is no example.

    Example:
        >>> nce(source_label=torch.tensor([0, 0, 1, 1]), target=torch.tensor([0, 0, 0, 1]))
        tensor(-0.3466, dtype=torch.float64)

    Source: Tran, Nguyen, Hassner, "Transferability and Hardness of Supervised Classification
    Tasks", ICCV 2019.
    """
    check_labels("source_label", source_label, source_label.numel())
    check_labels("target", target, source_label.numel())
    if target.numel() == 0:
        raise ValueError("target must hold at least one label; got none")
    source, label = (torch.unique(x, return_inverse=True)[1] for x in (source_label, target))
    joint = joint_table(source, label)
    given = joint / joint.sum(1, keepdim=True)
    return torch.xlogy(joint, given).sum()


def _distributions(source_prob: Tensor) -> Tensor:
    check_floating("source_prob", source_prob)
    if source_prob.dim() != 2 or source_prob.numel() == 0:
        raise ValueError(
            f"source_prob must have shape (N, Z), neither of them 0; got {tuple(source_prob.shape)}"
        )
    check_finite("source_prob", source_prob)
    theta = source_prob.detach().double()
    off = float((theta.sum(1) - 1).abs().max())
    if float(theta.min()) < 0 or off > 1e-2:  # half precision rounds by less
        raise ValueError(
            "source_prob must hold probabilities, rows of sum 1 (not logits); "
            f"got a smallest entry of {float(theta.min()):g}, a sum off by {off:g}"
        )
    return theta / theta.sum(1, keepdim=True)


WEIGHTINGS = ("frequency", "equal")

# Bounds the condition number of what a Cholesky factor is taken of.
_LARGEST_TRACE = 1e8


def trans_rate(
    features: Tensor,
    target: Tensor,
    *,
    weighting: str = "frequency",
    normalize_rows: bool = True,
    epsilon: float = 1e-4,
) -> Tensor:
    r"""Coding rate of features less the mean coding rate within classes.

    .. math:: R(F) - \sum_c w_c R(F_c), \qquad
        R(F) = \tfrac12 \log\det\bigl(I + \tfrac{1}{n \epsilon} F^\top F\bigr)

    with the overall mean taken from every row. The determinant is read from a
    Cholesky factor, or from singular values where the rows are long for :math:`\epsilon`.

    Args:
        features: (N, D), finite, N >= 2; computed in float64.
        target: (N,) integer labels; they need not be contiguous.
        weighting: ``"frequency"``, w = n_c / n, as the authors' code; ``"equal"``, w = 1 / K, as
            the Transfer-Learning-Library. They differ where the classes do in size.
        normalize_rows: scale the centered rows to length 1, as the authors' code; the other library
            does not.
        epsilon: squared distortion that the code allows, above 0.

    Returns:
        A 0-d float64 tensor, nats; higher is better; 0 for a single class.

    Raises:
        TypeError: if ``features`` are not floating-point or ``target`` not integers.
        ValueError: if an argument does not fit, N < 2, or a feature is not finite.

    Example:
        >>> target = torch.tensor([0, 1, 2])
        >>> trans_rate(torch.eye(3), target, normalize_rows=False, epsilon=1 / 3)
        tensor(0.1438, dtype=torch.float64)

    Source: Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022.
    """
    check_labeled_features(features, target)
    check_choice("weighting", weighting, WEIGHTINGS)
    check_positive("epsilon", epsilon)
    rows = features.detach().double()
    rows = rows - rows.mean(0)
    if normalize_rows:
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        rows = rows / length.where(length > 0, 1.0)
    labels, counts = torch.unique(target, return_counts=True)
    total = _coding_rate(rows, epsilon)
    within = torch.zeros_like(total)
    for label, count in zip(labels, counts, strict=True):
        share = int(count) / len(rows) if weighting == "frequency" else 1.0 / len(labels)
        within = within + share * _coding_rate(rows[target == label], epsilon)
    return total - within


def _coding_rate(rows: Tensor, epsilon: float) -> Tensor:
    n, width = rows.shape
    products = rows @ rows.T if n < width else rows.T @ rows
    matrix = products / (n * epsilon) + torch.eye(len(products)).to(products)
    if float(matrix.trace()) < _LARGEST_TRACE:
        factor: Tensor = torch.linalg.cholesky(matrix)
        return factor.diagonal().log().sum()
    # Squares would drown the small singular values.
    square = torch.linalg.svdvals(rows).square()
    return 0.5 * torch.log1p(square / (n * epsilon)).sum()


__all__ = ["WEIGHTINGS", "Evidence", "leep", "log_evidence", "log_me", "nce", "trans_rate"]
