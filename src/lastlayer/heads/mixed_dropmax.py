"""DropMax for any number of classes: a mixture with the softmax that nothing drops."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_probability
from lastlayer.heads.dropmax import DropMax
from lastlayer.heads.output import Draw

#: Up to so many classes the mixture is DropMax alone.
DROPMAX_CLASSES = 10


class MixedDropMax(DropMax):
    r"""Mixture of DropMax and the plain softmax of the same logits, with a share that falls with K.

    .. math:: p = s \, p_{\text{DropMax}} + (1 - s) \, \mathrm{softmax}(o), \qquad
        s = \min(1, 10 / K)

    It is trained on a bound: by Jensen's inequality, with DropMax's own bound inside,

    .. math:: -\log p(t \mid x) \le s \, \big(-\mathrm{E}_q[\log p(t \mid x, z)]
        + \mathrm{KL}[q \,\|\, p]\big) + (1 - s) \, \big(-\log \mathrm{softmax}(o)_t\big)

    and DropMax's entropy and auxiliary terms, outside the bound, count with s as well. Up to ten
    classes this is DropMax. With many, DropMax's posterior leaves the cross-entropy no rival to
    learn from, and its sums over classes outweigh it in the network below; here the softmax's part
    keeps all rivals, and the sums weigh as much as with ten classes.

    Args:
        in_features: number of features D.
        num_classes: number of classes K.
        share: s in [0, 1]; min(1, 10 / K) if None.
        **kwargs: see :class:`lastlayer.heads.DropMax`.

    Raises:
        ValueError: if an option is unknown or out of range.

    Example:
        >>> import torch
        >>> MixedDropMax(in_features=16, num_classes=40).share
        0.25

    Source: derived here; the model inside is DropMax (NeurIPS 2018).
    """

    def __init__(
        self, in_features: int, num_classes: int, *, share: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(in_features, num_classes, **kwargs)
        check_probability("share", 1.0 if share is None else share)
        self.share = min(1.0, DROPMAX_CLASSES / num_classes) if share is None else float(share)

    def _objective(
        self,
        features: Tensor,
        logits: Tensor,
        retain_logits: Tensor,
        correction: Tensor | None,
        target: Tensor,
        draw: Draw,
    ) -> dict[str, Tensor]:
        terms = super()._objective(features, logits, retain_logits, correction, target, draw)
        if self.share == 1:
            return terms
        terms = {name: self.share * values for name, values in terms.items()}
        plain = F.cross_entropy(logits, target, reduction="none")
        terms["nll"] = terms["nll"] + (1 - self.share) * plain
        return terms

    def _predicted(self, logits: Tensor, *args: Any) -> Tensor:
        plain = F.log_softmax(logits, dim=-1)
        if self.share == 0:
            return plain
        dropped = super()._predicted(logits, *args)
        if self.share == 1:
            return dropped
        return torch.logaddexp(math.log(self.share) + dropped, math.log1p(-self.share) + plain)

    def _options(self) -> dict[str, object]:
        return super()._options() | {"share": round(self.share, 4)}
