"""Losses for classes that occur unequally often: each is told how often, or in what shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, Unpack

import torch
from torch import Tensor

from lastlayer._checks import check_at_least, check_positive, check_prior, check_probability
from lastlayer.functional.class_priors import (
    as_class_counts,
    balanced_softmax_loss,
    class_balanced_weight,
    ldam_loss,
)
from lastlayer.functional.fenchel_young import cross_entropy
from lastlayer.functional.information import pc_softmax_loss
from lastlayer.functional.loss_arguments import LossArguments
from lastlayer.losses.base import ClassificationLoss
from lastlayer.losses.class_counts import CachedTensor, ExactBuffers, stored_counts


class _ClassCountsLoss(ExactBuffers, ClassificationLoss):
    """A loss that knows the class counts; they are kept as a buffer, whole numbers as int64."""

    class_counts: Tensor
    zero_counts: str = "error"
    #: Whether ``zero_counts`` is an argument.
    offers_mask: bool = False

    def _keep(
        self, class_counts: Tensor | Sequence[float], device: torch.device | None = None
    ) -> None:
        weight = self._buffers.get("weight")
        if device is None and weight is not None:
            device = weight.device
        counts = stored_counts(
            class_counts,
            None,
            device,
            zero_counts=self.zero_counts,
            offers_mask=self.offers_mask,
        )
        if weight is not None and len(weight) != len(counts):
            raise ValueError(
                f"weight must have one entry for each of the {len(counts)} classes counted; "
                f"got {len(weight)}"
            )
        self.register_buffer("class_counts", counts)

    def set_class_counts(self, class_counts: Tensor | Sequence[float]) -> None:
        """Take over new counts, of as many classes as there now are.

        Args:
            class_counts: (K,) counts.
        """
        self._keep(class_counts, self.class_counts.device)

    def _own(self) -> list[str]:
        return [f"counts of {len(self.class_counts)} classes"]


class BalancedSoftmaxLoss(_ClassCountsLoss):
    r"""Cross entropy of logits with the log of the training counts added.

    .. math:: L(\eta; y) = -\log \frac{n_y^\tau e^{\eta_y}}{\sum_j n_j^\tau e^{\eta_j}}

    Predict with the logits as they are: their softmax is the posterior under a uniform prior, in
    whatever mode the module is. For another prior see :func:`lastlayer.functional.adjust_logits`.
    The same formula with an exponent is known as the logit-adjusted loss.

    Args:
        class_counts: (K,) how often each class occurs in the whole training set.
        tau: exponent of the counts, at least 0; 1 by the theory, 1/4 by the source's bound.
        zero_counts: ``"error"`` refuses a class that never occurs; ``"mask"`` leaves it out of the
            softmax and of label smoothing.
        **arguments: {arguments}

    Raises:
        TypeError: if the counts are in half precision.
        ValueError: if an argument is out of range.

    Examples:
        >>> loss = BalancedSoftmaxLoss([90, 10])
        >>> loss
        BalancedSoftmaxLoss(counts of 2 classes, tau=1)
        >>> loss(torch.zeros(1, 2), torch.tensor([1]))
        tensor(2.3026)

    References:
        Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020.
        Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
    """

    offers_mask = True

    def __init__(
        self,
        class_counts: Tensor | Sequence[float],
        tau: float = 1.0,
        *,
        zero_counts: str = "error",
        **arguments: Unpack[LossArguments],
    ) -> None:
        check_at_least("tau", tau, 0.0)
        super().__init__(**arguments)
        self.tau, self.zero_counts = float(tau), zero_counts
        self._keep(class_counts)

    @classmethod
    def from_labels(cls, labels: Tensor, num_classes: int, tau: float = 1.0) -> Self:
        """Build the loss from the training set's labels.

        Args:
            labels: integers in [0, num_classes), of any shape.
            num_classes: K.
            tau: exponent of the counts.
        """
        return cls(torch.bincount(labels.flatten(), minlength=num_classes), tau)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, K, ...) for class indices (N, ...) or probabilities."""
        return balanced_softmax_loss(
            logits,
            target,
            self.class_counts,
            tau=self.tau,
            zero_counts=self.zero_counts,
            **self.arguments(),
        )

    def _own(self) -> list[str]:
        masked = [] if self.zero_counts == "error" else [f"zero_counts={self.zero_counts!r}"]
        return [*super()._own(), f"tau={self.tau:g}", *masked]


