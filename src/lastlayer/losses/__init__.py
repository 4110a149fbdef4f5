"""Losses on logits: modules with the arguments of ``torch.nn.CrossEntropyLoss``."""

from lastlayer.losses.base import ClassificationLoss
from lastlayer.losses.class_priors import (
    BalancedSoftmaxLoss,
    ClassBalancedLoss,
    LDAMLoss,
    PCSoftmaxLoss,
)
from lastlayer.losses.class_sampling import ClassDropoutLoss, SampledSoftmaxLoss
from lastlayer.losses.fenchel_young import Entmax15Loss, EntmaxLoss, SparsemaxLoss

__all__ = [
    "BalancedSoftmaxLoss",
    "ClassBalancedLoss",
    "ClassDropoutLoss",
    "ClassificationLoss",
    "Entmax15Loss",
    "EntmaxLoss",
    "LDAMLoss",
    "PCSoftmaxLoss",
    "SampledSoftmaxLoss",
    "SparsemaxLoss",
]
