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


def centred_partition(rows: Tensor, log_prior: Tensor) -> tuple[Tensor, Tensor]:
    r"""Shift rows so that the largest prior-weighted logit is 0; return them and their partition.

    Their difference does not see the shift, but keeps its digits when the logits are large.
    """
    centred = rows - (rows + log_prior).detach().amax(dim=-1, keepdim=True)
    return centred, torch.logsumexp(centred + log_prior, dim=-1)
