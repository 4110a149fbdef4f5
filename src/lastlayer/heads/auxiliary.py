"""Softmax beside a sigmoid head on the same features: what DropMax's terms teach without masks."""

from __future__ import annotations

from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_at_least, check_choice, check_probability
from lastlayer.functional import dropmax as dm
from lastlayer.heads.linear import apply_linears
from lastlayer.heads.output import Draw
from lastlayer.heads.retain import CLASS_REDUCTIONS, RetainHead, per_class


class AuxiliarySoftmax(RetainHead):
    r"""Softmax whose features also feed one sigmoid per class, regressed to the label.

    .. math:: \ell = -\log \mathrm{softmax}(o)_t
        + w \sum_k \mathrm{BCE}(\sigma(a_k), s_k), \qquad
        s_k = s_+ \text{ at the target}, \; s_- \text{ elsewhere}

    Both models share the features: the loss is the negative log-likelihood of the label under the
    softmax and, with weight w, of K independent Bernoulli observations under the sigmoids. The
    prediction is the plain softmax. With :math:`(s_+, s_-) = (1, 0)` it is DropMax's auxiliary loss
    alone; with DropMax's fixed points (:meth:`soft`) the sigmoids go where DropMax's retain
    probabilities go on easy examples, and no class is ever dropped.

    Args:
        in_features: number of features D.
        num_classes: number of classes K.
        positive: :math:`s_+` in [0, 1].
        negative: :math:`s_-` in [0, 1].
        auxiliary_weight: w, at least 0.
        class_reduction: ``"sum"`` as above, or ``"mean"`` over classes, which keeps the balance
            with the softmax at any number of classes.
        **kwargs: see :class:`lastlayer.heads.Head`. ``label_smoothing`` is refused.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> import torch
        >>> head = AuxiliarySoftmax.soft(in_features=8, num_classes=3)
        >>> sorted(head(torch.randn(2, 8), torch.tensor([0, 1])).terms)
        ['auxiliary', 'nll']

    Source: an ablation of DropMax (NeurIPS 2018); derived here.
    """

    needs_target_in_training = False
    label_smoothing_refusal = "its sigmoids have soft targets of their own: positive and negative"
    soft_target_refusal = "its sigmoids are regressed to one target class"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        positive: float = 1.0,
        negative: float = 0.0,
        auxiliary_weight: float = 1.0,
        class_reduction: str = "sum",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, num_classes, **kwargs)
        check_probability("positive", positive)
        check_probability("negative", negative)
        check_at_least("auxiliary_weight", auxiliary_weight, 0.0)
        check_choice("class_reduction", class_reduction, CLASS_REDUCTIONS)
        self.positive, self.negative = positive, negative
        self.auxiliary_weight, self.class_reduction = auxiliary_weight, class_reduction

    @classmethod
    def soft(cls, in_features: int, num_classes: int, **kwargs: Any) -> Self:
        """Build it with DropMax's fixed points as targets.

        Args:
            in_features: number of features D.
            num_classes: number of classes K.
            **kwargs: further or overriding arguments.
        """
        preset = {"positive": dm.TARGET_FIXED_POINT, "negative": dm.NON_TARGET_FIXED_POINT}
        return cls(in_features, num_classes, **(preset | kwargs))

    @property
    def keeps_softmax(self) -> bool:
        """Yes: the sigmoids take no part in the prediction."""
        return True

    def _log_prob(self, features: Tensor) -> Tensor:
        return F.log_softmax(self._logits(features), dim=-1)

    def _row_terms(self, features: Tensor, target: Tensor, draw: Draw) -> dict[str, Tensor]:
        logits, retain_logits = apply_linears((self.classifier, self.retain), features)
        is_target = dm.one_hot_mask(target, self.num_classes).to(logits.dtype)
        soft = is_target * (self.positive - self.negative) + self.negative
        auxiliary = F.binary_cross_entropy_with_logits(retain_logits, soft, reduction="none")
        weight = per_class(self.auxiliary_weight, self.num_classes, self.class_reduction)
        return {
            "nll": F.cross_entropy(logits, target, reduction="none"),
            "auxiliary": weight * auxiliary.sum(dim=-1),
        }

    def _options(self) -> dict[str, object]:
        return {"positive": self.positive, "negative": self.negative}
