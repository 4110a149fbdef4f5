"""DropMax for any number of classes: a mixture with the softmax that nothing drops."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_probability
from lastlayer.functional.numerics import log_mixture
from lastlayer.heads.dropmax import BranchLogits, DropMax
from lastlayer.heads.interface import Draw, NewClasses

#: From so many classes on, DropMax was measured to do no good; its share falls to the least there.
MANY_CLASSES = 50
LEAST_SHARE = 0.02


class MixedDropMax(DropMax):
    r"""Mixture of DropMax and the plain softmax of the same logits, with a share that falls with K.

    .. math:: p = s \, p_{\text{DropMax}} + (1 - s) \, \mathrm{softmax}(o), \qquad
        s = \max(1 - K / 50,\; 0.02)

    It is trained on a bound: by Jensen's inequality, with DropMax's own bound inside,

    .. math:: -\log p(t \mid x) \le s \, \big(-\mathrm{E}_q[\log p(t \mid x, z)]
        + \mathrm{KL}[q \,\|\, p]\big) + (1 - s) \, \big(-\log \mathrm{softmax}(o)_t\big)

    and DropMax's entropy and auxiliary terms, outside the bound, count with s as well. Two things
    go wrong in DropMax alone. Its posterior drops nearly all rivals of the target, so that the
    class weights learn little and the prediction is under-confident; the softmax's part keeps all
    rivals. And its sums over K classes outweigh the cross-entropy in the network below the more the
    larger K is, hence a share that falls with K. That it falls in a line to 50 is a choice by
    held-out data, see ``docs/dropmax.md``.

    Args:
        in_features: number of features D.
        num_classes: number of classes K.
        share: s in [0, 1]; max(1 - K / 50, 0.02) if None.
        **kwargs: see :class:`lastlayer.heads.DropMax`.

    Raises:
        ValueError: if an option is unknown or out of range.

    Example:
        >>> import torch
        >>> MixedDropMax(in_features=16, num_classes=10).share
        0.8

    Source: derived here; the model inside is DropMax (NeurIPS 2018).
    """

    def __init__(
        self, in_features: int, num_classes: int, *, share: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(in_features, num_classes, **kwargs)
        self._share_follows = share is None
        share = _default_share(num_classes) if share is None else share
        check_probability("share", share)
        self.share = float(share)

    def _grow_class_state(self, new: NewClasses) -> None:
        super()._grow_class_state(new)
        if self._share_follows:
            self.share = _default_share(self.num_classes)

    @property
    def keeps_softmax(self) -> bool:
        """As DropMax does, and always without a share of it."""
        return self.share == 0 or super().keeps_softmax

    def _objective(
        self, features: Tensor, logits: BranchLogits, target: Tensor, draw: Draw
    ) -> dict[str, Tensor]:
        terms = super()._objective(features, logits, target, draw)
        if self.share == 1:
            return terms
        terms = {name: self.share * values for name, values in terms.items()}
        plain = F.cross_entropy(logits.classes, target, reduction="none")
        terms["nll"] = terms["nll"] + (1 - self.share) * plain
        return terms

    def _predicted(self, logits: Tensor, *args: Any) -> Tensor:
        plain = F.log_softmax(logits, dim=-1)
        if self.share == 0:
            return plain
        dropped = super()._predicted(logits, *args)
        if self.share == 1:
            return dropped
        return log_mixture(dropped, plain, self.share)

    def _options(self) -> dict[str, object]:
        return super()._options() | {"share": round(self.share, 4)}


def _default_share(num_classes: int) -> float:
    return max(1 - num_classes / MANY_CLASSES, LEAST_SHARE)
