"""Scores of features for a label, each beside what it gives for labels in random order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lastlayer._checks import as_label_tensor, check_whole
from lastlayer._text import aligned
from lastlayer.functional import dependence as dp
from lastlayer.functional import transferability as tf
from lastlayer.functional.dependence.class_spread import class_spread
from lastlayer.functional.information import entropy, plug_in_information_null

# Numbers of responses held at once: bounds the memory, not the result.
_BLOCK_ELEMENTS = 2**24


class QualityScore(NamedTuple):
    """A score, and what it gives for the same labels in random order.

    Attributes:
        value: the score; higher is better.
        null: its mean over orders of the labels.
        null_error: standard error of ``null``; 0 where the mean is exact.
    """

    value: float
    null: float
    null_error: float = 0.0

    @property
    def above_null(self) -> float:
        """What the features score above features that know nothing."""
        return self.value - self.null


@dataclass(frozen=True)
class FeatureQuality:
    """Scores of features by name; printed, a table.

    Attributes:
        scores: name to :class:`QualityScore`.
        num_examples: N.
        num_features: D.
        num_classes: number of classes with examples.
        notes: reasons for doubt, in words.
    """

    scores: dict[str, QualityScore]
    num_examples: int
    num_features: int
    num_classes: int
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Every number by name, for JSON."""
        scores = {
            name: score._asdict() | {"above_null": score.above_null}
            for name, score in self.scores.items()
        }
        sizes = ("num_examples", "num_features", "num_classes")
        return {name: getattr(self, name) for name in sizes} | {
            "scores": scores,
            "notes": list(self.notes),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Name, value, chance, its standard error and value above chance, as text."""
        return [
            (
                name,
                f"{score.value:.4f}",
                f"{score.null:.4f}",
                f"{score.null_error:.2g}" if score.null_error else "exact",
                f"{score.above_null:.4f}",
            )
            for name, score in self.scores.items()
        ]

    def __str__(self) -> str:
        return aligned([("score", "value", "chance", "±", "above"), *self.rows()], self.notes)


def feature_quality(
    features: Tensor,
    target: Tensor | Sequence[int],
    *,
    source_prob: Tensor | None = None,
    num_permutations: int = 20,
    seed: int = 0,
) -> FeatureQuality:
    r"""Score features for a label without training, beside what chance would give.

    ``H-score``, ``LogME`` and ``TransRate`` of the features and, where a model's probabilities are
    given, its ``LEEP`` and ``NCE``: see :mod:`lastlayer.functional.dependence` and
    :mod:`lastlayer.functional.transferability`. None of them is 0 for features that know nothing of
    the label. What each gives then, its null, is its mean over the orders of the labels: of the
    H-score :math:`r (K - 1) / (n - 1)` with the features' rank r, of NCE the expected plug-in
    information less :math:`H(Y)`, both exact; of the others the mean over random orders. Scores
    compare features on the same examples only.

    Args:
        features: (N, D), finite, N >= 2; computed in float64.
        target: (N,) integer labels; they need not be contiguous.
        source_prob: (N, Z) probabilities that a model gives its own labels, which may be other ones
            than the target's.
        num_permutations: random orders of the labels, at least 2.
        seed: fixes them.

    Returns:
        The :class:`FeatureQuality`.

    Raises:
        TypeError: if ``features`` are not floating-point or ``target`` not integers.
        ValueError: if a shape or a number does not fit, N < 2, or a row of ``source_prob`` is no
            distribution.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> target = torch.arange(300) % 3
        >>> features = torch.eye(3)[target] + torch.randn(300, 3, generator=generator)
        >>> print(feature_quality(features, target))
        score        value   chance        ±   above
        H-score     0.4901   0.0201    exact  0.4700
        LogME      -0.7455  -0.8346  0.00047  0.0891
        TransRate   0.0356   0.0093  0.00074  0.0264

    Source: Bao et al., ICIP 2019 (H-score); You et al., ICML 2021 (LogME); Huang et al., ICML 2022
    (TransRate); Nguyen et al., ICML 2020 (LEEP); Tran et al., ICCV 2019 (NCE).
    """
    check_whole("num_permutations", num_permutations, 2)
    labels = as_label_tensor("target", target).to(features.device)
    spread = class_spread(features, labels)
    sizes = (spread.rank, spread.num_classes, spread.num_examples)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(labels), generator=generator) for _ in range(num_permutations)]
    targets = [labels, *(labels[order.to(labels.device)] for order in orders)]
    scores = {
        "H-score": QualityScore(float(spread.between.sum()), dp.h_score_null(*sizes)),
        "LogME": _beside(list(_log_me(features, targets))),
        "TransRate": _beside([float(tf.trans_rate(features, y)) for y in targets]),
    }
    if source_prob is not None:
        source_prob = source_prob.to(features.device)
        scores["LEEP"] = _beside(
            [float(tf.leep(source_prob=source_prob, target=y)) for y in targets]
        )
        scores["NCE"] = _nce(source_prob.argmax(1), labels)
    return FeatureQuality(
        scores,
        spread.num_examples,
        spread.num_features,
        spread.num_classes,
        notes=dp.h_score_warnings(*sizes),
    )


def _beside(values: Sequence[float]) -> QualityScore:
    """Put the first of some values beside the mean of the others."""
    others = torch.tensor(values[1:], dtype=torch.float64)
    return QualityScore(
        values[0], float(others.mean()), float(others.std()) / math.sqrt(len(others))
    )


def _log_me(features: Tensor, targets: list[Tensor]) -> Iterator[float]:
    """Yield the score for several labels; as many at once as memory allows share an SVD."""
    classes, inverse = torch.unique(torch.stack(targets), return_inverse=True)
    at_once = max(1, _BLOCK_ELEMENTS // (len(features) * len(classes)))
    for part in inverse.split(at_once):
        responses = F.one_hot(part, len(classes)).double()  # (P, N, K)
        found = tf.log_evidence(features, responses.movedim(0, 1).flatten(1)).log_evidence
        yield from found.reshape(len(part), len(classes)).mean(1).tolist()


def _nce(source: Tensor, target: Tensor) -> QualityScore:
    counts = [torch.unique(x, return_counts=True)[1] for x in (source, target)]
    label_entropy = entropy(counts[1].double() / len(target))
    null = plug_in_information_null(*counts) - label_entropy
    return QualityScore(float(tf.nce(source_label=source, target=target)), float(null))
