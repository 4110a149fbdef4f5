"""H-score with a covariance shrunk toward the sphere, for few examples."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_finite, check_floating, check_probability
from lastlayer.functional.dependence.class_spread import ClassSpread, class_spread


def ledoit_wolf_alpha(features: Tensor) -> Tensor:
    r"""Ledoit and Wolf's share of the sphere in a shrunk covariance.

    With the covariance S (divisor n) of the centered rows :math:`x_i` and
    :math:`\mu = \operatorname{tr} S / d`,

    .. math:: \alpha = \min\Bigl(1, \frac{\tfrac{1}{n^2} \sum_i \|x_i x_i^\top - S\|_F^2}
        {\|S - \mu I\|_F^2}\Bigr),

    the minimizer, up to estimates, of the expected squared error of
    :math:`(1 - \alpha) S + \alpha \mu I`.

    Args:
        features: (N, D), finite, N >= 1; computed in float64.

    Returns:
        A 0-d float64 tensor in [0, 1]; 0 where S is a multiple of the identity already.

    Raises:
        TypeError: if ``features`` are not floating-point.
        ValueError: if the shape does not fit or a feature is not finite.

    Example:
        >>> features = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
        >>> ledoit_wolf_alpha(features)
        tensor(0.9444, dtype=torch.float64)

    Source: Ledoit, Wolf, J. Multivariate Analysis 88(2), 2004.
    """
    check_floating("features", features)
    if features.dim() != 2 or features.numel() == 0:
        raise ValueError(
            f"features must have shape (N, D), neither of them 0; got {tuple(features.shape)}"
        )
    check_finite("features", features)
    centered = features.detach().double()
    centered = centered - centered.mean(0)
    n, width = features.shape
    products = centered @ centered.T if n < width else centered.T @ centered
    fourth = centered.square().sum(1).square().sum()
    return alpha_from_moments(products / n, width, n, fourth)


def shrunk_h_score(features: Tensor, target: Tensor, *, alpha: float | None = None) -> Tensor:
    r"""H-score with a shrunk covariance.

    .. math:: H_\alpha = \operatorname{tr}\bigl(S_\alpha^{-1} (1 - \alpha)
        \operatorname{Cov}(\operatorname{E}[f \mid Y])\bigr), \qquad
        S_\alpha = (1 - \alpha) S + \alpha \tfrac{\operatorname{tr} S}{d} I

    In the directions of S it is a sum in which a direction of variance :math:`\lambda_i` counts
    :math:`(1 - \alpha) \lambda_i / ((1 - \alpha) \lambda_i + \alpha \mu)` times its share of
    :func:`~lastlayer.functional.dependence.h_score`: no inverse is formed. It depends on the
    units of the features, unlike the H-score, and is never above it.

    Args:
        features: (N, D), finite, N >= 2; computed in float64.
        target: (N,) integer labels; they need not be contiguous.
        alpha: share of the sphere in [0, 1]; None for :func:`ledoit_wolf_alpha`.

    Returns:
        A 0-d float64 tensor.

    Raises:
        TypeError: if ``features`` are not floating-point or ``target`` not integers.
        ValueError: if a shape does not fit, N < 2, ``alpha`` is outside [0, 1] or a feature is not
            finite.

    Example:
        >>> features = torch.tensor([[0.0, 1.0], [2.0, 1.0], [2.0, -1.0], [4.0, -1.0]])
        >>> target = torch.tensor([0, 0, 1, 1])
        >>> shrunk_h_score(features, target, alpha=0.5)
        tensor(0.5161, dtype=torch.float64)

    Source: Ibrahim et al., "Newer is not always better", NeurIPS 2021.
    """
    spread = class_spread(features, target, standardize=False)
    if alpha is None:
        return shrunk_sum(spread, ledoit_wolf_alpha(features))
    check_probability("alpha", alpha)
    return shrunk_sum(spread, spread.variance.new_tensor(alpha))


def alpha_from_moments(
    matrix: Tensor, num_features: int, num_examples: int, fourth: Tensor
) -> Tensor:
    r"""Return Ledoit and Wolf's share, 0-d in [0, 1].

    ``matrix`` is symmetric with the eigenvalues of S that are not 0 among its own, ``fourth`` is
    :math:`\sum_i \|x_i\|^4` of the centered rows.
    """
    mean = matrix.trace() / num_features
    eye = torch.eye(len(matrix)).to(matrix)
    missing = num_features - len(matrix)
    from_sphere = (matrix - mean * eye).square().sum() + missing * mean.square()
    noise = (fourth / num_examples - matrix.square().sum()) / num_examples
    noise = torch.minimum(noise.clamp_min(0.0), from_sphere)
    return torch.where(noise > 0, noise / from_sphere.where(noise > 0, 1.0), 0.0)


def shrunk_sum(spread: ClassSpread, alpha: Tensor) -> Tensor:
    """Return the shrunk H-score of a spread not standardized, by a 0-d share of the sphere."""
    kept = (1.0 - alpha) * spread.variance
    sphere = alpha * spread.variance.sum() / spread.num_features
    return (spread.between * kept / (kept + sphere)).sum()
