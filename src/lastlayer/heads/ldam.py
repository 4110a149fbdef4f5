"""LDAM: a cosine classifier with larger margins for rarer classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_positive, check_probability
from lastlayer.functional.class_priors import ldam_loss
from lastlayer.heads.class_priors import CountWeightedHead
from lastlayer.heads.interface import Draw, NewClasses
from lastlayer.heads.linear import apply_linear, call_hooks, read_weight


class LDAM(CountWeightedHead):
    r"""Cosine classifier, scale and label-distribution-aware margins, re-weighted late if asked.

    .. math:: z_j = \frac{\langle w_j, h \rangle}{\lVert w_j \rVert \lVert h \rVert}
        + \frac{b_j}{s}, \qquad p = \mathrm{softmax}(s z), \qquad m_j \propto n_j^{-1/4}

    .. math:: \ell = -\log \frac{e^{s (z_y - m_y)}}{e^{s (z_y - m_y)} + \sum_{j \ne y} e^{s z_j}}

    With ``reweight_after`` the loss gets class-balanced weights from that share of the training on
    (DRW). The head must be told how far training is: the library's own training does, a loop of
    your own calls ``head.set_progress(epoch / epochs)``.

    Args:
        {arguments}
        class_counts: (K,) how often each class occurs in the whole training set.
        max_margin: margin of the rarest class, above 0.
        scale: s, above 0.
        reweight_after: share of the training in [0, 1]; None for no weights. The source has 0.8.
        beta: of the class-balanced weights.
        bias: the source has none.
        weight: (K,) further weights, multiplied with those.

    Attributes:
        weight: (K,) the weights that hold now, by the counts that are there; None without any.
        further_weight: (K,) buffer of the further weights.

    Example:
        >>> head = LDAM(8, 2, class_counts=[30, 10], reweight_after=0.8, beta=1.0)
        >>> head(torch.randn(4, 8), torch.tensor([0, 0, 0, 1])).loss.shape
        torch.Size([])
        >>> head.set_progress(0.8)
        >>> head.weight
        tensor([0.5000, 1.5000])

    Source: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
    NeurIPS 2019.
    """

    label_smoothing_refusal = "the margin is that of one true class"
    soft_target_refusal = "the margin is that of one true class"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        class_counts: Tensor | Sequence[float],
        max_margin: float = 0.5,
        scale: float = 30.0,
        reweight_after: float | None = None,
        beta: float = 0.9999,
        bias: bool = False,
        weight: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_features, num_classes, bias=bias, weight=weight, **kwargs)
        check_positive("scale", scale)
        check_positive("max_margin", max_margin)
        check_probability("beta", beta)
        self.max_margin, self.scale = float(max_margin), float(scale)
        self.reweight_after, self.beta = reweight_after, beta
        self._keep_counts(class_counts)
        if reweight_after is not None:
            check_probability("reweight_after", reweight_after)
            self._weigh_by_counts(beta, deferred=True)

    def _grow_class_state(self, new: NewClasses) -> None:
        super()._grow_class_state(new)
        if self.reweight_after is not None:
            self.reweighted = torch.zeros_like(self.reweighted)

    def set_progress(self, progress: float) -> None:
        """Set the weights that hold when this share of the training, in [0, 1], is done."""
        check_probability("progress", progress)
        if self.reweight_after is not None:
            self.reweighted.fill_(int(progress >= self.reweight_after))

    def _cosines(self, features: Tensor) -> Tensor:
        directions = F.normalize(features, dim=-1)
        products = (
            apply_linear(self.classifier, directions) if call_hooks(self.classifier) else None
        )
        # After the call: pruning and torch.nn.utils.weight_norm renew the weights in a hook.
        weight, bias = read_weight(self.classifier, features.dtype)
        if products is None:
            cosines = F.linear(directions, F.normalize(weight, dim=-1))
        else:
            length = torch.linalg.vector_norm(weight, dim=-1).clamp_min(1e-12)
            cosines = (products if bias is None else products - bias) / length
        return cosines if bias is None else cosines + bias / self.scale

    def _logits(self, features: Tensor) -> Tensor:
        return self.scale * self._cosines(features)

    def _row_terms(self, features: Tensor, target: Tensor, draw: Draw) -> dict[str, Tensor]:
        nll = ldam_loss(
            self._cosines(features),
            target,
            self.class_counts,
            max_margin=self.max_margin,
            scale=self.scale,
            reduction="none",
        )
        return {"nll": nll}

    def _options(self) -> dict[str, object]:
        own: dict[str, object] = {"max_margin": self.max_margin, "scale": self.scale}
        return own if self.reweight_after is None else own | {"reweight_after": self.reweight_after}
