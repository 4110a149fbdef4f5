"""Checks that every estimate begins with."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from lastlayer._checks import check_class_indices, check_floating
from lastlayer.functional.information import InformationWarning

TRAINING_NOTE = (
    "Estimated on training examples: the value tends to H(Y) whatever the truth, and bounds nothing"
)


def checked_scores(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, K) scores in float64 and (N,) labels, both detached and on the CPU.

    ``-inf`` passes (a class with probability zero); NaN and ``+inf`` do not.
    """
    check_floating("scores", scores)
    if scores.dim() != 2 or scores.numel() == 0:
        raise ValueError(
            f"scores must have shape (N, K) with N >= 1 rows and K >= 1 classes; "
            f"got {tuple(scores.shape)}"
        )
    if target.shape != scores.shape[:1]:
        raise ValueError(
            f"target must have shape ({len(scores)},), one label per row of scores; "
            f"got {tuple(target.shape)}"
        )
    # The CPU, because float64 is missing on some accelerators.
    scores, target = scores.detach().cpu().double(), target.detach().cpu()
    check_class_indices(target, scores.shape[1])
    bad = (scores.isnan() | (scores == torch.inf)).any(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"scores must be finite or -inf; {int(bad.sum())} rows hold NaN or +inf, "
            f"the first is row {int(bad.nonzero()[0])}"
        )
    return scores, target


def warn_of_training(held_out: bool, *, stacklevel: int = 3) -> tuple[str, ...]:
    """Warn if the examples are not held out, and return the note to go with the estimate."""
    if held_out:
        return ()
    warnings.warn(f"{TRAINING_NOTE}.", InformationWarning, stacklevel=stacklevel)
    return (f"{TRAINING_NOTE}.",)
