"""Deterministic attention: DropMax's retain probabilities without the chance."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lastlayer._checks import check_at_least
from lastlayer.functional import dropmax as dm
from lastlayer.heads.linear import apply_linears
from lastlayer.heads.output import Draw
from lastlayer.heads.retain import RetainHead


class DeterministicAttention(RetainHead):
    r"""Softmax whose exponentials are multiplied by learnt attention, :math:`\rho = \sigma(a)`.

    .. math:: p = \mathrm{softmax}(o + \log \rho)

    Args:
        in_features: number of features D.
        num_classes: number of classes K.
        regularized: False (NeurIPS 2018) trains by cross-entropy alone; True (ICLR 2018) adds
            :math:`-\log \rho_t` and the negative entropy of the non-targets.
        entropy_weight: weight of the entropy term, at least 0; used if ``regularized``.
        eps: :math:`\epsilon > 0` added to the attention.
        **kwargs: see :class:`lastlayer.heads.Head`. ``label_smoothing`` is refused.

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
