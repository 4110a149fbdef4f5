"""The plain softmax head, with or without label smoothing: what every other head is held against."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_class_indices, check_last_dim
from lastlayer.heads.base import Draw, Head, HeadOutput


class Softmax(Head):
    r"""Linear layer and softmax cross-entropy.

    .. math:: p = \mathrm{softmax}(W h + b), \qquad
        \ell = -\sum_k \big[(1 - \alpha) y_k + \alpha / K\big] \log p_k

    Args:
        in_features: number of features D.
        num_classes: number of classes K.
        label_smoothing: :math:`\alpha` in [0, 1].
        **kwargs: see :class:`lastlayer.heads.Head`.

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

    def _log_prob(self, features: Tensor) -> Tensor:
        return F.log_softmax(self._logits(features), dim=-1)

    def _row_terms(self, features: Tensor, target: Tensor, draw: Draw) -> dict[str, Tensor]:
        return {"nll": F.cross_entropy(self._logits(features), target, reduction="none")}

    def _loss(self, features: Tensor, target: Tensor, draw: Draw) -> HeadOutput:
        # torch's own function, since smoothing and class weights are entangled there.
        if target.is_floating_point() or not self.label_smoothing:
            return super()._loss(features, target, draw)
        check_class_indices(target, self.num_classes, self.ignore_index)
        weight = None if self.weight is None else self.weight.to(features.dtype)
        rows = F.cross_entropy(
            self._logits(features).reshape(-1, self.num_classes),
            target.reshape(-1),
            weight=weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        if self.reduction == "none":
            nll = rows.reshape(target.shape)
        elif self.reduction == "sum":
            nll = rows.sum()
        else:
            keep = (target != self.ignore_index).reshape(-1)
            counted = keep.to(rows.dtype)
            if weight is not None:
                counted = counted * weight[target.reshape(-1).masked_fill(~keep, 0)]
            nll = rows.sum() / counted.sum().clamp(min=_TINY)
        return HeadOutput(nll, {"nll": nll})

    def _soft_target_loss(self, features: Tensor, target: Tensor) -> HeadOutput:
        check_last_dim("target", target, self.num_classes)
        nll = F.cross_entropy(
            self._logits(features).reshape(-1, self.num_classes),
            target.reshape(-1, self.num_classes).to(features.dtype),
            weight=None if self.weight is None else self.weight.to(features.dtype),
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
        )
        if self.reduction == "none":
            nll = nll.reshape(features.shape[:-1])
        return HeadOutput(nll, {"nll": nll})


_TINY = 1e-30  # only keeps 0 / 0, the mean over no row, at 0
