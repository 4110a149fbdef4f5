"""Class dropout and sampled softmax as loss modules: random in training, cross entropy in eval."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from lastlayer._checks import check_choice, check_probability, check_whole
from lastlayer.functional.class_sampling import class_dropout_loss, sampled_softmax_loss
from lastlayer.functional.fenchel_young import cross_entropy
from lastlayer.functional.layout import class_dim
from lastlayer.functional.loss_arguments import LossArguments
from lastlayer.losses.base import ClassificationLoss
from lastlayer.losses.class_counts import CheckpointedCounts, count_when_trained


class _SubsetLoss(ClassificationLoss):
    """A loss on a random subset of classes in training, the plain cross entropy in eval mode."""

    refuses_smoothing = "a dropped class has log-probability -inf, which no target may weigh"

    def forward(
        self, logits: Tensor, target: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the loss of logits (N, K, ...) for class indices (N, ...).

        Args:
            logits: (K,), (N, K) or (N, K, d1, ...).
            target: int64 class indices, (), (N,) or (N, d1, ...).
            generator: source of the noise, on the device of ``logits``; not used in eval mode.
        """
        if self.training:
            return self._training_loss(logits, target, generator)
        return cross_entropy(logits, target, **self.hard_arguments())

    def _training_loss(
        self, logits: Tensor, target: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        raise NotImplementedError


class ClassDropoutLoss(_SubsetLoss):
    r"""Cross entropy with every class but the target dropped at random while training.

    .. math:: L = \log \sum_k z_k e^{o_k} - o_t, \qquad z_t = 1,
        \quad z_k \sim \operatorname{Bernoulli}(\rho)

    Args:
        retain_prob: :math:`\rho` in [0, 1]; the paper tries 0.2, 0.4 and 0.6.
        **arguments: {arguments}

    Raises:
        ValueError: if an argument is out of range or refused.

    Examples:
        >>> loss = ClassDropoutLoss(retain_prob=0.4, reduction="sum")
        >>> loss
        ClassDropoutLoss(retain_prob=0.4, reduction='sum')
        >>> loss.eval()(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor(0.2395)

    References:
        Lee et al., "DropMax: Adaptive Variational Softmax", NeurIPS 2018 (baseline).
    """

    def __init__(self, retain_prob: float, **arguments: Unpack[LossArguments]) -> None:
        check_probability("retain_prob", retain_prob)
        super().__init__(**arguments)
        self.retain_prob = retain_prob

    def _training_loss(
        self, logits: Tensor, target: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        return class_dropout_loss(
            logits,
            target,
            self.retain_prob,
            **self.hard_arguments(),
            generator=generator,
        )

    def _own(self) -> list[str]:
        return [f"retain_prob={self.retain_prob:g}"]


class SampledSoftmaxLoss(_SubsetLoss):
    r"""Cross entropy over the target and a fixed number of sampled negatives while training.

    .. math:: L = \log \sum_{k \in S} e^{o_k - \log E_k} - (o_t - \log E_t)

    with expected counts E. The ``"learned"`` proposal is the running frequency of the labels: its
    counts start at 1 per class, and each batch is counted when the gradient of its loss is taken,
    once, in all processes of a distributed training together; inside ``torch.func`` nothing is
    counted.

    Args:
        num_samples: number of negatives per row, in [0, K - 1].
        proposal: ``"uniform"``, where the correction by E cancels, or ``"learned"``.
        num_classes: K; needed for ``"learned"``.
        **arguments: {arguments}

    Attributes:
        label_counts: (K,) int64 buffer of the running label counts, or None.

    Raises:
        ValueError: if an argument is out of range, refused, or missing.

    Examples:
        >>> loss = SampledSoftmaxLoss(num_samples=1, proposal="learned", num_classes=3)
        >>> loss(torch.zeros(2, 3, requires_grad=True), torch.tensor([0, 0])).backward()
        >>> loss.label_counts
        tensor([3, 1, 1])

    References:
        Jean et al., "On Using Very Large Target Vocabulary for Neural Machine Translation", ACL
        2015, section 3.
    """

    label_counts: Tensor | None

    def __init__(
        self,
        num_samples: int,
        proposal: str = "uniform",
        num_classes: int | None = None,
        **arguments: Unpack[LossArguments],
    ) -> None:
        check_whole("num_samples", num_samples, 0)
        check_choice("proposal", proposal, ("uniform", "learned"))
        if num_classes is None and proposal == "learned":
            raise ValueError("num_classes must be given for proposal='learned'; got None")
        if num_classes is not None and num_samples >= num_classes:
            raise ValueError(
                f"num_samples must be at most num_classes - 1 = {num_classes - 1}; "
                f"got {num_samples}"
            )
        super().__init__(**arguments)
        self.num_samples = num_samples
        self.proposal = proposal
        counts = None if proposal == "uniform" else torch.ones(num_classes or 0, dtype=torch.int64)
        self.register_buffer("label_counts", counts)
        self._drawn_from = CheckpointedCounts()

    def _training_loss(
        self, logits: Tensor, target: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        counts = self.label_counts
        if counts is not None and logits.shape[class_dim(logits)] != counts.shape[0]:
            raise ValueError(
                f"logits must have num_classes={counts.shape[0]} classes; "
                f"got shape {tuple(logits.shape)}"
            )
        loss = sampled_softmax_loss(
            logits,
            target,
            self.num_samples,
            None if counts is None else self._drawn_from(counts).to(torch.float32),
            **self.hard_arguments(),
            generator=generator,
        )
        if counts is None:
            return loss
        return count_when_trained(loss, counts, target, self.ignore_index)

    def _own(self) -> list[str]:
        return [f"num_samples={self.num_samples}, proposal={self.proposal!r}"]
