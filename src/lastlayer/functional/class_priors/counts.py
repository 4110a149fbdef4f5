"""How often every class occurs: checked, and as logarithms that low precision cannot spoil."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lastlayer._checks import can_look, check_choice, is_whole

#: What to do with a class that never occurs: refuse it, or leave it out of the softmax.
ZERO_COUNTS = ("error", "mask")


def as_class_counts(
    class_counts: Tensor | Sequence[float] | Mapping[int, float],
    num_classes: int | None = None,
    *,
    zero_counts: str = "error",
    offers_mask: bool = True,
) -> Tensor:
    """Return class counts as a tensor, or raise unless they are what a correction can use.

    Only ratios matter, so that probabilities pass as well. Half precision does not: bfloat16 makes
    256 of 257, and float16 ends at 65504.

    Args:
        class_counts: (K,) numbers of at least 0, not all 0; whole numbers or float32 or float64. A
            dict, a ``Counter`` or a pandas Series has the classes 0 to K - 1 as keys or index, in
            any order.
        num_classes: K, if it is known.
        zero_counts: ``"error"`` refuses a class that never occurs, ``"mask"`` lets it pass.
        offers_mask: whether who asks has the argument ``zero_counts``, and so the error names it.

    Returns:
        (K,) int64 for whole numbers, else float32 or float64.

    Raises:
        TypeError: if there is something else than numbers, or the dtype is half precision, bool or
            complex.
        ValueError: if a number, the shape or a key does not fit. Numbers are looked at on the CPU
            only.

    Examples:
        >>> as_class_counts([50, 5, 1])
        tensor([50,  5,  1])
        >>> as_class_counts([50, 0, 1], zero_counts="mask")
        tensor([50,  0,  1])
        >>> as_class_counts({2: 1, 0: 50, 1: 5})
        tensor([50,  5,  1])
    """
    check_choice("zero_counts", zero_counts, ZERO_COUNTS)
    counts = class_counts if isinstance(class_counts, Tensor) else _as_tensor(class_counts)
    if counts.dtype in (torch.float16, torch.bfloat16, torch.bool) or counts.is_complex():
        raise TypeError(
            "class_counts must hold whole numbers, float32 or float64, for half precision rounds "
            f"counts; got {counts.dtype}"
        )
    if not counts.is_floating_point():
        counts = counts.to(torch.int64)
    if (
        counts.dim() != 1
        or not len(counts)
        or (num_classes is not None and len(counts) != num_classes)
    ):
        wanted = "K" if num_classes is None else num_classes
        raise ValueError(
            f"class_counts must have shape ({wanted},), one number per class; "
            f"got {tuple(counts.shape)}"
        )
    if can_look(counts):
        _check_numbers(counts.detach(), zero_counts, offers_mask)
    return counts


def log_class_counts(class_counts: Tensor, like: Tensor) -> Tensor:
    r"""Return :math:`\log n_j - \log \max_i n_i` in the precision and on the device of a tensor.

    The logarithm is taken of counts in that precision, not of counts rounded to the logits' half
    precision. The shift changes no softmax, and makes equal counts exactly 0.

    Args:
        class_counts: (K,) checked counts.
        like: a float32 or float64 tensor.

    Returns:
        (K,) at most 0; -inf for a class that never occurs.

    Example:
        >>> log_class_counts(torch.tensor([8, 8, 0]), torch.zeros(1))
        tensor([0., 0., -inf])
    """
    log_counts = class_counts.to(like).log()
    return log_counts - log_counts.amax(0)


def _as_tensor(class_counts: Any) -> Tensor:
    in_order = _in_class_order(class_counts)
    try:
        # Looked at on the CPU, also where new tensors are made on another device.
        return torch.as_tensor(in_order, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            "class_counts must hold one number per class, in a tensor, an array, a list or a "
            f"mapping; got {type(class_counts).__name__} {repr(class_counts)[:40]}"
        ) from error


def _in_class_order(class_counts: Any) -> Any:
    """Return the counts of a mapping or a pandas Series by class; others are taken to be so."""
    if isinstance(class_counts, Mapping):
        classes, counts = list(class_counts), list(class_counts.values())
    elif hasattr(class_counts, "index") and hasattr(class_counts, "to_numpy"):
        classes, counts = list(class_counts.index), class_counts.to_numpy().tolist()
    else:
        return class_counts
    if not all(map(is_whole, classes)) or sorted(classes) != list(range(len(classes))):
        raise ValueError(
            "class_counts with keys or an index must name every class from 0 on once, also one "
            f"with count 0; got {len(classes)}, among them {classes[:5]}"
        )
    return [counts[place] for place in sorted(range(len(classes)), key=classes.__getitem__)]


def _check_numbers(counts: Tensor, zero_counts: str, offers_mask: bool) -> None:
    if not bool((torch.isfinite(counts) & (counts >= 0)).all()) or not bool((counts > 0).any()):
        raise ValueError(
            "class_counts must hold finite numbers of at least 0, not all 0; got smallest entry "
            f"{float(counts.min()):g} and sum {float(counts.double().sum()):g}"
        )
    if zero_counts == "error" and bool((counts == 0).any()):
        remedy = ", or say zero_counts='mask' for a softmax over the classes that do"
        raise ValueError(
            f"class_counts must be above 0; class {int((counts == 0).nonzero()[0])} never occurs: "
            f"leave it out{remedy if offers_mask else ''}"
        )
