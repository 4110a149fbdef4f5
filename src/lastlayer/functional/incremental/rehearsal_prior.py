r"""The class counts of a step of incremental learning, and how the old classes' weight is learned.

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

from lastlayer._checks import check_at_least, check_positive, check_whole
from lastlayer.functional.class_priors.counts import as_class_counts


def rehearsal_counts(
    class_counts: Tensor | Sequence[float],
    num_old: int,
    *,
    alpha: float = 1.0,
    epsilon: float = 0.0,
) -> Tensor:
    r"""Counts for the balanced softmax of one step: the old classes' ones scaled.

    .. math:: \lambda_j = \begin{cases}
        \alpha \, c_j & \text{old class with } c_j > 0 \\
        \epsilon & \text{old class with } c_j = 0 \\
        c_j & \text{new class}
        \end{cases}

    where c counts the step's training set, new data and memory together, as the loader yields
    them; under a class-balanced sampler c is uniform. Give the result to
    :func:`~lastlayer.functional.balanced_softmax_loss`, with ``zero_counts="mask"`` where one is 0.

    The learned logits then estimate :math:`\log p(x \mid y) + \log (c_y / \lambda_y)`: the raw
    logits of old classes gain :math:`-\log\alpha`. Below 1 old classes are favored, above 1 the
    new ones. Without a memory, :math:`\epsilon = 0` takes the old classes out of the softmax, and
    :math:`\epsilon` as large as the new counts gives the plain cross entropy.

    What of this is published was not checked: of the paper only the abstract was read, which tells
    of balanced softmax against the memory's imbalance and of learning without memory. That
    :math:`\lambda` is the step's count, the coefficient :math:`\alpha` and the small
    :math:`\epsilon` (the relaxed form) are from memory. The statement on the logits is derived.

    Args:
        class_counts: c, (K,) counts of the seen classes, the old ones first.
        num_old: how many are old, in [0, K].
        alpha: :math:`\alpha`, above 0.
        epsilon: :math:`\epsilon`, at least 0.

    Returns:
        :math:`\lambda`, (K,) in float64.

    Raises:
        TypeError: if the counts are in half precision.
        ValueError: if an argument is out of range.

    Example:
        >>> rehearsal_counts([20, 0, 500], num_old=2, alpha=0.5, epsilon=1e-3).tolist()
        [10.0, 0.001, 500.0]

    Source: Jodelet et al., "Balanced softmax cross-entropy for incremental learning with and
    without memory", Computer Vision and Image Understanding 2022 (see above).
    """
    check_positive("alpha", alpha)
    check_at_least("epsilon", epsilon, 0.0)
    counts = as_class_counts(class_counts, zero_counts="mask").double()
    check_whole("num_old", num_old, 0, len(counts))
    scaled = counts.clone()
    old = counts[:num_old]
    scaled[:num_old] = (alpha * old).masked_fill(old == 0, epsilon)
    return scaled


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
