"""Losses on logits: modules with the arguments of ``torch.nn.CrossEntropyLoss``."""

from lastlayer.losses.base import ClassificationLoss
from lastlayer.losses.class_priors import BalancedSoftmaxLoss, ClassBalancedLoss, LDAMLoss
from lastlayer.losses.class_sampling import ClassDropoutLoss, SampledSoftmaxLoss
from lastlayer.losses.fenchel_young import Entmax15Loss, EntmaxLoss, SparsemaxLoss
from lastlayer.losses.pc_softmax import PCSoftmaxLoss

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
