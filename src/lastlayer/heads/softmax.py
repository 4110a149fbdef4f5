"""The softmax head, what every other is held against, and its sparse kin: entmax, sparsemax."""

from __future__ import annotations

from typing import Any, Unpack

import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_at_least
from lastlayer.functional.entmax import entmax
from lastlayer.functional.fenchel_young import cross_entropy, entmax_loss
from lastlayer.functional.loss_arguments import LossArguments, reduce_rows, split_ignored
from lastlayer.functional.numerics import log_with_zeros
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


class Entmax(Head):
    r"""Linear layer, :math:`\alpha`-entmax and its Fenchel-Young loss.

    ``log_prob`` is -inf, with gradient 0, where a class has probability zero; the likelihood of a
    test label may thus be zero. ``scores`` returns the logits, which temperature scaling works on.

    Args:
        {arguments}
        alpha: at least 1; 1 is softmax, 2 is sparsemax; larger is sparser.

    Example:
        >>> import torch
        >>> head = Entmax(in_features=8, num_classes=3, alpha=1.5)
        >>> head(torch.randn(2, 8), torch.tensor([0, 1])).loss.shape
        torch.Size([])

    Source: Peters, Niculae and Martins, "Sparse sequence-to-sequence models", ACL 2019.
    """

    needs_target_in_training = False

    def __init__(
        self, in_features: int, num_classes: int, *, alpha: float = 1.5, **kwargs: Any
    ) -> None:
        super().__init__(in_features, num_classes, **kwargs)
        check_at_least("alpha", alpha, 1.0)
        self.alpha = float(alpha)

    def scores(self, features: Tensor) -> Tensor:
        """Return the (*, K) logits of (*, D) features."""
        return self.logits(features)

    @property
    def keeps_softmax(self) -> bool:
        """Only with ``alpha=1``; else the order of the classes is kept, but not the values."""
        return self.alpha == 1

    def _log_prob(self, features: Tensor) -> Tensor:
        return log_with_zeros(entmax(self._logits(features), self.alpha))

    def _row_terms(self, features: Tensor, target: Tensor, draw: Draw) -> dict[str, Tensor]:
        logits = self._logits(features)
        return {"nll": entmax_loss(logits, target, alpha=self.alpha, reduction="none")}

    def _distribution_nll(
        self, features: Tensor, target: Tensor, **arguments: Unpack[LossArguments]
    ) -> Tensor:
        return entmax_loss(self._logits(features), target, alpha=self.alpha, **arguments)

    def _options(self) -> dict[str, object]:
        return {"alpha": self.alpha}


class Sparsemax(Entmax):
    r"""Linear layer, sparsemax (projection onto the simplex) and its loss.

    .. math:: p = \arg\min_{p \in \Delta} \lVert p - o \rVert^2, \qquad
        \ell = -o_t + \tfrac12 \sum_{j \in S} (o_j^2 - \tau^2) + \tfrac12

    Args:
        {arguments}

    Example:
        >>> import torch
        >>> head = Sparsemax(in_features=8, num_classes=3)
        >>> head.log_prob(torch.randn(2, 8)).exp().shape
        torch.Size([2, 3])

    Source: Martins and Astudillo, "From softmax to sparsemax", ICML 2016.
    """

    def __init__(self, in_features: int, num_classes: int, **kwargs: Any) -> None:
        super().__init__(in_features, num_classes, alpha=2.0, **kwargs)
