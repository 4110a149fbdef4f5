"""Reliability tables and the expected calibration error, top-1 and pooled over all classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lastlayer._checks import check_choice
from lastlayer.evaluation._predictions import blocks, check_log_prob

KINDS = ("top1", "pooled")


@dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence against accuracy in equal-width bins.

    Attributes:
        confidence: (B,) float64 mean confidence of the bin, NaN where the bin is empty.
        accuracy: (B,) float64 share of the bin's predictions that are right, NaN where empty.
        count: (B,) int64 predictions in the bin.
    """

    confidence: Tensor
    accuracy: Tensor
    count: Tensor

    @property
    def ece(self) -> float:
        r"""Expected calibration error :math:`\sum_b \frac{n_b}{n}|\mathrm{acc}_b-\mathrm{conf}_b|`.

        A fraction in [0, 1]; empty bins add nothing.
        """
        gap = (self.accuracy - self.confidence).abs().nan_to_num(nan=0.0)
        return float((gap * self.count).sum() / self.count.sum())


class BinSums:
    """Running sums behind a ``Reliability`` table, fed one batch of predictions at a time."""

    def __init__(self, num_bins: int) -> None:
        if num_bins < 1:
            raise ValueError(f"num_bins must be at least 1; got {num_bins!r}")
        self.num_bins = num_bins
        # Inner edges only: below the first is bin 0, and a confidence of 1 falls in the last bin.
        self.edges = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64)[1:-1]
        self.sums = torch.zeros(3, num_bins, dtype=torch.float64)

    def add(self, confidence: Tensor, correct: Tensor) -> None:
        """Count (M,) float64 confidences and whether each was right."""
        index = torch.bucketize(confidence, self.edges, right=True)
        for row, weights in enumerate((None, confidence, correct.double())):
            self.sums[row] += torch.bincount(index, weights, minlength=self.num_bins)

    def table(self) -> Reliability:
        """The means of each bin."""
        count, confidence, correct = self.sums
        return Reliability(confidence / count, correct / count, count.long())


def add_top1(sums: BinSums, log_prob: Tensor, target: Tensor) -> None:
    """Count each row's most probable class: (its probability, is it the label)."""
    best, prediction = log_prob.max(dim=1)
    sums.add(best.exp(), prediction == target)


def add_pooled(sums: BinSums, log_prob: Tensor, target: Tensor) -> None:
    """Count all N*K pairs (class probability, is the class the label)."""
    is_label = one_hot(target, log_prob.shape[1])
    sums.add(log_prob.exp().flatten(), is_label.flatten())


def reliability(
    log_prob: Tensor, target: Tensor, kind: str = "top1", num_bins: int = 10
) -> Reliability:
    r"""Bin predictions by confidence and compare mean confidence with accuracy.

    ``"top1"`` bins the N pairs (probability of the predicted class, is it the label).
    ``"pooled"`` bins all N·K pairs (probability of class k, is k the label); this is the reading
    of the DropMax poster's reliability diagrams, which hold points below the 1/K that a top-1
    confidence cannot go under. Bins are ``[b/B, (b+1)/B)``; the last one includes 1.

    Args:
        log_prob: (N, K) log-probabilities in nats; ``-inf`` is probability zero.
        target: (N,) int64 labels in [0, K).
        kind: ``"top1"`` or ``"pooled"``.
        num_bins: number of equal-width bins B.

    Returns:
        The ``Reliability`` table; its ``ece`` is the expected calibration error.

    Raises:
        TypeError: if a dtype is wrong.
        ValueError: if ``kind`` is unknown, a shape is wrong, the input is empty, a label is out of
            range, a value is NaN, or a row's probabilities do not sum to 1.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017), eqs. 2, 3, 5; the pooled
    form is deduced from the plots of Lee et al., DropMax (2018).

    >>> log_prob = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.35, 0.65]]).log()
    >>> table = reliability(log_prob, torch.tensor([0, 1, 1]), num_bins=2)
    >>> table.count.tolist()
    [0, 3]
    >>> round(table.ece, 4)
    0.1167
    """
    check_choice("kind", kind, KINDS)
    log_prob, target = check_log_prob(log_prob, target)
    sums = BinSums(num_bins)
    add = add_top1 if kind == "top1" else add_pooled
    for block, labels in blocks(log_prob, target):
        add(sums, block, labels)
    return sums.table()
