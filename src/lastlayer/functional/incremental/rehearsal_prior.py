"""The class counts of a step of incremental learning, as balanced softmax takes them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lastlayer._checks import check_at_least, check_positive, check_whole
from lastlayer.functional.class_priors.counts import as_class_counts


def rehearsal_counts(
    class_counts: Tensor | Sequence[float],
    num_old: int,
    *,
    alpha: float = 1.0,
    epsilon: float = 0.0,
) -> Tensor:
    r"""Counts for the balanced softmax of one step: the old classes' ones scaled.

    .. math:: \lambda_j = \begin{cases}
        \alpha \, c_j & \text{old class with } c_j > 0 \\
        \epsilon & \text{old class with } c_j = 0 \\
        c_j & \text{new class}
        \end{cases}

    where c counts the step's training set, new data and memory together, as the loader yields
    them; under a class-balanced sampler c is uniform. Give the result to
    :func:`~lastlayer.functional.balanced_softmax_loss`, with ``zero_counts="mask"`` where one is 0.

    The learned logits then estimate :math:`\log p(x \mid y) + \log (c_y / \lambda_y)`: the raw
    logits of old classes gain :math:`-\log\alpha`. Below 1 old classes are favoured, above 1 the
    new ones. Without a memory, :math:`\epsilon = 0` takes the old classes out of the softmax, and
    :math:`\epsilon` as large as the new counts gives the plain cross entropy.

    What of this is published was not checked: of the paper only the abstract was read, which tells
    of balanced softmax against the memory's imbalance and of learning without memory. That
    :math:`\lambda` is the step's count, the coefficient :math:`\alpha` and the small
    :math:`\epsilon` (the relaxed form) are from memory. The statement on the logits is derived.

    Args:
        class_counts: c, (K,) counts of the seen classes, the old ones first.
        num_old: how many are old, in [0, K].
        alpha: :math:`\alpha`, above 0.
        epsilon: :math:`\epsilon`, at least 0.

    Returns:
        :math:`\lambda`, (K,) in float64.

    Raises:
        TypeError: if the counts are in half precision.
        ValueError: if an argument is out of range.

    Example:
        >>> rehearsal_counts([20, 0, 500], num_old=2, alpha=0.5, epsilon=1e-3).tolist()
        [10.0, 0.001, 500.0]

    Source: Jodelet et al., "Balanced softmax cross-entropy for incremental learning with and
    without memory", Computer Vision and Image Understanding 2022 (see above).
    """
    check_positive("alpha", alpha)
    check_at_least("epsilon", epsilon, 0.0)
    counts = as_class_counts(class_counts, zero_counts="mask").double()
    check_whole("num_old", num_old, 0, len(counts))
    scaled = counts.clone()
    old = counts[:num_old]
    scaled[:num_old] = (alpha * old).masked_fill(old == 0, epsilon)
    return scaled
