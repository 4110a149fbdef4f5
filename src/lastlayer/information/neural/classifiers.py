"""Classifiers as estimators: what a plainly trained network says about its labels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lastlayer._checks import check_choice
from lastlayer.functional.information import label_counts, pc_softmax_loss
from lastlayer.information.estimate import estimate_information
from lastlayer.information.neural.estimator import NeuralEstimator, Variable
from lastlayer.information.neural.networks import mlp
from lastlayer.information.result import InformationEstimate

CLASSIFIERS = ("cross-entropy", "pc-softmax")


class ClassifierEstimator(NeuralEstimator):
    r"""A classifier, read as :math:`H(Y) - \mathrm{CE}` or as :math:`\mathrm E \log \mathrm{PC}_y`.

    Args:
        kind: ``"cross-entropy"`` or ``"pc-softmax"``: the loss, and how the logits are read.
        **options: see :class:`NeuralEstimator`.

    Raises:
        ValueError: if an argument is out of range; when fitted, if y is not discrete.

    Example:
        >>> y = torch.arange(200) % 2
        >>> x = y.float().unsqueeze(-1)
        >>> estimator = ClassifierEstimator("pc-softmax", hidden=(8,), epochs=50, batch_size=50,
        ...                                 learning_rate=0.05).fit(x, y)
        >>> round(estimator.estimate(x[:10], y[:10]).value, 2)
        0.69
    """

    def __init__(self, kind: str = "cross-entropy", **options: Any) -> None:
        check_choice("kind", kind, CLASSIFIERS)
        super().__init__(**options)
        self.kind = kind

    def _build(self, x: Variable, y: Variable) -> nn.Module:
        if not y.discrete:
            raise ValueError(f"y must be (N,) int64 labels for a classifier; got {y}")
        self.network = mlp((x.width, *self.hidden, y.width))
        self._num_classes = y.width
        return self.network

    def _prepare(self, y: Tensor) -> None:
        self._prior = label_counts(y, self._num_classes) / len(y)

    def _objective(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        logits = self.network(x)
        if self.kind == "pc-softmax":
            return -pc_softmax_loss(logits, y, self._prior)
        return -F.cross_entropy(logits, y)

    def _estimate(self, x: Tensor, y: Tensor, held_out: bool) -> InformationEstimate:
        return estimate_information(self.network(x), y, kind=self.kind, held_out=held_out)
