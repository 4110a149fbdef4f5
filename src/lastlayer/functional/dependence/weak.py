"""Softmax regression under weak dependence: weights from features, features from weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lastlayer._checks import check_finite, check_floating
from lastlayer.functional.dependence.table import dependence_matrix, normalized_joint


class SoftmaxLayer(NamedTuple):
    r"""A softmax layer :math:`q(y \mid x) \propto \exp(s(x)^\top v(y) + b(y))`.

    Attributes:
        weight: (|Y|, k) rows v(y), of mean 0 under :math:`P_Y`.
        bias: (|Y|,) b(y); -inf for classes of probability 0.
    """

    weight: Tensor
    bias: Tensor


def weak_softmax(joint: Tensor, features: Tensor) -> SoftmaxLayer:
    r"""Predict the trained softmax layer on given features, to first order in the dependence.

    .. math::
        v(y) = \operatorname{Cov}(s)^{-1} \operatorname{E}[s - \mu_s \mid Y = y], \qquad
        b(y) = \log P(y) - \mu_s^\top v(y)

    The layer is free up to a constant per example; this one has zero-mean weights. For labelled
    examples let each be its own value of X: ``joint`` of ``joint_table(torch.arange(N), target)``.

    Args:
        joint: (|X|, |Y|) probabilities or counts.
        features: (|X|, k) s(x). A singular covariance gives the weights of least norm.

    Returns:
        The :class:`SoftmaxLayer`, float64.

    Raises:
        TypeError: if ``features`` are not floating-point.
        ValueError: if a shape does not fit or a feature is not finite.

    Example:
        >>> layer = weak_softmax(torch.tensor([[3.0, 2.0], [2.0, 3.0]]), torch.eye(2)[:, :1])
        >>> layer.weight.T
        tensor([[ 0.4000, -0.4000]], dtype=torch.float64)
        >>> layer.bias
        tensor([-0.8931, -0.4931], dtype=torch.float64)

    Source: Xu, Huang, Zheng, Wornell, Entropy 24(1), 2022.
    """
    table = normalized_joint(joint)
    s = _function("features", features, len(table))
    p_x, p_y = table.sum(1), table.sum(0)
    mean = p_x @ s
    centered = s - mean
    class_mean = _conditional_mean(table.T, centered)
    weight = class_mean @ _inverse_covariance(p_x, centered)
    return SoftmaxLayer(weight, p_y.log() - weight @ mean)


def weak_features(joint: Tensor, layer: SoftmaxLayer) -> Tensor:
    r"""Predict the trained features in front of a given softmax layer, to first order.

    .. math::
        s(x) = \mu_s + \operatorname{Cov}(v)^{-1} \operatorname{E}[v - \mu_v \mid X = x], \qquad
        \mu_s = -\operatorname{Cov}(v)^{-1} \operatorname{E}[(v - \mu_v)\, d], \quad
        d(y) = b(y) - \log P(y)

    Args:
        joint: (|X|, |Y|) probabilities or counts.
        layer: weight (|Y|, k) and bias (|Y|,), finite where :math:`P(y) > 0`.

    Returns:
        (|X|, k) float64; the mean :math:`\mu_s` at values of probability 0.

    Raises:
        TypeError: if the layer is not floating-point.
        ValueError: if a shape does not fit or a number is not finite.

    Example:
        >>> joint = torch.tensor([[3.0, 2.0], [2.0, 3.0]])
        >>> weak_features(joint, SoftmaxLayer(torch.tensor([[1.0], [-1.0]]), torch.zeros(2))).T
        tensor([[ 0.2000, -0.2000]], dtype=torch.float64)

    Source: Xu, Huang, Zheng, Wornell, Entropy 24(1), 2022.
    """
    table = normalized_joint(joint)
    weight = _function("layer.weight", layer.weight, table.shape[1])
    p_y = table.sum(0)
    centered = weight - p_y @ weight
    shift = _bias_shift(p_y, layer.bias)
    inverse = _inverse_covariance(p_y, centered)
    mean = -inverse @ (centered.T @ (p_y * shift))
    return mean + _conditional_mean(table, centered) @ inverse


def weak_excess_loss(joint: Tensor, features: Tensor, layer: SoftmaxLayer) -> Tensor:
    r"""Predict how far the cross entropy of a softmax layer lies above H(Y \| X), to second order.

    .. math:: \operatorname{CE} - H(Y \mid X) \approx \tfrac12 \|\tilde B - \Phi \Psi^\top\|_F^2
        + \tfrac12 \operatorname{E}_Y\bigl[(\mu_s^\top \tilde v + \tilde d)^2\bigr]

    with the centered :math:`\Phi = \sqrt{P_X} \tilde s`, :math:`\Psi = \sqrt{P_Y} \tilde v` and
    :math:`d = b - \log P_Y`. With k free features it is at least
    :math:`\tfrac12 \sum_{i > k} \sigma_i^2`.

    Args:
        joint: (|X|, |Y|) probabilities or counts.
        features: (|X|, k) s(x).
        layer: weight (|Y|, k) and bias (|Y|,), finite where :math:`P(y) > 0`.

    Returns:
        A 0-d float64 tensor, nats.

    Raises:
        TypeError: if a tensor is not floating-point.
        ValueError: if a shape does not fit or a number is not finite.

    Example:
        >>> joint, features = torch.tensor([[3.0, 2.0], [2.0, 3.0]]), torch.eye(2)[:, :1]
        >>> weak_excess_loss(joint, features, weak_softmax(joint, features)) < 1e-12
        tensor(True)
        >>> flat = SoftmaxLayer(torch.zeros(2, 1), torch.zeros(2))
        >>> weak_excess_loss(joint, features, flat)
        tensor(0.0200, dtype=torch.float64)

    Source: Xu, Huang, Zheng, Wornell, Entropy 24(1), 2022.
    """
    table = normalized_joint(joint)
    s = _function("features", features, len(table))
    weight = _function("layer.weight", layer.weight, table.shape[1])
    if weight.shape[1] != s.shape[1]:
        raise ValueError(
            f"layer.weight must have {s.shape[1]} columns, as features have; got {weight.shape[1]}"
        )
    p_x, p_y = table.sum(1), table.sum(0)
    mean = p_x @ s
    centered = weight - p_y @ weight
    modeled = (p_x.sqrt()[:, None] * (s - mean)) @ (p_y.sqrt()[:, None] * centered).T
    left_over = (dependence_matrix(table) - modeled).square().sum()
    bias_error = centered @ mean + _bias_shift(p_y, layer.bias)
    return 0.5 * left_over + 0.5 * (p_y * bias_error.square()).sum()


def weak_hidden_weight(joint: Tensor, inputs: Tensor, layer: SoftmaxLayer, slope: Tensor) -> Tensor:
    r"""Predict a hidden layer's trained weight in front of a given softmax layer, to first order.

    For :math:`s(x) = a(W^\top t(x) + c)` with fixed inputs t, the regression of
    :func:`weak_features` on t, divided by the slope of the activation:

    .. math:: W^\top = J^{-1} (\Psi^\top \Psi)^{-1} \Psi^\top \tilde B\, T (T^\top T)^{-1},
        \qquad T = \sqrt{P_X} (t - \mu_t), \quad J = \operatorname{diag} a'(c)

    It holds while the activations stay in their linear regime: early in training.

    Args:
        joint: (|X|, |Y|) probabilities or counts.
        inputs: (|X|, m) t(x).
        layer: weight (|Y|, k) and bias (|Y|,).
        slope: (k,) derivative of the activation at c, not 0.

    Returns:
        (k, m) float64, the weight as ``torch.nn.Linear`` stores it.

    Raises:
        TypeError: if a tensor is not floating-point.
        ValueError: if a shape does not fit, a number is not finite or a slope is 0.

    Example:
        >>> joint = torch.tensor([[3.0, 2.0], [2.0, 3.0]])
        >>> layer = SoftmaxLayer(torch.tensor([[1.0], [-1.0]]), torch.zeros(2))
        >>> weak_hidden_weight(joint, torch.eye(2), layer, torch.tensor([0.25]))
        tensor([[ 0.8000, -0.8000]], dtype=torch.float64)

    Source: Xu, Huang, Zheng, Wornell, Entropy 24(1), 2022.
    """
    table = normalized_joint(joint)
    t = _function("inputs", inputs, len(table))
    wanted = weak_features(table, layer)
    check_finite("slope", slope)
    if slope.shape != (wanted.shape[1],) or bool((slope == 0).any()):
        raise ValueError(
            f"slope must have shape ({wanted.shape[1]},), no entry 0; got {slope.tolist()}"
        )
    p_x = table.sum(1)
    centered = t - p_x @ t
    regression = (wanted.T * p_x) @ centered @ _inverse_covariance(p_x, centered)
    return regression / slope.double()[:, None]


def _function(name: str, values: Tensor, rows: int) -> Tensor:
    check_floating(name, values)
    if values.dim() != 2 or len(values) != rows or values.shape[1] == 0:
        raise ValueError(f"{name} must have shape ({rows}, k), k >= 1; got {tuple(values.shape)}")
    check_finite(name, values)
    return values.detach().double()


def _conditional_mean(table: Tensor, values: Tensor) -> Tensor:
    """E[values | row] by the rows of a joint table; 0 where the row has probability 0."""
    prob = table.sum(1, keepdim=True)
    return torch.where(prob > 0, (table @ values) / prob.where(prob > 0, 1.0), 0.0)


def _inverse_covariance(prob: Tensor, centered: Tensor) -> Tensor:
    inverse: Tensor = torch.linalg.pinv((centered.T * prob) @ centered, hermitian=True)
    return inverse


def _bias_shift(p_y: Tensor, bias: Tensor) -> Tensor:
    """Return b - log P(y) less its mean; 0 for classes of probability 0."""
    if bias.shape != p_y.shape:
        raise ValueError(f"layer.bias must have shape {tuple(p_y.shape)}; got {tuple(bias.shape)}")
    possible = p_y > 0
    check_finite("layer.bias", bias[possible])
    shift = torch.where(possible, bias.detach().double() - p_y.log(), 0.0)
    return torch.where(possible, shift - p_y @ shift, 0.0)
