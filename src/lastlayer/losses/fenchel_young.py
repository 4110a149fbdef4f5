"""Sparsemax and entmax losses as modules."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from lastlayer._checks import check_at_least
from lastlayer.functional.fenchel_young import entmax_loss
from lastlayer.functional.loss_arguments import LossArguments
from lastlayer.losses.base import ClassificationLoss


class EntmaxLoss(ClassificationLoss):
    r"""Alpha-entmax loss: 0 as soon as the target leads every other logit by 1 / (alpha - 1).

    .. math:: L(o; y) = \Omega_\alpha^*(o) + \Omega_\alpha(y) - \langle o, y\rangle,
        \qquad \nabla_o L = \operatorname{entmax}_\alpha(o) - y

    Predict with :func:`lastlayer.functional.entmax`, never with a softmax of these logits.

    Args:
        alpha: at least 1; 1 is the cross entropy, 1.5 and 2 have classes of their own.
        **arguments: {arguments}

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> import torch
        >>> loss = EntmaxLoss(alpha=1.2)
        >>> loss
        EntmaxLoss(alpha=1.2)
        >>> loss(torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.)

    References:
        Peters, Niculae and Martins, "Sparse Sequence-to-Sequence Models", ACL 2019, eq. 11.
    """

    def __init__(self, alpha: float, **arguments: Unpack[LossArguments]) -> None:
        check_at_least("alpha", alpha, 1.0)
        super().__init__(**arguments)
        self.alpha = float(alpha)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, K, ...) for class indices (N, ...) or probabilities."""
        return entmax_loss(logits, target, self.alpha, **self.arguments())

    def _own(self) -> list[str]:
        return [f"alpha={self.alpha:g}"]


class _FixedEntmaxLoss(EntmaxLoss):
    """An entmax loss whose alpha belongs to its name."""

    fixed_alpha: float

    def __init__(self, **arguments: Unpack[LossArguments]) -> None:
        super().__init__(self.fixed_alpha, **arguments)


class SparsemaxLoss(_FixedEntmaxLoss):
    r"""Sparsemax loss: 0 as soon as the target leads every other logit by 1.

    .. math:: L(o; t) = \tfrac12 \sum_{k: p_k > 0} (o_k^2 - \tau^2) + \tfrac12 - o_t,
        \qquad \nabla_o L = \operatorname{sparsemax}(o) - y

    Predict with :func:`lastlayer.functional.sparsemax`, never with a softmax of these logits.

    Args:
        **arguments: {arguments}

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> import torch
        >>> loss = SparsemaxLoss()
        >>> loss(torch.tensor([[1.0, 0.5, -1.0]]), torch.tensor([1]))
        tensor(0.5625)

    References:
        Martins and Astudillo, "From Softmax to Sparsemax", ICML 2016, eq. 18.
    """

    fixed_alpha = 2.0


class Entmax15Loss(_FixedEntmaxLoss):
    r"""1.5-entmax loss: 0 as soon as the target leads every other logit by 2.

    .. math:: L(o; y) = \Omega_{1.5}^*(o) + \Omega_{1.5}(y) - \langle o, y\rangle,
        \qquad \nabla_o L = \operatorname{entmax}_{1.5}(o) - y

    Predict with :func:`lastlayer.functional.entmax15`, never with a softmax of these logits.

    Args:
        **arguments: {arguments}

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> import torch
        >>> loss = Entmax15Loss()
        >>> loss(torch.tensor([[1.0, 0.5, -1.0]]), torch.tensor([1]))
        tensor(0.6844)

    References:
        Peters, Niculae and Martins, "Sparse Sequence-to-Sequence Models", ACL 2019, eq. 11.
    """

    fixed_alpha = 1.5
