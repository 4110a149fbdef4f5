"""Alternating conditional expectations: the modes of dependence by orthogonal iteration."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lastlayer._checks import check_at_least, check_count, check_labels
from lastlayer.functional.dependence.modes import (
    Modes,
    available_modes,
    column_signs,
    reduced_dependence,
    signed_modes,
)

Regressor = Callable[[Tensor], Tensor]


def ace(
    joint: Tensor,
    num_modes: int = 1,
    *,
    sweeps: int = 1000,
    tolerance: float = 1e-12,
    generator: torch.Generator | None = None,
) -> Modes:
    r"""Find the leading modes of dependence by alternating conditional expectations.

    From random zero-mean functions f, whitened under :math:`P_X`, each sweep takes

    .. math::
        g(y) = \operatorname{E}[f(X) \mid Y = y], \text{ whitened under } P_Y; \qquad
        f(x) = \operatorname{E}[g(Y) \mid X = x], \text{ whitened under } P_X,

    by QR. The correlations :math:`\operatorname{E} f g^\top` approach
    :math:`\operatorname{diag}(\sigma_1 \dots \sigma_k)`, their off-diagonal part by the factor
    :math:`(\sigma_{k+1} / \sigma_k)^2` per sweep; a last rotation by their singular vectors
    separates the modes of the span. One mode is Breiman and Friedman's algorithm.

    Args:
        joint: (|X|, |Y|) probabilities or counts, rows X, columns Y.
        num_modes: number k of modes.
        sweeps: the largest number of sweeps.
        tolerance: stop when no sine between the spans of f before and after a sweep is larger.
        generator: source of the start; None for torch's default.

    Returns:
        The :class:`~lastlayer.functional.dependence.modes.Modes`, float64, with the signs of
        :func:`~lastlayer.functional.dependence.dependence_modes`.

    Raises:
        ValueError: if ``joint`` is no table, has fewer modes, or an option does not fit.

    Example:
        >>> joint = torch.tensor([[4.0, 1.0, 1.0], [1.0, 3.0, 2.0], [0.0, 1.0, 5.0]])
        >>> ace(joint, num_modes=2, generator=torch.Generator().manual_seed(0)).sigma
        tensor([0.6603, 0.3497], dtype=torch.float64)

    Source: Breiman, Friedman, JASA 80(391), 1985; Huang, Makur, Wornell, Zheng, arXiv 1911.09105.
    """
    check_count("sweeps", sweeps)
    check_at_least("tolerance", tolerance, 0.0)
    check_count("num_modes", num_modes)
    matrix, of_x, of_y = reduced_dependence(joint)
    k = available_modes(matrix, num_modes)
    start = torch.randn(len(matrix), k, generator=generator, dtype=torch.float64)
    f = torch.linalg.qr(start.to(matrix.device)).Q
    for _ in range(sweeps):
        previous = f
        f, g = ace_sweep(matrix, f)
        if bool(torch.linalg.matrix_norm(f - previous @ (previous.T @ f), 2) <= tolerance):
            break
    left, sigma, right = torch.linalg.svd(f.T @ matrix @ g)
    return signed_modes(sigma, f @ left, g @ right.T, of_x, of_y)


def ace_sweep(matrix: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """Take one sweep of :func:`ace` from (rows, k) orthonormal columns f; return the new f and g.

    ``matrix`` is :func:`~lastlayer.functional.dependence.modes.reduced_dependence`'s. Without the
    whitening every column would turn to the first mode.
    """
    g = torch.linalg.qr(matrix.T @ f).Q
    return torch.linalg.qr(matrix @ g).Q, g


def ace_regression(
    regress_on_x: Regressor,
    regress_on_y: Regressor,
    num_examples: int,
    num_modes: int = 1,
    *,
    sweeps: int = 20,
    generator: torch.Generator | None = None,
) -> Modes:
    r"""Alternating conditional expectations on samples, with a regression for each of them.

    For continuous variables :math:`\operatorname{E}[\,\cdot \mid X]` is an estimate: a regression
    of the responses on X, here a callback. Functions are represented by their values on the N
    samples, centered and whitened by QR after every regression. A regression that fits noise gives
    correlations that are too large; let it predict out of sample where that matters.

    Args:
        regress_on_x: maps (N, k) responses to (N, k) fitted values of their expectation given X.
        regress_on_y: the same given Y; :func:`class_mean_regressor` for labels.
        num_examples: N.
        num_modes: k.
        sweeps: number of sweeps.
        generator: source of the start; None for torch's default.

    Returns:
        The :class:`~lastlayer.functional.dependence.modes.Modes`; f and g are (N, k) values on the
        samples, of mean 0, variance 1 and uncorrelated columns.

    Raises:
        ValueError: if a count does not fit, or a regression returns another shape, NaN, or fewer
            than k independent functions, as class means do for k >= K.

    Example:
        >>> target = torch.tensor([0, 0, 1, 1, 2, 2])
        >>> on_label = class_mean_regressor(target)
        >>> seed = torch.Generator().manual_seed(0)
        >>> round(float(ace_regression(on_label, on_label, 6, generator=seed).sigma), 6)
        1.0

    Source: Breiman, Friedman, JASA 80(391), 1985.
    """
    for name, value in {"num_modes": num_modes, "sweeps": sweeps}.items():
        check_count(name, value)
    if num_examples <= num_modes:
        raise ValueError(f"num_examples must exceed num_modes={num_modes}; got {num_examples}")
    f = torch.randn(num_examples, num_modes, generator=generator, dtype=torch.float64)
    for _ in range(sweeps):
        g = _whitened("regress_on_y", regress_on_y(f), f)
        f = _whitened("regress_on_x", regress_on_x(g), g)
    left, sigma, right = torch.linalg.svd(f.T @ g / num_examples)
    f, g = f @ left, g @ right.T
    sign = column_signs(f)
    return Modes(sigma.clamp(0.0, 1.0), f * sign, g * sign)


def class_mean_regressor(target: Tensor) -> Regressor:
    """Return the regression on labels, which replaces responses by the means of their class.

    Args:
        target: (N,) integer labels; they need not be contiguous.

    Returns:
        A function of (N, k) responses that returns (N, k) class means.

    Raises:
        TypeError: if ``target`` does not hold integers.

    Example:
        >>> class_mean_regressor(torch.tensor([0, 0, 7]))(torch.tensor([[1.0], [3.0], [5.0]])).T
        tensor([[2., 2., 5.]])
    """
    check_labels("target", target, target.numel())
    labels, inverse, counts = torch.unique(target, return_inverse=True, return_counts=True)

    def regress(responses: Tensor) -> Tensor:
        sums = responses.new_zeros(len(labels), responses.shape[1])
        sums.index_add_(0, inverse, responses)
        return sums.div(counts[:, None])[inverse]

    return regress


def _whitened(name: str, values: Tensor, like: Tensor) -> Tensor:
    if values.shape != like.shape or not bool(torch.isfinite(values).all()):
        raise ValueError(
            f"{name} must return finite fitted values of shape {tuple(like.shape)}; "
            f"got shape {tuple(values.shape)}"
        )
    values = values.to(like)
    # Left in, the mean would become the first mode: a constant has correlation 1.
    basis: Tensor
    basis, triangle = torch.linalg.qr(values - values.mean(0))
    scale = triangle.diagonal().abs()
    if bool(scale.min() <= len(values) * torch.finfo(values.dtype).eps * scale.max()):
        raise ValueError(
            f"{name} must return {values.shape[1]} linearly independent functions that are not "
            "constant; ask for fewer modes"
        )
    return basis * math.sqrt(len(values))