class ClassBalancedLoss(_ClassCountsLoss):
    r"""Cross entropy weighted by one over the effective number of each class's examples.

    .. math:: L(o; y) = -w_y \log \mathrm{softmax}_y(o), \qquad
        w_j \propto \frac{1 - \beta}{1 - \beta^{n_j}}

    The weights have mean 1 over the classes; ``"mean"`` divides by the batch's summed weights.

    Args:
        class_counts: (K,) how often each class occurs in the whole training set.
        beta: in [0, 1]; 0 is no weighting, 1 is weighting by 1/n.
        ignore_index: {ignore_index}
        reduction: {reduction}
        label_smoothing: {label_smoothing}

    Attributes:
        weight: (K,) the weights, by the counts that are there now.

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> loss = ClassBalancedLoss([30, 10], beta=1.0)
        >>> loss.weight
        tensor([0.5000, 1.5000])

    References:
        Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    """

    weight_is_given = False

    def __init__(
        self,
        class_counts: Tensor | Sequence[float],
        beta: float = 0.9999,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
        )
        check_probability("beta", beta)
        self.beta = float(beta)
        self._weights = CachedTensor()
        self._keep(class_counts)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The (K,) weights by the counts that are there now."""
        return self._weights(self._weigh, self.class_counts)

    def _weigh(self, class_counts: Tensor) -> Tensor:
        return class_balanced_weight(class_counts, beta=self.beta)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.pop(prefix + "weight", None)  # states of before held it beside the counts
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, K, ...) for class indices (N, ...) or probabilities."""
        return cross_entropy(logits, target, **self.arguments())

    def _own(self) -> list[str]:
        return [*super()._own(), f"beta={self.beta:g}"]


class LDAMLoss(_ClassCountsLoss):
    r"""Cross entropy of scaled cosines with a larger margin for rarer classes.

    .. math:: L(z; y) = -\log \frac{e^{s (z_y - m_y)}}
        {e^{s (z_y - m_y)} + \sum_{j \ne y} e^{s z_j}}, \qquad m_j \propto n_j^{-1/4}

    Its input are cosines of features and class weights, not scaled; predict with
    :math:`\mathrm{softmax}(s z)`. For deferred re-weighting assign ``loss.weight`` from
    :func:`lastlayer.functional.deferred_class_weight` as training goes on.

    Args:
        class_counts: (K,) how often each class occurs in the whole training set.
        max_margin: margin of the rarest class, above 0.
        scale: s, above 0.
        **arguments: {arguments}

    Raises:
        ValueError: if an argument is out of range or refused.

    Examples:
        >>> loss = LDAMLoss([160, 10])
        >>> loss
        LDAMLoss(counts of 2 classes, max_margin=0.5, scale=30)
        >>> loss(torch.tensor([[0.1, 0.3]]), torch.tensor([1]))
        tensor(9.0001)

    References:
        Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
        NeurIPS 2019.
    """

    refuses_smoothing = "the margin is that of one true class"

    def __init__(
        self,
        class_counts: Tensor | Sequence[float],
        max_margin: float = 0.5,
        scale: float = 30.0,
        **arguments: Unpack[LossArguments],
    ) -> None:
        check_positive("max_margin", max_margin)
        check_positive("scale", scale)
        super().__init__(**arguments)
        self.max_margin, self.scale = float(max_margin), float(scale)
        self._keep(class_counts)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of cosines (N, K, ...) for class indices (N, ...)."""
        return ldam_loss(
            logits,
            target,
            self.class_counts,
            max_margin=self.max_margin,
            scale=self.scale,
            **self.hard_arguments(),
        )

    def _own(self) -> list[str]:
        return [*super()._own(), f"max_margin={self.max_margin:g}", f"scale={self.scale:g}"]


class PCSoftmaxLoss(ExactBuffers, ClassificationLoss):
    r"""Negative log density ratio; its mean is minus a lower bound on the mutual information.

    .. math:: L(n; y) = \log \sum_j \pi_j e^{n_j} - n_y, \qquad \mathrm{E}\,L \ge -I(X; Y)

    The loss is normally negative, and that is no error: it starts near 0 and falls to minus the
    information of the input about the label, at best :math:`-H(Y)`. Its gradient is that of the
    cross entropy of :math:`n + \log \pi`, the loss known as Balanced Softmax or logit adjustment.
    With weights, soft targets or smoothing the value is no information; the gradient is sound.

    Trained so, logits hold the likelihood without the prior. The largest one is the decision that
    is best on average over classes; class probabilities under any prior come from
    :func:`lastlayer.functional.probability_corrected_log_prob`.

    Args:
        prior: (K,) class probabilities :math:`\pi` of the training data, sum 1; kept as a buffer.
        **arguments: {arguments}

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

    def __init__(self, prior: Tensor, **arguments: Unpack[LossArguments]) -> None:
        check_prior("prior", prior)
        super().__init__(**arguments)
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
        return pc_softmax_loss(logits, target, self.prior, **self.arguments())

    def _own(self) -> list[str]:
        return [f"prior of {len(self.prior)} classes"]
