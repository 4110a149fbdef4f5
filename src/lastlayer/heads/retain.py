"""Heads with one sigmoid per class beside the classifier, and two that draw no masks by it."""

from __future__ import annotations

from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer._checks import check_at_least, check_choice, check_probability
from lastlayer.functional import dropmax as dm
from lastlayer.heads.base import Head
from lastlayer.heads.interface import Draw, full_precision
from lastlayer.heads.linear import apply_linear, apply_linears, new_branch

CLASS_REDUCTIONS = ("sum", "mean")


def per_class(weight: float, num_classes: int, class_reduction: str) -> float:
    """Return what a sum over classes is multiplied by: ``weight``, shared out for a mean."""
    return weight / num_classes if class_reduction == "mean" else weight


class RetainHead(Head):
    r"""Base of the heads with a retain branch, :math:`\rho = \sigma(a)`, :math:`a = W_a h + b_a`.

    Args:
        {arguments}
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


class DeterministicAttention(RetainHead):
    r"""Softmax whose exponentials are multiplied by learned attention, :math:`\rho = \sigma(a)`.

    .. math:: p = \mathrm{softmax}(o + \log \rho)

    Args:
        {arguments}
        regularized: False (NeurIPS 2018) trains by cross-entropy alone; True (ICLR 2018) adds
            :math:`-\log \rho_t` and the negative entropy of the non-targets.
        entropy_weight: weight of the entropy term, at least 0; used if ``regularized``.
        eps: :math:`\epsilon > 0` added to the attention.

    Example:
        >>> import torch
        >>> head = DeterministicAttention(in_features=8, num_classes=3)
        >>> head(torch.randn(2, 8), torch.tensor([0, 1])).loss.shape
        torch.Size([])

    Source: the baseline of DropMax, ICLR 2018 and NeurIPS 2018.
    """

    needs_target_in_training = False
    label_smoothing_refusal = "its papers train it with hard targets only; use Softmax to smooth"
    soft_target_refusal = "its papers train it with hard targets only; use Softmax"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        regularized: bool = False,
        entropy_weight: float = 1.0,
        eps: float = 1e-20,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, num_classes, **kwargs)
        check_at_least("entropy_weight", entropy_weight, 0.0)
        self.regularized, self.entropy_weight, self.eps = regularized, entropy_weight, eps

    @property
    def keeps_softmax(self) -> bool:
        """Yes: attached, the attention starts alike for all classes and cancels."""
        return True

    def _log_prob(self, features: Tensor) -> Tensor:
        logits, retain_logits = apply_linears((self.classifier, self.retain), features)
        return dm.plug_in_log_prob(logits, retain_logits, eps=self.eps)

    def _row_terms(self, features: Tensor, target: Tensor, draw: Draw) -> dict[str, Tensor]:
        logits, retain_logits = apply_linears((self.classifier, self.retain), features)
        log_prob = dm.plug_in_log_prob(logits, retain_logits, eps=self.eps)
        terms = {"nll": -log_prob.gather(-1, target.unsqueeze(-1)).squeeze(-1)}
        if self.regularized:
            terms["kl"] = dm.target_retention_loss(retain_logits, target)
            entropy = dm.negative_entropy(retain_logits, target, classes="non-target")
            terms["entropy"] = self.entropy_weight * entropy
        return terms

    def _options(self) -> dict[str, object]:
        return {"regularized": self.regularized}


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
        {arguments}
        positive: :math:`s_+` in [0, 1].
        negative: :math:`s_-` in [0, 1].
        auxiliary_weight: w, at least 0.
        class_reduction: ``"sum"`` as above, or ``"mean"`` over classes, which keeps the balance
            with the softmax at any number of classes.

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
