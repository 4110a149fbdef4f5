"""Targets of a head's loss: checked against the features, then flat."""

from __future__ import annotations

import math

from torch import Tensor


def flat_target(
    target: Tensor, features: Tensor, num_classes: int, *, head: str, soft_refusal: str | None
) -> Tensor:
    """Check a target against (*, D) features; return (N,) indices or (N, K) probabilities.

    Args:
        target: (*) class indices or (*, K) probabilities.
        features: (*, D).
        num_classes: K.
        head: name of the head, for the message.
        soft_refusal: why probabilities are refused, or None where they are not.
    """
    leading = tuple(features.shape[:-1])
    soft = target.is_floating_point()
    if soft and soft_refusal is not None:
        raise ValueError(
            f"{head} takes int64 class indices of shape {leading}; got a "
            f"target of dtype {target.dtype}: {soft_refusal}"
        )
    expected = (*leading, num_classes) if soft else leading
    if tuple(target.shape) != expected:
        raise ValueError(
            f"target must have shape {expected} to match features {tuple(features.shape)}; "
            f"got {tuple(target.shape)}"
        )
    return target.reshape(math.prod(leading), *expected[len(leading) :])
