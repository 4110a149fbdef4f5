"""What every estimate returns, and the standard error of a mean."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class BoundEstimate(NamedTuple):
    """An estimate of a bound on the mutual information.

    Attributes:
        value: scalar in nats, differentiable with respect to the scores; not clipped.
        standard_error: scalar in nats, without gradient; NaN from a single example and wherever
            the value is infinite.
    """

    value: Tensor
    standard_error: Tensor


def standard_error(influence: Tensor) -> Tensor:
    r"""Standard error of the mean of independent values, :math:`s / \sqrt n`.

    Args:
        influence: (N,) what each example adds to N times the estimate.

    Returns:
        A scalar without gradient, NaN for N = 1.

    Example:
        >>> standard_error(torch.tensor([0.0, 2.0]))
        tensor(1.)
    """
    influence = influence.detach()
    if len(influence) < 2:
        return influence.new_full((), math.nan)
    return torch.std(influence) / math.sqrt(len(influence))
