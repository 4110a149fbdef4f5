r"""How the loss on a meta batch changes with the weight of old classes, for a linear head.

The balanced softmax of a step counts an old class as :math:`\lambda_j = \alpha c_j`. One virtual
step of gradient descent on its mean loss over a batch of B examples gives the weights

.. math:: \tilde\theta = \theta - \frac{\eta}{B} \sum_i (q_i - e_{y_i}) (f_i, 1)^\top, \qquad
    q_i = \mathrm{softmax}(W f_i + b + \log \lambda(\alpha))

and the plain cross entropy L of :math:`\tilde\theta` on a balanced meta batch depends on
:math:`\alpha` through the :math:`q_i` alone: the label's own :math:`\log\lambda` is a constant of
:math:`\theta`, so it is in the loss and not in the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_at_least
from lastlayer.functional.class_priors.counts import as_class_counts
from lastlayer.functional.incremental.rehearsal_prior import rehearsal_counts


class OldWeightGradient(NamedTuple):
    r"""A meta step's loss and its derivative.

    Attributes:
        loss: L, a scalar: mean cross entropy of the meta batch after the virtual step.
        gradient: :math:`\partial L / \partial \log\alpha`, a scalar.
    """

    loss: Tensor
    gradient: Tensor


def old_weight_gradient(
    weight: Tensor,
    features: Tensor,
    target: Tensor,
    class_counts: Tensor | Sequence[float],
    num_old: int,
    meta_features: Tensor,
    meta_target: Tensor,
    *,
    lr: float,
    bias: Tensor | None = None,
    alpha: float = 1.0,
    epsilon: float = 0.0,
) -> OldWeightGradient:
    r"""Return the meta loss and its derivative by the logarithm of the old classes' weight.

    .. math:: \frac{\partial L}{\partial \log\alpha} = -\frac{\eta}{B} \sum_i
        \bigl(q_i \odot (o - q_i^\top o)\bigr)^\top (G f_i + G_0)

    with o the indicator of the old classes that have examples, and :math:`G, G_0` the gradients of
    L by W and b at the virtual step's end. No derivative is traced.

    Args:
        weight: W, (K, D), rows of the old classes first.
        features: (B, D) features of the batch, B >= 1.
        target: (B,) int64 labels, of classes with a count above 0.
        class_counts: (K,) counts of the step's training set.
        num_old: how many classes are old, in [0, K].
        meta_features: (M, D) features of the meta batch, M >= 1.
        meta_target: (M,) int64 labels.
        lr: step size :math:`\eta` of the virtual step, at least 0.
        bias: b, (K,); None for a head without.
        alpha: :math:`\alpha`, above 0.
        epsilon: the count of an old class without examples, at least 0; it does not depend on
            :math:`\alpha`.

    Returns:
        The loss and the gradient, two scalars.

    Raises:
        ValueError: if an argument is out of range, or a batch is empty.

    Example:
        >>> import torch
        >>> eye, label = torch.eye(2), torch.tensor([0])
        >>> zero, counts = torch.zeros(2, 2), torch.tensor([1, 1])
        >>> old_weight_gradient(zero, eye[:1], label, counts, 1, eye[:1], label, lr=1.0).gradient
        tensor(0.1345)

    Source: derived. That the coefficient is learned on two levels in Jodelet et al., "Balanced
    softmax cross-entropy for incremental learning with and without memory", Computer Vision and
    Image Understanding 2022, is from memory.
    """
    check_at_least("lr", lr, 0.0)
    if not len(target) or not len(meta_target):
        raise ValueError(
            "target and meta_target must hold at least one label each; "
            f"got {len(target)} and {len(meta_target)}"
        )
    counts = rehearsal_counts(class_counts, num_old, alpha=alpha, epsilon=epsilon)
    offset = counts.log().to(weight)
    old = as_class_counts(class_counts, zero_counts="mask").to(weight.device) > 0
    old[num_old:] = False
    prob = (F.linear(features, weight, bias) + offset).softmax(dim=-1)
    step = (lr / len(target)) * (prob - F.one_hot(target, len(weight)))
    moved_bias = None if bias is None else bias - step.sum(0)
    logits = F.linear(meta_features, weight - step.T @ features, moved_bias)
    loss = F.cross_entropy(logits, meta_target)
    meta = (logits.softmax(dim=-1) - F.one_hot(meta_target, len(weight))) / len(meta_target)
    toward = features @ (meta.T @ meta_features).T
    if bias is not None:
        toward = toward + meta.sum(0)
    change = prob * (old.to(prob) - prob @ old.to(prob).unsqueeze(-1))
    return OldWeightGradient(loss, -(lr / len(target)) * (change * toward).sum())
