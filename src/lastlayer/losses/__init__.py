"""Losses on logits: modules with the arguments of ``torch.nn.CrossEntropyLoss``."""

from lastlayer.losses.base import ClassificationLoss
from lastlayer.losses.class_sampling import ClassDropoutLoss, SampledSoftmaxLoss
from lastlayer.losses.fenchel_young import Entmax15Loss, EntmaxLoss, SparsemaxLoss
from lastlayer.losses.pc_softmax import PCSoftmaxLoss

__all__ = [
    "ClassDropoutLoss",
    "ClassificationLoss",
    "Entmax15Loss",
    "EntmaxLoss",
    "PCSoftmaxLoss",
    "SampledSoftmaxLoss",
    "SparsemaxLoss",
]
