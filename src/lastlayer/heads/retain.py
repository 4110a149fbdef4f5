"""Heads with one sigmoid per class beside the classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lastlayer.heads.base import Head
from lastlayer.heads.linear import apply_linear, new_branch
from lastlayer.heads.precision import full_precision

CLASS_REDUCTIONS = ("sum", "mean")


def per_class(weight: float, num_classes: int, class_reduction: str) -> float:
    """Return what a sum over classes is multiplied by: ``weight``, shared out for a mean."""
    return weight / num_classes if class_reduction == "mean" else weight


class RetainHead(Head):
    r"""Base of the heads with a retain branch, :math:`\rho = \sigma(a)`, :math:`a = W_a h + b_a`.

    Args:
        in_features: number of features D.
        num_classes: number of classes K.
        **kwargs: see :class:`lastlayer.heads.Head`.
    """

    def __init__(self, in_features: int, num_classes: int, **kwargs: Any) -> None:
        super().__init__(in_features, num_classes, **kwargs)
        self.retain = new_branch(self.classifier)

    def _start_as_softmax(self) -> None:
        nn.init.zeros_(self.retain.weight)
        if self.retain.bias is not None:
            nn.init.zeros_(self.retain.bias)

    def branches(self) -> dict[str, nn.Linear]:
        """Return the retain branch."""
        return {"retain": self.retain}

    def retain_prob(self, features: Tensor) -> Tensor:
        """Return the retain probabilities: which classes an input is confused between.

        Args:
            features: (*, D).

        Returns:
            (*, K) in [0, 1].
        """
        self._check_features(features)
        with full_precision(features):
            return apply_linear(self.retain, self._upcast(features)).sigmoid()
