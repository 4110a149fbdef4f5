"""The plain softmax head, smoothed or not: what every other head is held against."""

from __future__ import annotations

from typing import Unpack

import torch.nn.functional as F
from torch import Tensor

from lastlayer.functional.fenchel_young import cross_entropy
from lastlayer.functional.loss_arguments import LossArguments, reduce_rows, split_ignored
from lastlayer.heads.base import Head
from lastlayer.heads.interface import Draw


class Softmax(Head):
    r"""Linear layer and softmax cross-entropy.

    .. math:: p = \mathrm{softmax}(W h + b), \qquad
        \ell = -\sum_k \big[(1 - \alpha) y_k + \alpha / K\big] \log p_k

    Args:
        {arguments}
        label_smoothing: :math:`\alpha` in [0, 1].

    Example:
        >>> import torch
        >>> head = Softmax(in_features=8, num_classes=3, label_smoothing=0.1)
        >>> head(torch.randn(5, 8), torch.tensor([0, 1, 2, 0, -100])).loss.shape
        torch.Size([])
        >>> head.log_prob(torch.randn(5, 8)).shape
        torch.Size([5, 3])

    Source: ``torch.nn.functional.cross_entropy``.
    """

    needs_target_in_training = False

    @property
    def keeps_softmax(self) -> bool:
        """Yes."""
        return True

    def _log_prob(self, features: Tensor) -> Tensor:
        return F.log_softmax(self._logits(features), dim=-1)

    def _row_terms(self, features: Tensor, target: Tensor, draw: Draw) -> dict[str, Tensor]:
        return {"nll": F.cross_entropy(self._logits(features), target, reduction="none")}

    def _distribution_nll(
        self, features: Tensor, target: Tensor, **arguments: Unpack[LossArguments]
    ) -> Tensor:
        logits = self._logits(features)
        if target.is_floating_point() or self.weight is not None:
            return cross_entropy(logits, target, **arguments)
        safe, keep = split_ignored(target, self.num_classes, self.ignore_index)
        rows = F.cross_entropy(logits, safe, label_smoothing=self.label_smoothing, reduction="none")
        return reduce_rows(rows, keep=keep, reduction=self.reduction)
