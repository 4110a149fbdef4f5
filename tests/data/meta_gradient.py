r"""The gradient that the rates of a meta sampler get, in closed form for a linear head.

A meta step asks how the loss on a balanced meta batch changes with the rates, after one virtual
step of gradient descent on a batch of B examples whose losses carry weights w:

.. math:: \tilde\theta = \theta - \frac{\eta}{B} \sum_i w_i \nabla_\theta \ell_i(\theta), \qquad
    \frac{\partial L}{\partial w_i}
    = -\frac{\eta}{B} \bigl\langle \nabla \ell_i(\theta), \nabla L(\tilde\theta) \bigr\rangle

so that an example counts for more the better its gradient agrees with the meta batch's. How the
weights depend on the rates is the other factor: relaxed picks, or the rates themselves. Only a
mixed derivative of the losses is needed, no Hessian.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer.functional.meta_sampling import class_log_prob, rate_weights


def linear_weight_gradient(
    weight: Tensor,
    features: Tensor,
    target: Tensor,
    meta_features: Tensor,
    meta_target: Tensor,
    *,
    lr: float,
    bias: Tensor | None = None,
    offset: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    r"""Return the gradient of the meta loss by the weight of every example, for a linear head.

    .. math:: \frac{\partial L}{\partial w_i} = -\frac{\eta}{B}
        (q_i - e_{y_i})^\top \bigl(G f_i + G_0\bigr), \qquad
        q_i = \mathrm{softmax}(W f_i + b + o)

    with :math:`G, G_0` the gradients of the meta batch's mean cross-entropy, without the offset, by
    W and b at the virtual step's end.

    Args:
        weight: W, (K, D).
        features: (B, D) features of the batch.
        target: (B,) int64 labels.
        meta_features: (M, D) features of the meta batch.
        meta_target: (M,) int64 labels.
        lr: step size :math:`\eta` of the virtual step, at least 0.
        bias: b, (K,); None for a head without.
        offset: o, (K,), what the training loss adds to the logits, such as the log class counts of
            balanced softmax; None for plain softmax.
        weights: w, (B,); ones if None.

    Returns:
        (B,) gradient.

    Example:
        >>> eye, label = torch.eye(2), torch.tensor([0])
        >>> linear_weight_gradient(torch.zeros(2, 2), eye[:1], label, eye[:1], label, lr=1.0)
        tensor([-0.2689])

    Source: derived from Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition",
    NeurIPS 2020.
    """
    scaled = lr / len(target)
    used = features.new_ones(len(target)) if weights is None else weights
    residual = _residual(features, target, weight, bias, offset)
    weighted = used.unsqueeze(-1) * residual
    moved = weight - scaled * weighted.T @ features
    moved_bias = None if bias is None else bias - scaled * weighted.sum(0)
    meta = _residual(meta_features, meta_target, moved, moved_bias, None) / len(meta_target)
    toward = features @ (meta.T @ meta_features).T
    if bias is not None:
        toward = toward + meta.sum(0)
    return -scaled * (residual * toward).sum(-1)


def sampling_rate_gradient(
    weight_gradient: Tensor,
    rate_logits: Tensor,
    class_counts: Tensor,
    noise: Tensor,
    *,
    temperature: float = 1.0,
) -> Tensor:
    r"""Return the rates' gradient for batches drawn by ``draw_classes``.

    .. math:: \frac{\partial L}{\partial \psi_k} = \frac{1 - \sigma(\psi_k)}{\tau} \sum_i a_i \,
        y_{i c_i} \bigl([c_i = k] - y_{ik}\bigr), \qquad a_i = \frac{\partial L}{\partial w_i}

    A factor common to all rates changes no draw, hence
    :math:`\sum_k (\partial L / \partial \psi_k) / (1 - \sigma(\psi_k)) = 0`.

    Args:
        weight_gradient: a, (B,), of :func:`linear_weight_gradient` with the weights 1.
        rate_logits: (K,) logits :math:`\psi`.
        class_counts: (K,) examples of every class.
        noise: (B, K) Gumbel numbers of the draw.
        temperature: :math:`\tau` of the draw.

    Returns:
        (K,) gradient with respect to ``rate_logits``.

    Example:
        >>> noise = torch.tensor([[1.0, 0.0]])
        >>> counts = torch.tensor([1, 1])
        >>> sampling_rate_gradient(torch.ones(1), torch.zeros(2), counts, noise)
        tensor([ 0.0983, -0.0983])
    """
    score = class_log_prob(rate_logits, class_counts) + noise
    classes = score.argmax(dim=-1)
    relaxed = (score / temperature).softmax(dim=-1)
    pull = weight_gradient * relaxed.gather(-1, classes.unsqueeze(-1)).squeeze(-1) / temperature
    drawn = torch.zeros_like(rate_logits).index_add(0, classes, pull)
    return (drawn - pull @ relaxed) * (-rate_logits).sigmoid()


def reweighting_rate_gradient(
    weight_gradient: Tensor, rate_logits: Tensor, target: Tensor, *, normalize: bool = True
) -> Tensor:
    r"""Return the rates' gradient for losses weighted by ``rate_weights``.

    .. math:: \frac{\partial L}{\partial \psi_c} = \sum_{i: y_i = c} a_i \, \sigma'(\psi_c)

    and, with weights normalized to sum B,
    :math:`(1 - \sigma(\psi_c)) \sum_{i: y_i = c} w_i (a_i - \sum_j a_j w_j / B)`.

    Args:
        weight_gradient: a, (B,), of :func:`linear_weight_gradient` with these weights.
        rate_logits: (K,) logits :math:`\psi`.
        target: (B,) int64 labels.
        normalize: as the weights have it.

    Returns:
        (K,) gradient with respect to ``rate_logits``.

    Example:
        >>> gradient = torch.tensor([-1.0, 1.0])
        >>> reweighting_rate_gradient(gradient, torch.zeros(2), torch.tensor([0, 1]))
        tensor([-0.5000,  0.5000])
    """
    weights = rate_weights(rate_logits, target, normalize=normalize)
    pull = weights * weight_gradient
    if normalize:
        pull = pull - weights * pull.mean()
    return torch.zeros_like(rate_logits).index_add(0, target, pull) * (-rate_logits).sigmoid()


def _residual(
    features: Tensor, target: Tensor, weight: Tensor, bias: Tensor | None, offset: Tensor | None
) -> Tensor:
    logits = F.linear(features, weight, bias)
    prob = (logits if offset is None else logits + offset).softmax(dim=-1)
    return prob - F.one_hot(target, prob.shape[-1])
