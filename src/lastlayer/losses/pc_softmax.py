"""The probability-corrected softmax loss as a module."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor

from lastlayer._checks import check_prior
from lastlayer.functional.class_priors import as_class_counts
from lastlayer.functional.information import pc_softmax_loss
from lastlayer.losses.base import ClassificationLoss
from lastlayer.losses.class_counts import ExactBuffers


class PCSoftmaxLoss(ExactBuffers, ClassificationLoss):
    r"""Negative log density ratio; its mean is minus a lower bound on the mutual information.

    .. math:: L(n; y) = \log \sum_j \pi_j e^{n_j} - n_y, \qquad \mathrm{E}\,L \ge -I(X; Y)

    The loss is normally negative, and that is no error: it starts near 0 and falls to minus the
    information of the input about the label, at best :math:`-H(Y)`. Its gradient is that of the
    cross entropy of :math:`n + \log \pi`, the loss known as Balanced Softmax or logit adjustment.

    Trained so, logits hold the likelihood without the prior. The largest one is the decision that
    is best on average over classes; class probabilities under any prior come from
    :func:`lastlayer.functional.probability_corrected_log_prob`.

    Args:
        prior: (K,) class probabilities :math:`\pi` of the training data, sum 1; kept as a buffer.
        weight: (K,) weight of each class, at least 0.
        ignore_index: class index of the rows that take no part.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: share of the uniform distribution in the target, in [0, 1]. With it, with
            weights or with soft targets the value is no information; the gradient is sound.

    Raises:
        TypeError: if ``prior`` is not floating point.
        ValueError: if an argument is out of range.

    Examples:
        >>> import torch
        >>> loss = PCSoftmaxLoss(torch.tensor([0.8, 0.2]))
        >>> loss(torch.tensor([[0.0, 5.0]]), torch.tensor([1]))
        tensor(-1.5828)
        >>> PCSoftmaxLoss.from_counts(torch.tensor([80, 20]), reduction="sum")
        PCSoftmaxLoss(prior of 2 classes, reduction='sum')

    References:
        Qin, Kim and Gedeon, "Rethinking softmax with cross-entropy", arXiv 1911.10688. Ren et al.,
        "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020 (same gradient).
    """

    exact_buffers = ("prior",)
    prior: Tensor

    def __init__(
        self,
        prior: Tensor,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        check_prior("prior", prior)
        super().__init__(
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
        self.register_buffer("prior", prior)

    @classmethod
    def from_counts(cls, counts: Tensor, **options: Any) -> Self:
        """Build the loss from how often every class occurs in the training data.

        Args:
            counts: (K,) numbers of at least 0, not all 0.
            **options: further arguments of the loss.
        """
        exact = as_class_counts(counts, zero_counts="mask").double()
        shares = exact / exact.sum()
        return cls(shares.float(), **options)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, K, ...) for class indices (N, ...) or probabilities."""
        return pc_softmax_loss(
            logits,
            target,
            self.prior,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )

    def extra_repr(self) -> str:
        """Show the number of classes and the arguments that differ from their defaults."""
        own = f"prior of {len(self.prior)} classes"
        return ", ".join(filter(None, (own, super().extra_repr())))
