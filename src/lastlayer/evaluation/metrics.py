"""One call from log-probabilities and labels to every number a comparison reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import Tensor
from torch.nn.functional import one_hot

from lastlayer.evaluation._predictions import blocks, check_log_prob
from lastlayer.evaluation.calibration import BinSums, add_pooled, add_top1


@dataclass(frozen=True)
class Metrics:
    """Measures of predicted probabilities; lower is better for all but ``count``.

    Attributes:
        error: share of rows whose most probable class is not the label, in [0, 1].
        nll: mean negative log-likelihood of the label, in nats; inf if a label has probability 0.
        brier: mean over rows of the squared error summed over classes, in [0, 2].
        ece: expected calibration error of the most probable class, in [0, 1].
        ece_pooled: expected calibration error over all (class, row) pairs, in [0, 1].
        zero_prob_rows: rows whose label has probability zero; they make ``nll`` infinite.
        count: rows evaluated.
    """

    error: float
    nll: float
    brier: float
    ece: float
    ece_pooled: float
    zero_prob_rows: int
    count: int

    def as_dict(self) -> dict[str, float | int]:
        """The measures by name, in declaration order."""
        return asdict(self)


def evaluate(log_prob: Tensor, target: Tensor, *, num_bins: int = 10) -> Metrics:
    r"""Error, NLL, Brier score and calibration of predicted log-probabilities.

    .. math::
        \mathrm{error} &= \tfrac1N\sum_i [\arg\max_k p_{ik} \ne t_i], &
        \mathrm{nll} &= -\tfrac1N\sum_i \log p_{i t_i}, \\
        \mathrm{brier} &= \tfrac1N\sum_i\sum_k (p_{ik} - [k = t_i])^2, &
        \mathrm{ece} &= \sum_b \tfrac{n_b}{n} |\mathrm{acc}_b - \mathrm{conf}_b|.

    A tie goes to the lowest class index. Sums are taken in float64 on the CPU.

    Args:
        log_prob: (N, K) log-probabilities in nats; ``-inf`` is probability zero.
        target: (N,) int64 labels in [0, K).
        num_bins: equal-width confidence bins of both calibration errors.

    Returns:
        A ``Metrics``.

    Raises:
        TypeError: if a dtype is wrong.
        ValueError: if a shape is wrong, the input is empty, a label is out of range, a value is
            NaN, or a row's probabilities do not sum to 1.

    >>> import torch
    >>> metrics = evaluate(torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log(), torch.tensor([1, 1]))
    >>> metrics.error, round(metrics.nll, 4), round(metrics.brier, 4)
    (0.5, 0.4904, 0.3125)
    """
    log_prob, target = check_log_prob(log_prob, target)
    top1, pooled = BinSums(num_bins), BinSums(num_bins)
    wrong, zero_prob_rows, nll, brier = 0, 0, 0.0, 0.0
    for block, labels in blocks(log_prob, target):
        label_log_prob = block.gather(1, labels[:, None])
        wrong += int((block.argmax(dim=1) != labels).sum())
        zero_prob_rows += int((label_log_prob == -float("inf")).sum())
        nll -= float(label_log_prob.sum())
        residual = block.exp() - one_hot(labels, block.shape[1])
        brier += float(residual.square().sum())
        add_top1(top1, block, labels)
        add_pooled(pooled, block, labels)
    count = len(target)
    return Metrics(
        error=wrong / count,
        nll=nll / count,
        brier=brier / count,
        ece=top1.table().ece,
        ece_pooled=pooled.table().ece,
        zero_prob_rows=zero_prob_rows,
        count=count,
    )
