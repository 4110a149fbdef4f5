"""Scores of a source model's predictions for a target label: LEEP and NCE."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_finite, check_floating, check_labels
from lastlayer.functional.dependence.table import joint_table


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
