"""Small numerical helpers that several functions share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import check_generator


def drawn_by(generator: torch.Generator | None) -> dict[str, Any]:
    """Return the argument ``generator`` of a factory such as ``torch.rand``, left out if None.

    Compiled code takes no ``generator=None`` beside a shape that is not known yet.

    Raises:
        RuntimeError: as :func:`lastlayer._checks.check_generator` does.
    """
    check_generator(generator)
    return {} if generator is None else {"generator": generator}


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return half-precision tensors in float32, others as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def log_with_zeros(prob: Tensor) -> Tensor:
    """Return the log of probabilities, -inf at exact zeros, which get the gradient 0, not NaN."""
    absent = prob <= 0
    return torch.where(absent, 1.0, prob).log().masked_fill(absent, -torch.inf)


def softplus(value: Tensor) -> Tensor:
    """Return log(1 + exp(value)); torch's default threshold would cost float64 eight digits."""
    return F.softplus(value, threshold=40.0)


def log_mixture(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Return log(share e^first + (1 - share) e^second), exactly ``first`` where both are equal."""
    swap = second > first
    larger, smaller = torch.where(swap, second, first), torch.where(swap, first, second)
    # Filled on the device: a number copied to it would wait for it.
    share_of_smaller = torch.where(swap, first.new_full((), share), first.new_full((), 1 - share))
    return larger + torch.log1p(share_of_smaller * torch.expm1(smaller - larger))


def centered_partition(rows: Tensor, log_prior: Tensor) -> tuple[Tensor, Tensor]:
    r"""Shift rows so that the largest prior-weighted logit is 0; return them and their partition.

    Their difference does not see the shift, but keeps its digits when the logits are large.
    """
    centered = rows - (rows + log_prior).detach().amax(dim=-1, keepdim=True)
    return centered, torch.logsumexp(centered + log_prior, dim=-1)


def unit_rows(rows: Tensor) -> Tensor:
    r"""Divide every row by its Euclidean norm; a row of zeros stays, with gradient 0.

    .. math:: u_i = f_i / \lVert f_i \rVert_2

    Args:
        rows: (*, D) with D >= 1; half precision is computed in float32.

    Returns:
        (*, D) in float32 or float64.

    Example:
        >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    rows = at_least_float32(rows)
    # Scaled first, so that no square leaves the range of the dtype.
    peak = rows.detach().abs().amax(dim=-1, keepdim=True)
    scaled = rows / torch.where(peak > 0, peak, 1.0)
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    # A row of zeros is cut from the gradient; one of NaN stays NaN.
    return torch.where(peak == 0, 0.0, scaled / torch.where(norm > 0, norm, 1.0))
