"""The old classes' weight in balanced softmax, learned for the loss on balanced data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lastlayer._checks import check_at_least, check_inside
from lastlayer.functional.incremental import old_weight_gradient, rehearsal_counts
from lastlayer.functional.numerics import at_least_float32
from lastlayer.longtail.meta_sampler import OwnAdam

#: The weight stays within these bounds; beyond them it stands for no class balance any more.
MIN_ALPHA, MAX_ALPHA = 0.01, 100.0


class MetaOldWeight(nn.Module):
    r"""Learn by how much old classes' counts are scaled in the balanced softmax of a step.

    The weight is :math:`\alpha = e^a`, kept within [0.01, 100]. Before a step of the classifier,
    :meth:`meta_step` moves a by one step of its Adam down the gradient of

    .. math:: L\Bigl(\theta - \eta \nabla_\theta \tfrac1B
        \sum_i \ell_i(\theta; \lambda(\alpha))\Bigr)

    with :math:`\ell` the balanced softmax loss under the counts :math:`\lambda(\alpha)` of
    :func:`~lastlayer.functional.incremental.rehearsal_counts` and L the plain cross-entropy on a
    balanced meta batch, such as exemplars and as many new examples of every class. The gradient is
    the closed form for a linear classifier on features. What it saves (``state_dict``) holds Adam's
    moments too, all of it tensors.

    That the published method has a version which learns this weight on two levels is from memory;
    its details could not be checked, and these are ours, after the Meta Sampler.

    Args:
        initial: :math:`\alpha` at the beginning, within its bounds.
        lr: learning rate of a's Adam, above 0.
        betas: Adam's decay rates.
        epsilon: the count of an old class without exemplars, at least 0.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> weight, features, target = torch.zeros(3, 4), torch.randn(8, 4), torch.arange(8) % 3
        >>> old_weight = MetaOldWeight()
        >>> loss = old_weight.meta_step(
        ...     weight, None, features, target, [2, 2, 50], 2, features, target, lr=0.1
        ... )
        >>> bool(0.9 < old_weight.alpha < 1.1)
        True

    Source: Jodelet et al., "Balanced softmax cross-entropy for incremental learning with and
    without memory", Computer Vision and Image Understanding 2022, as far as remembered; Ren et al.,
    "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020.
    """

    def __init__(
        self,
        *,
        initial: float = 1.0,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        epsilon: float = 0.0,
    ) -> None:
        super().__init__()
        check_at_least("epsilon", epsilon, 0.0)
        check_inside("initial", initial, MIN_ALPHA, MAX_ALPHA)
        self.epsilon = epsilon
        self.log_alpha = nn.Parameter(torch.tensor(math.log(initial)))
        self.adam = OwnAdam(self.log_alpha, lr=lr, betas=betas)

    @property
    def alpha(self) -> float:
        r"""The current weight :math:`\alpha`."""
        return math.exp(float(self.log_alpha.detach()))

    def counts(self, class_counts: Tensor | Sequence[float], num_old: int) -> Tensor:
        """Return the (K,) counts for the balanced softmax of the step, in float64."""
        return rehearsal_counts(class_counts, num_old, alpha=self.alpha, epsilon=self.epsilon)

    def meta_step(
        self,
        classifier_weight: Tensor,
        classifier_bias: Tensor | None,
        features: Tensor,
        target: Tensor,
        class_counts: Tensor | Sequence[float],
        num_old: int,
        meta_features: Tensor,
        meta_target: Tensor,
        *,
        lr: float,
    ) -> Tensor:
        """Move the weight by one step of its Adam; the classifier stays as it is.

        Where all classes are old, or all are new, the weight changes nothing and stays.

        Args:
            classifier_weight: (K, D) rows of the classes, the old ones first.
            classifier_bias: (K,), or None.
            features: (B, D) features of the batch.
            target: (B,) int64 labels.
            class_counts: (K,) counts of the step's training set.
            num_old: how many classes are old, in [0, K].
            meta_features: (M, D) features of a class-balanced batch.
            meta_target: (M,) int64 labels.
            lr: step size of the virtual step, as a rule the current one of the classifier's
                optimizer.

        Returns:
            The meta batch's loss after the virtual step, without gradient.

        Raises:
            ValueError: if an argument is out of range or a batch is empty.
            FloatingPointError: if the weight's gradient is not finite.
        """
        rows = at_least_float32(classifier_weight.detach())
        loss, gradient = old_weight_gradient(
            rows,
            features.detach().to(rows),
            target,
            class_counts,
            num_old,
            meta_features.detach().to(rows),
            meta_target,
            lr=lr,
            bias=None if classifier_bias is None else classifier_bias.detach().to(rows),
            alpha=self.alpha,
            epsilon=self.epsilon,
        )
        if num_old in (0, len(rows)):
            return loss
        if not bool(torch.isfinite(gradient)):
            raise FloatingPointError(
                f"the gradient of the old classes' weight is not finite (meta loss {float(loss):g})"
                "; try a smaller learning rate"
            )
        self.adam.step(self.log_alpha, gradient.to(self.log_alpha))
        with torch.no_grad():
            self.log_alpha.clamp_(math.log(MIN_ALPHA), math.log(MAX_ALPHA))
        return loss

    def extra_repr(self) -> str:
        """Return the arguments and the weight."""
        return f"alpha={self.alpha:g}, epsilon={self.epsilon}"
