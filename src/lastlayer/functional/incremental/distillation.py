"""Distillation: what a grown model still has in common with the one before."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_floating, check_positive
from lastlayer.functional.loss_arguments import reduce_rows
from lastlayer.functional.numerics import at_least_float32, unit_rows


def distillation_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 2.0,
    reduction: str = "mean",
) -> Tensor:
    r"""Divergence of softened predictions over the old classes from those of the model before.

    .. math:: L = T^2 \, \mathrm{KL}\bigl(\mathrm{softmax}(t / T) \,\Vert\,
        \mathrm{softmax}(s / T)\bigr), \qquad
        \nabla_s L = T \bigl(\mathrm{softmax}(s / T) - \mathrm{softmax}(t / T)\bigr)

    The cross entropy with the softened teacher has the same gradient; the divergence is 0 where
    both agree, and so tells how far the model has moved. :math:`T^2` keeps the gradient's size
    comparable between temperatures.

    Both are raw logits, without the counts of a balanced softmax, and of the old classes alone:
    cut the new columns off. With none or one old class nothing is told and the loss is 0.

    Args:
        logits: s, (*, K_old); half precision is computed in float32.
        teacher_logits: t, of the same shape; no gradient goes into it. A class of -inf is left
            out of the sum, as its probability is 0.
        temperature: T, above 0.
        reduction: ``"none"``, ``"mean"`` over rows (0 over no row at all) or ``"sum"``.

    Returns:
        A scalar, or (*) for ``"none"``, in nats.

    Raises:
        TypeError: if a dtype is not floating point.
        ValueError: if a shape or an option does not fit.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 2.0]])
        >>> distillation_loss(student, teacher)
        tensor(0.4438)

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
    """
    check_positive("temperature", temperature)
    _check_pair("logits", logits, teacher_logits)
    student = (at_least_float32(logits) / temperature).log_softmax(dim=-1)
    teacher = (at_least_float32(teacher_logits.detach()) / temperature).log_softmax(dim=-1)
    prob = teacher.exp()
    # Where the teacher says 0, both logarithms may be -inf.
    terms = torch.where(prob > 0, prob * (teacher - student), 0.0)
    rows = temperature**2 * terms.sum(dim=-1)
    return reduce_rows(rows, keep=None, reduction=reduction)


def feature_distillation_loss(
    features: Tensor, teacher_features: Tensor, *, reduction: str = "mean"
) -> Tensor:
    r"""One minus the cosine between features and those of the model before (less-forget).

    .. math:: L = 1 - \frac{\langle f, f^* \rangle}{\lVert f \rVert_2 \lVert f^* \rVert_2}

    It holds the directions of the features, in which a cosine head reads them, not their lengths.
    A row of zeros has no direction: its loss is 1, with gradient 0.

    Args:
        features: f, (*, D) with D >= 1; half precision is computed in float32.
        teacher_features: :math:`f^*`, of the same shape; no gradient goes into it.
        reduction: ``"none"``, ``"mean"`` over rows (0 over no row at all) or ``"sum"``.

    Returns:
        A scalar in [0, 2] for ``"mean"``, or (*) for ``"none"``.

    Raises:
        TypeError: if a dtype is not floating point.
        ValueError: if a shape or an option does not fit.

    Example:
        >>> feature_distillation_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(1.)

    Source: Hou et al., "Learning a Unified Classifier Incrementally via Rebalancing", CVPR 2019.
    """
    _check_pair("features", features, teacher_features)
    if not features.shape[-1]:
        raise ValueError(f"features must have shape (*, D); got {tuple(features.shape)}")
    cosine = (unit_rows(features) * unit_rows(teacher_features.detach())).sum(dim=-1)
    return reduce_rows(1.0 - cosine, keep=None, reduction=reduction)


def _check_pair(name: str, student: Tensor, teacher: Tensor) -> None:
    check_floating(name, student)
    check_floating(f"teacher_{name}", teacher)
    if student.dim() == 0 or student.shape != teacher.shape:
        raise ValueError(
            f"{name} and teacher_{name} must have one shape (*, n); "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
