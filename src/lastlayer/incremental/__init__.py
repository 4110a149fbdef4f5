"""Learning classes one after another: growing classifiers, exemplars, runs over tasks.

``classifier`` is for one's own stream of data, ``run`` for an experiment over a sequence of tasks;
both are ``task`` after task on one ``state``. What is kept of old classes is in ``memory``; what
corrects the bias to new ones in ``bias_correction`` and ``old_class_weight``; the mathematics is in
:mod:`lastlayer.functional.incremental`.
"""

from lastlayer._deprecated import renamed
from lastlayer.incremental.bias_correction import BiasCorrection, BiasFit
from lastlayer.incremental.classifier import IncrementalClassifier
from lastlayer.incremental.config import IncrementalConfig
from lastlayer.incremental.memory import RehearsalMemory
from lastlayer.incremental.methods import parse_variant
from lastlayer.incremental.old_class_weight import MetaOldWeight
from lastlayer.incremental.pool import SELECTIONS
from lastlayer.incremental.run import IncrementalRun, learn, open_run

__all__ = [
    "SELECTIONS",
    "BiasCorrection",
    "BiasFit",
    "IncrementalClassifier",
    "IncrementalConfig",
    "IncrementalRun",
    "MetaOldWeight",
    "RehearsalMemory",
    "learn",
    "open_run",
    "parse_variant",
]

__getattr__ = renamed(
    __name__,
    {
        "ADDITIONS": "lastlayer.incremental.methods.ADDITIONS",
        "METHODS": "lastlayer.incremental.methods.METHODS",
        "parse_method": "parse_variant",
    },
)
