"""The arguments of ``torch.nn.CrossEntropyLoss``: what they mean, in words and in code.

A loss passes them on as ``**arguments: Unpack[LossArguments]``, which type checkers see through;
:func:`explained` lets its docstring and its signature name them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict, TypeVar

import torch
from torch import Tensor

from lastlayer._checks import (
    REDUCTIONS,
    check_choice,
    check_class_indices,
    check_class_weight,
    check_ignore_index,
    check_probability,
)
from lastlayer._docs import filled_in, show_keywords
from lastlayer.functional.layout import flatten_target, float_rows, target_shape

F = TypeVar("F", bound=Callable[..., Any])


class HardLossArguments(TypedDict, total=False):
    """What a loss takes whose targets are class indices only; see :data:`MEANING`."""

    weight: Tensor | None
    ignore_index: int
    reduction: str


class LossArguments(HardLossArguments, total=False):
    """What a loss takes whose targets may be smoothed; see :data:`MEANING`."""

    label_smoothing: float


#: What these arguments mean, in every loss and head.
MEANING = {
    "weight": "(K,) weight of each class, at least 0; multiplies the target distribution. A mean"
    " over class indices divides by their weights.",
    "ignore_index": "class index of the rows that take no part.",
    "reduction": '``"none"``, ``"mean"`` (0 over no row at all) or ``"sum"``.',
    "label_smoothing": "share of the uniform distribution in the target, in [0, 1].",
}
DEFAULTS = {"weight": None, "ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0}
_CLASS_INDICES = "int64 class indices, (), (N,) or (N, d1, ...)"
_TENSORS = {
    "logits": "(K,), (N, K) or (N, K, d1, ...); half precision is computed, and returned, in"
    " float32.",
    "target": f"{_CLASS_INDICES}, or class probabilities of the logits' shape.",
}


def meaning_unless(refusal: str | None, meaning: Mapping[str, str] = MEANING) -> dict[str, str]:
    """Return what arguments mean where label smoothing is refused for a reason, if there is one."""
    refused = {} if refusal is None else {"label_smoothing": f"refused unless 0: {refusal}."}
    return {**meaning, **refused}


def shared_text(meaning: Mapping[str, str] = MEANING) -> dict[str, Mapping[str, str]]:
    """Return what may stand in braces in a docstring: ``{arguments}``, or one of them by name."""
    one_by_one = {name: {name: text} for name, text in {**meaning, **_TENSORS}.items()}
    indices = {"class indices": {"target": f"{_CLASS_INDICES}."}}
    return {"arguments": meaning, **one_by_one, **indices}


def explained(function: F) -> F:
    """Let docstring and signature of a loss name what ``**arguments`` stands for, in place."""
    kind = function.__annotations__.get("arguments")
    hard = kind == "Unpack[HardLossArguments]"
    meaning = {n: text for n, text in MEANING.items() if not (hard and n == "label_smoothing")}
    if function.__doc__ is not None:
        function.__doc__ = filled_in(function.__doc__, shared_text(meaning))
    if kind is not None:
        show_keywords(function, {name: DEFAULTS[name] for name in meaning})
    return function


def hard_target_loss(
    logits: Tensor,
    target: Tensor,
    row_losses: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    *,
    no_soft_targets: str,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Reduce a loss that is defined per row and class index.

    ``row_losses`` maps (M, K) logits in at least float32, (M,) class indices, and which rows count,
    (M,) or None for all, to (M,) losses. ``no_soft_targets`` says why class probabilities are
    refused. The other arguments are those of :data:`MEANING`.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    if target.is_floating_point():
        raise TypeError(f"target must hold int64 class indices: {no_soft_targets}")
    rows = float_rows(logits)
    check_class_weight(weight, rows.shape[-1])
    index, keep = split_ignored(flatten_target(target, logits), rows.shape[-1], ignore_index)
    values = row_losses(rows, index, keep)
    row_weight = None if weight is None else weight.to(values.dtype)[index]
    values = reduce_rows(values, keep=keep, row_weight=row_weight, reduction=reduction)
    return values.reshape(target_shape(logits)) if reduction == "none" else values


class Rows(NamedTuple):
    """Class indices made safe to gather with, and which rows count.

    Attributes:
        target: (N,) int64, ignored rows replaced by class 0.
        keep: (N,) bool, False where the row is ignored; None where every row is known to count.
    """

    target: Tensor
    keep: Tensor | None


def split_ignored(target: Tensor, num_classes: int, ignore_index: int = -100) -> Rows:
    """Separate rows labeled ``ignore_index`` from (N,) int64 class indices in [0, num_classes)."""
    check_ignore_index(ignore_index)
    if check_class_indices(target, num_classes, ignore_index):
        return Rows(target, None)
    keep = target != ignore_index
    return Rows(torch.where(keep, target, 0), keep)


def reduce_rows(
    values: Tensor,
    *,
    keep: Tensor | None,
    row_weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Reduce (N,) values of rows as ``torch.nn.functional.cross_entropy`` does.

    With weights :math:`w_i` (0 for ignored rows): ``"none"`` returns :math:`w_i v_i`, ``"sum"``
    their sum, ``"mean"`` :math:`\sum_i w_i v_i / \sum_i w_i`. One deviation from torch: the mean
    over no row at all is 0 with zero gradient, not NaN.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    if keep is not None:
        # where, not a product: an ignored row may hold inf or NaN.
        values = torch.where(keep, values, 0.0)
        row_weight = (
            keep.to(values.dtype) if row_weight is None else torch.where(keep, row_weight, 0.0)
        )
    weighted = values if row_weight is None else values * row_weight
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    if row_weight is None:
        return weighted.sum() / max(1, values.numel())
    total = row_weight.sum()
    return weighted.sum() / torch.where(total > 0, total, 1.0)


class Targets(NamedTuple):
    """The target side of a loss, y weighted by class, as the formula needs it.

    Attributes:
        score: (M,) weighted <o, y>.
        mass: (M,) sum of the weighted y.
        probabilities: (M, K) the weighted y normalized to sum 1; None for plain class indices.
        keep: (M,) False for ignored rows; None where every row is known to count.
        denominator: scalar denominator of the mean.
    """

    score: Tensor
    mass: Tensor
    probabilities: Tensor | None
    keep: Tensor | None
    denominator: Tensor

    def reduced(self, values: Tensor, logits: Tensor, reduction: str) -> Tensor:
        """Reduce (M,) losses of rows; ``"none"`` gives the shape of class indices for logits."""
        check_choice("reduction", reduction, REDUCTIONS)
        if self.keep is not None:
            values = torch.where(self.keep, values, 0.0)
        if reduction == "none":
            return values.reshape(target_shape(logits))
        if reduction == "sum":
            return values.sum()
        return values.sum() / torch.where(self.denominator > 0, self.denominator, 1.0)


def weighted_targets(
    rows: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    *,
    smoothed_over: Tensor | None = None,
) -> Targets:
    r"""Weight and smooth (M,) indices or (M, K) probabilities as torch's ``cross_entropy`` does.

    .. math:: \tilde y_k = w_k \bigl((1 - \varepsilon) y_k + \varepsilon / K\bigr)

    The uniform distribution is over the classes of ``smoothed_over``, (K,) bool; None for all.
    Plain class indices stay indices, no (M, K) tensor is made for them.
    """
    num_classes = rows.shape[-1]
    check_probability("label_smoothing", label_smoothing)
    check_ignore_index(ignore_index)
    check_class_weight(weight, num_classes)
    class_weight = None if weight is None else weight.to(rows.dtype)
    if target.is_floating_point():
        if ignore_index >= 0:
            raise ValueError(
                "ignore_index applies to class indices only; got class probabilities and "
                f"ignore_index={ignore_index}"
            )
        y = target.to(rows.dtype)
        keep = None
        denominator = rows.new_full((), len(rows))
    else:
        index, keep = split_ignored(target, num_classes, ignore_index)
        row_weight = rows.new_ones(()) if class_weight is None else class_weight[index]
        counted = row_weight.expand(index.shape)
        denominator = (counted if keep is None else torch.where(keep, counted, 0.0)).sum()
        if label_smoothing == 0.0:
            score = rows.gather(-1, index.unsqueeze(-1)).squeeze(-1)
            # A weight of 0 removes a row whose score is -inf, too.
            if class_weight is not None:
                score = torch.where(row_weight > 0, row_weight * score, 0.0)
            if keep is not None:
                score = torch.where(keep, score, 0.0)
            return Targets(score, row_weight, None, keep, denominator)
        y = torch.zeros_like(rows).scatter(-1, index.unsqueeze(-1), 1.0)
    if label_smoothing > 0.0:
        share: Tensor | float = label_smoothing / num_classes
        if smoothed_over is not None:
            share = label_smoothing * smoothed_over.to(y) / smoothed_over.sum()
        y = (1.0 - label_smoothing) * y + share
    if class_weight is not None:
        y = y * class_weight
    mass = y.sum(-1)
    score = (torch.where(y == 0, 0.0, rows) * y).sum(-1)
    probabilities = y / torch.where(mass > 0, mass, 1.0).unsqueeze(-1)
    return Targets(score, mass, probabilities, keep, denominator)
