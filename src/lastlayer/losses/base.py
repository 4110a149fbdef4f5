"""What every loss module shares: torch's arguments, checked once and stored."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lastlayer._checks import (
    REDUCTIONS,
    check_choice,
    check_class_weight,
    check_ignore_index,
    check_probability,
    check_tensor,
)
from lastlayer._docs import filled_in, show_keywords
from lastlayer.functional.loss_arguments import (
    DEFAULTS,
    HardLossArguments,
    LossArguments,
    meaning_unless,
    shared_text,
)


class ClassificationLoss(nn.Module):
    """Base of the losses on logits; the arguments are those of ``torch.nn.CrossEntropyLoss``.

    A subclass computes its loss in ``forward(logits, target)`` by one call of a function, passing
    on ``**self.arguments()``. Its docstring may say ``{arguments}`` for what they mean, as here.

    Args:
        **arguments: {arguments}

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

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._explain()

    @classmethod
    def _explain(cls) -> None:
        """Let docstring and signature name what ``**arguments`` stands for."""
        if cls.__doc__ is not None:
            cls.__doc__ = filled_in(cls.__doc__, shared_text(meaning_unless(cls.refuses_smoothing)))
        own = vars(cls).get("__init__")
        if "arguments" in getattr(own, "__annotations__", {}):
            show_keywords(cls.__init__, DEFAULTS)

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

    def hard_arguments(self) -> HardLossArguments:
        """Return what functions of class indices take: all but label smoothing."""
        return {
            "weight": self.weight,
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
        }

    def arguments(self) -> LossArguments:
        """Return the arguments as functions take them."""
        return {**self.hard_arguments(), "label_smoothing": self.label_smoothing}

    def extra_repr(self) -> str:
        """Show the loss's own arguments, and the others where they differ from their defaults."""
        shown = self._own()
        if self.weight is not None:
            shown.append(f"weight of {self.weight.shape[0]} classes")
        if self.ignore_index != -100:
            shown.append(f"ignore_index={self.ignore_index}")
        if self.reduction != "mean":
            shown.append(f"reduction={self.reduction!r}")
        if self.label_smoothing > 0.0:
            shown.append(f"label_smoothing={self.label_smoothing}")
        return ", ".join(shown)

    def _own(self) -> list[str]:
        """Return the loss's own arguments, for ``repr``."""
        return []


ClassificationLoss._explain()
