"""torch's layout of classification tensors, (N, K, d1, ...), and the (M, K) rows we compute on."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_floating


def class_dim(logits: Tensor) -> int:
    """Class dimension as in ``torch.nn.functional.cross_entropy``: 0 for (K,), else 1."""
    dim = 0 if logits.dim() == 1 else 1
    if logits.dim() == 0 or logits.shape[dim] == 0:
        raise ValueError(
            "logits must have shape (K,), (N, K) or (N, K, d1, ...) with K >= 1; "
            f"got {tuple(logits.shape)}"
        )
    return dim


def target_shape(logits: Tensor) -> torch.Size:
    """Shape of class-index targets for ``logits``: the same without the class dimension."""
    dim = class_dim(logits)
    return torch.Size((*logits.shape[:dim], *logits.shape[dim + 1 :]))


def flatten_classes(logits: Tensor) -> Tensor:
    """Bring logits, or anything of their shape, to one row per prediction.

    >>> flatten_classes(torch.zeros(2, 5, 7, 7)).shape
    torch.Size([98, 5])
    """
    rows = logits.movedim(class_dim(logits), -1)
    return rows.reshape(target_shape(logits).numel(), rows.shape[-1])


def flatten_target(target: Tensor, logits: Tensor) -> Tensor:
    """Bring class indices or class probabilities to the rows of ``flatten_classes(logits)``."""
    soft = target.is_floating_point()
    expected = logits.shape if soft else target_shape(logits)
    if target.shape != expected:
        kind = "class probabilities" if soft else "class indices"
        raise ValueError(
            f"target of {kind} must have shape {tuple(expected)} for logits of shape "
            f"{tuple(logits.shape)}; got {tuple(target.shape)}"
        )
    return flatten_classes(target) if soft else target.reshape(-1)


def float_rows(logits: Tensor) -> Tensor:
    """Rows of logits in at least float32, the precision every loss is computed in."""
    check_floating("logits", logits)
    return flatten_classes(logits).to(torch.promote_types(logits.dtype, torch.float32))
