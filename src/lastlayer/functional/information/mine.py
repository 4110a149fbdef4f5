"""The training objective of MINE, whose gradient divides by a moving average."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lastlayer._checks import check_inside, check_last_dim
from lastlayer.functional.numerics import at_least_float32


class MineStep(NamedTuple):
    r"""One step of MINE.

    Attributes:
        objective: scalar to maximise; only its gradient has a meaning.
        log_average: scalar, log of the moving average of :math:`e^f`, for the next step.
    """

    objective: Tensor
    log_average: Tensor


def mine_objective(
    joint: Tensor, marginal: Tensor, log_average: Tensor | None = None, *, rate: float = 0.01
) -> MineStep:
    r"""Donsker's and Varadhan's bound of a batch with the corrected gradient.

    .. math:: \nabla = \nabla \frac1B \sum_i f(x_i, y_i)
        - \frac{\nabla \frac1B \sum_i e^{f(x_i, y'_i)}}{a_t}, \qquad
        a_t = (1 - \eta) a_{t-1} + \eta\, \tfrac1B \sum_i e^{f(x_i, y'_i)}

    The gradient of a batch's own logarithm divides by the batch's mean and is biased; the moving
    average reduces that. Everything stays in the log domain.

    Args:
        joint: (B,) scores of the pairs.
        marginal: (B,) scores of shuffled pairs.
        log_average: log of the moving average so far; None before the first step.
        rate: :math:`\eta` in (0, 1].

    Returns:
        :class:`MineStep`.

    Raises:
        ValueError: if a shape or ``rate`` does not fit.

    Example:
        >>> step = mine_objective(torch.zeros(4), torch.zeros(4))
        >>> step.objective, step.log_average
        (tensor(-1.), tensor(0.))

    Source: Belghazi et al., "Mutual Information Neural Estimation", ICML 2018, section 3.2.
    """
    if rate != 1.0:
        check_inside("rate", rate, 0.0, 1.0)
    if joint.dim() != 1:
        raise ValueError(f"joint must have shape (B,); got {tuple(joint.shape)}")
    check_last_dim("marginal", marginal, len(joint))
    joint, marginal = at_least_float32(joint), at_least_float32(marginal)
    log_mean = torch.logsumexp(marginal, dim=-1) - math.log(len(joint))
    updated = log_mean.detach()
    if log_average is not None and rate < 1.0:
        updated = torch.logaddexp(log_average + math.log1p(-rate), updated + math.log(rate))
    return MineStep(joint.mean() - (log_mean - updated).exp(), updated)
