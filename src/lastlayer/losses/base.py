"""What every loss module shares: torch's arguments, checked once and stored."""

from __future__ import annotations

from torch import Tensor, nn

from lastlayer._checks import (
    REDUCTIONS,
    check_choice,
    check_class_weight,
    check_ignore_index,
    check_probability,
    check_tensor,
)


class ClassificationLoss(nn.Module):
    """Base of the losses on logits; the arguments are those of ``torch.nn.CrossEntropyLoss``.

    A subclass computes its loss in ``forward(logits, target)`` by one call of a function, passing
    ``weight``, ``ignore_index``, ``reduction`` and, where it is defined, ``label_smoothing``.

    Args:
        weight: (K,) weight of each class, at least 0; kept as a buffer.
        ignore_index: class index of the rows that take no part.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: share of the uniform distribution in the target, in [0, 1].

    Raises:
        TypeError: if ``weight`` is no tensor or ``ignore_index`` no integer.
        ValueError: if an argument is out of range, or the loss refuses it.

    Examples:
        >>> import torch
        >>> class Margin(ClassificationLoss):
        ...     def forward(self, logits, target):
        ...         return torch.nn.functional.multi_margin_loss(logits, target)
        >>> Margin(reduction="sum")
        Margin(reduction='sum')
    """

    #: Why this loss refuses label smoothing; None where it is defined.
    refuses_smoothing: str | None = None
    #: Whether ``weight`` is an argument; otherwise the subclass derives it.
    weight_is_given: bool = True

    weight: Tensor | None

    def __init__(
        self,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("reduction", reduction, REDUCTIONS)
        check_probability("label_smoothing", label_smoothing)
        check_ignore_index(ignore_index)
        if label_smoothing > 0.0 and self.refuses_smoothing is not None:
            raise ValueError(
                f"label_smoothing must be 0 for {type(self).__name__}: {self.refuses_smoothing}; "
                f"got {label_smoothing!r}"
            )
        if weight is not None:
            check_tensor("weight", weight)
            if weight.dim() != 1:
                raise ValueError(f"weight must have shape (K,); got {tuple(weight.shape)}")
            check_class_weight(weight, len(weight), wait=True)
        if self.weight_is_given:
            self.register_buffer("weight", weight)
        self.ignore_index = int(ignore_index)
        self.reduction = reduction
        self.label_smoothing = label_smoothing

    def extra_repr(self) -> str:
        """Show the arguments that differ from their defaults."""
        shown = []
        if self.weight is not None:
            shown.append(f"weight of {self.weight.shape[0]} classes")
        if self.ignore_index != -100:
            shown.append(f"ignore_index={self.ignore_index}")
        if self.reduction != "mean":
            shown.append(f"reduction={self.reduction!r}")
        if self.label_smoothing > 0.0:
            shown.append(f"label_smoothing={self.label_smoothing}")
        return ", ".join(shown)
