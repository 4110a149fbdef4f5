"""Weight alignment: rows of new classes as long as those of old ones."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import can_look, check_matrix, check_whole
from lastlayer.functional.numerics import at_least_float32


def alignment_factor(weight: Tensor, num_old: int) -> Tensor:
    r"""By how much the weights of new classes are to be multiplied.

    .. math:: \gamma = \frac{\frac1{|O|} \sum_{j \in O} \lVert w_j \rVert_2}
        {\frac1{|N|} \sum_{j \in N} \lVert w_j \rVert_2}

    over old classes O and new ones N; 1 where there are none of one kind.

    Args:
        weight: (K, D) rows of the classes, the old ones first; half precision is computed in
            float32.
        num_old: how many are old, in [0, K].

    Returns:
        :math:`\gamma`, a scalar.

    Raises:
        TypeError: if ``weight`` is not floating point.
        ValueError: if an argument does not fit, or all rows of new classes are zero.

    Example:
        >>> alignment_factor(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), num_old=1)
        tensor(0.5000)

    Source: Zhao et al., "Maintaining Discrimination and Fairness in Class Incremental Learning",
    CVPR 2020.
    """
    check_matrix("weight", weight)
    check_whole("num_old", num_old, 0, len(weight))
    norms: Tensor = torch.linalg.vector_norm(at_least_float32(weight), dim=-1)
    if num_old in (0, len(weight)):
        return norms.new_ones(())
    new = norms[num_old:].mean()
    if can_look(new, wait=True) and not bool(new > 0):
        raise ValueError(
            f"weight must have a row of a new class that is not zero; all {len(weight) - num_old} "
            "are, so that no factor makes them as long as the old ones"
        )
    return norms[:num_old].mean() / new


def aligned_weight(weight: Tensor, num_old: int) -> Tensor:
    r"""Return the classifier's weight with the rows of new classes scaled by the factor.

    .. math:: w_j' = \gamma \, w_j \quad \text{for new classes}

    Biases are no part of it, as a bias has no norm to compare: leave them, or train without.

    Args:
        weight: (K, D), see :func:`alignment_factor`.
        num_old: how many classes are old, in [0, K].

    Returns:
        (K, D) in the dtype of ``weight``; old rows bit for bit.

    Raises:
        TypeError: if ``weight`` is not floating point.
        ValueError: as :func:`alignment_factor`.

    Example:
        >>> aligned_weight(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), num_old=1)
        tensor([[1., 0.],
                [0., 1.]])

    Source: Zhao et al., "Maintaining Discrimination and Fairness in Class Incremental Learning",
    CVPR 2020.
    """
    factor = alignment_factor(weight, num_old)
    new = (at_least_float32(weight[num_old:]) * factor).to(weight.dtype)
    return torch.cat((weight[:num_old], new))
