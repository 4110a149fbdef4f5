"""H-scores of two feature functions, to train them by."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lastlayer._checks import check_floating
from lastlayer.functional.dependence.table import normalized_joint
from lastlayer.functional.numerics import at_least_float32


def two_sided_h_score(f: Tensor, g: Tensor, *, joint: Tensor | None = None) -> Tensor:
    r"""H-score of two feature functions.

    .. math:: H(f, g) = \operatorname{tr} \operatorname{Cov}(f, g) - \tfrac12
        \operatorname{tr}\bigl(\operatorname{E}[f f^\top] \operatorname{E}[g g^\top]\bigr)
        \le \tfrac12 \sum_{i \le k} \sigma_i^2

    For zero means it is :math:`\tfrac12 (\|\tilde B\|_F^2 - \|\tilde B - \Phi \Psi^\top\|_F^2)`
    with :math:`\Phi = \sqrt{P_X} f, \Psi = \sqrt{P_Y} g`: its maximizer spans the k leading modes
    of dependence. The second moments are not centered, which punishes a mean. For given f the best
    g yields half the one-sided score.

    On a batch the trace multiplies two estimates from the same examples and is biased: take large
    batches.

    Args:
        f: (N, k) values on paired samples, or (|X|, k) with ``joint``. Half precision is computed
            in float32.
        g: (N, k), or (|Y|, k) with ``joint``.
        joint: (|X|, |Y|) probabilities or counts, for exact expectations; None for the mean
            over samples.

    Returns:
        A 0-d tensor, differentiable in f and g; its negative is the loss.

    Raises:
        TypeError: if ``f`` or ``g`` is not floating-point.
        ValueError: if a shape does not fit.

    Example:
        >>> from lastlayer.functional.dependence import dependence_modes
        >>> joint = torch.tensor([[0.4, 0.1], [0.1, 0.4]])
        >>> sigma, f, g = dependence_modes(joint)
        >>> two_sided_h_score(f, sigma * g, joint=joint)
        tensor(0.1800, dtype=torch.float64)

    Source: Xu, Huang, Zheng, Wornell, Entropy 24(1), 2022.
    """
    moments = _moments(f, g, joint)
    return moments.covariance.sum() - 0.5 * (moments.ff * moments.gg).sum()


def nested_h_score(
    f: Tensor, g: Tensor, *, joint: Tensor | None = None, stop_gradient: bool = False
) -> Tensor:
    r"""Sum of the H-scores of the first 1, 2, ..., k functions.

    .. math:: \sum_{i=1}^k H\bigl(f_{[1..i]}, g_{[1..i]}\bigr)
        \le \tfrac12 \sum_{i=1}^k (k - i + 1) \sigma_i^2

    At the maximum each pair is a mode of dependence of its own, in order, with
    :math:`\operatorname{std} f_i \operatorname{std} g_i = \sigma_i`, where the plain score fixes
    their span only.

    Args:
        f: (N, k) values on paired samples, or (|X|, k) with ``joint``. Half precision is computed
            in float32.
        g: (N, k), or (|Y|, k) with ``joint``.
        joint: (|X|, |Y|) probabilities or counts, for exact expectations; None for the mean
            over samples.
        stop_gradient: let each prefix move its last pair only. The value and the optimum are the
            same; early modes are not disturbed by later ones. The gradient then belongs to no
            function, so line searches fail.

    Returns:
        A 0-d tensor, differentiable in f and g; its negative is the loss.

    Raises:
        TypeError: if ``f`` or ``g`` is not floating-point.
        ValueError: if a shape does not fit.

    Example:
        >>> from lastlayer.functional.dependence import dependence_modes
        >>> joint = torch.tensor([[4.0, 1.0, 1.0], [1.0, 3.0, 2.0], [0.0, 1.0, 5.0]])
        >>> sigma, f, g = dependence_modes(joint)
        >>> nested_h_score(f, sigma * g, joint=joint)
        tensor(0.4972, dtype=torch.float64)
        >>> 0.5 * (2 * sigma[0] ** 2 + sigma[1] ** 2)
        tensor(0.4972, dtype=torch.float64)

    Source: Xu, Zheng, "A Geometric Framework for Neural Feature Learning" (nested H-score).
    """
    moments = _moments(f, g, joint)
    k = f.shape[1]
    order = torch.arange(k, device=f.device)
    # A pair of columns takes part in every prefix that holds the later of the two.
    prefixes = (k - torch.maximum(order[:, None], order[None, :])).to(moments.ff)
    value = (prefixes.diagonal() * moments.covariance).sum()
    value = value - 0.5 * (prefixes * moments.ff * moments.gg).sum()
    if not stop_gradient:
        return value
    earlier = _moments(f, g, joint, detach_rows=True)
    last = earlier.covariance.sum() - (earlier.ff.triu(1) * earlier.gg.triu(1)).sum()
    last = last - 0.5 * (moments.ff.diagonal() * moments.gg.diagonal()).sum()
    return value.detach() + (last - last.detach())


class _Moments(NamedTuple):
    covariance: Tensor  # (k,) of f_i and g_i
    ff: Tensor  # (k, k) not centered
    gg: Tensor


def _moments(f: Tensor, g: Tensor, joint: Tensor | None, detach_rows: bool = False) -> _Moments:
    """Moments of f and g; ``detach_rows`` lets E[f_a f_b] depend on the second factor only."""
    check_floating("f", f)
    check_floating("g", g)
    table = None if joint is None else normalized_joint(joint)
    rows = (len(f), len(f)) if table is None else tuple(table.shape)
    if f.dim() != 2 or f.shape[0] != rows[0] or f.numel() == 0:
        raise ValueError(f"f must have shape ({rows[0]}, k) with k >= 1; got {tuple(f.shape)}")
    if g.shape != (rows[1], f.shape[1]):
        raise ValueError(f"g must have shape ({rows[1]}, {f.shape[1]}); got {tuple(g.shape)}")
    f, g = at_least_float32(f), at_least_float32(g)
    f_rows, g_rows = (f.detach(), g.detach()) if detach_rows else (f, g)
    if table is None:
        n = len(f)
        cross = (f * g).mean(0)
        return _Moments(cross - f.mean(0) * g.mean(0), f_rows.T @ f / n, g_rows.T @ g / n)
    table = table.to(f)
    p_x, p_y = table.sum(1), table.sum(0)
    cross = (f * (table @ g)).sum(0)
    ff, gg = (f_rows.T * p_x) @ f, (g_rows.T * p_y) @ g
    return _Moments(cross - (p_x @ f) * (p_y @ g), ff, gg)
