"""Learning classes one after another: what is kept of old classes, and what corrects for it."""

from lastlayer.incremental.bias_correction import BiasCorrection, BiasFit
from lastlayer.incremental.memory import RehearsalMemory
from lastlayer.incremental.old_class_weight import MetaOldWeight
from lastlayer.incremental.pool import SELECTIONS

__all__ = [
    "SELECTIONS",
    "BiasCorrection",
    "BiasFit",
    "MetaOldWeight",
    "RehearsalMemory",
]
