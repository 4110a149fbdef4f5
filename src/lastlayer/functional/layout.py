"""torch's layout of classification tensors, (N, K, d1, ...), and the (M, K) rows we compute on."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_floating


def class_dim(logits: Tensor) -> int:
    """Class dimension as in ``torch.nn.functional.cross_entropy``: 0 for (K,), else 1.

    Args:
        logits: (K,), (N, K) or (N, K, d1, ...).

    Returns:
        0 or 1.

    Raises:
        ValueError: if ``logits`` is a scalar or has no class.

    Examples:
        >>> class_dim(torch.zeros(2, 5, 7, 7))
        1
    """
    dim = 0 if logits.dim() == 1 else 1
    if logits.dim() == 0 or logits.shape[dim] == 0:
        raise ValueError(
            "logits must have shape (K,), (N, K) or (N, K, d1, ...) with K >= 1; "
            f"got {tuple(logits.shape)}"
        )
    return dim


def target_shape(logits: Tensor) -> torch.Size:
    """Shape of class-index targets for ``logits``: the same without the class dimension.

    Args:
        logits: (K,), (N, K) or (N, K, d1, ...).

    Returns:
        (), (N,) or (N, d1, ...).

    Raises:
        ValueError: if ``logits`` is a scalar or has no class.

    Examples:
        >>> target_shape(torch.zeros(2, 5, 7, 7))
        torch.Size([2, 7, 7])
    """
    dim = class_dim(logits)
    return torch.Size((*logits.shape[:dim], *logits.shape[dim + 1 :]))


def flatten_classes(logits: Tensor) -> Tensor:
    """Bring logits, or anything of their shape, to one row per prediction.

    Args:
        logits: (K,), (N, K) or (N, K, d1, ...).

    Returns:
        (M, K) with M = 1, N or N * d1 * ...

    Raises:
        ValueError: if ``logits`` is a scalar or has no class.

    Examples:
        >>> flatten_classes(torch.zeros(2, 5, 7, 7)).shape
        torch.Size([98, 5])
    """
    rows = logits.movedim(class_dim(logits), -1)
    return rows.reshape(target_shape(logits).numel(), rows.shape[-1])


def flatten_target(target: Tensor, logits: Tensor) -> Tensor:
    """Bring class indices or class probabilities to the rows of ``flatten_classes(logits)``.

    Args:
        target: integer class indices of shape ``target_shape(logits)``, or floating-point class
            probabilities of the shape of ``logits``.
        logits: (K,), (N, K) or (N, K, d1, ...).

    Returns:
        (M,) class indices or (M, K) probabilities.

    Raises:
        ValueError: if the shapes do not fit.

    Examples:
        >>> flatten_target(torch.zeros(2, 7, 7, dtype=torch.int64), torch.zeros(2, 5, 7, 7)).shape
        torch.Size([98])
    """
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
    """Rows of logits in at least float32, the precision every loss is computed in.

    Args:
        logits: (K,), (N, K) or (N, K, d1, ...), floating point.

    Returns:
        (M, K) in float32 or float64.

    Raises:
        TypeError: if ``logits`` is not floating point.
        ValueError: if ``logits`` is a scalar or has no class.

    Examples:
        >>> float_rows(torch.zeros(3, 5, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    check_floating("logits", logits)
    return flatten_classes(logits).to(torch.promote_types(logits.dtype, torch.float32))
