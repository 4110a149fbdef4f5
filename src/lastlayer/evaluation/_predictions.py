"""Checks on (log-probabilities, labels), and their rows in float64 blocks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lastlayer._checks import check_floating

BLOCK_ELEMENTS = 2**22  # 32 MiB of float64: the pooled metrics of 50,000 x 1,000 stay small


def check_scores(name: str, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, K) scores, finite or ``-inf``, and (N,) labels on the CPU, detached, or raise."""
    check_floating(name, scores)
    if scores.dim() != 2 or scores.shape[0] == 0 or scores.shape[1] < 2:
        raise ValueError(
            f"{name} must have shape (N, K) with N >= 1 rows and K >= 2 classes; "
            f"got {tuple(scores.shape)}"
        )
    if target.dtype != torch.int64:
        raise TypeError(f"target must hold int64 class indices; got dtype {target.dtype}")
    if target.shape != scores.shape[:1]:
        raise ValueError(
            f"target must have shape ({scores.shape[0]},), one label per row of {name}; "
            f"got {tuple(target.shape)}"
        )
    # The CPU, because float64 is missing on some accelerators.
    scores, target = scores.detach().cpu(), target.detach().cpu()
    outside = (target < 0) | (target >= scores.shape[1])
    if bool(outside.any()):
        raise ValueError(
            f"target must lie in [0, {scores.shape[1] - 1}]; "
            f"got {int(target[outside][0])} in row {int(outside.nonzero()[0])}"
        )
    bad = (scores.isnan() | (scores == float("inf"))).any(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"{name} must be finite or -inf; {int(bad.sum())} rows hold NaN or +inf, "
            f"the first is row {int(bad.nonzero()[0])}"
        )
    return scores, target


def check_log_prob(log_prob: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """As ``check_scores``, and raise unless every row's probabilities sum to 1."""
    log_prob, target = check_scores("log_prob", log_prob, target)
    tolerance = 1e-3 if log_prob.dtype in (torch.float32, torch.float64) else 5e-2
    total = torch.cat([block.exp().sum(dim=1) for block, _ in blocks(log_prob, target)])
    wrong = (total - 1.0).abs() > tolerance
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"log_prob rows must be log-probabilities: they sum to {float(total[row]):.6g} "
            f"instead of 1 in row {row} ({int(wrong.sum())} such rows); "
            "pass logits through log_softmax first"
        )
    return log_prob, target


def blocks(log_prob: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (float64 rows, their labels), a bounded number of elements at a time."""
    rows = max(1, BLOCK_ELEMENTS // log_prob.shape[1])
    for start in range(0, len(target), rows):
        yield log_prob[start : start + rows].double(), target[start : start + rows]
