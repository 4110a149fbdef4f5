r"""Learning classes one after another: the mathematics of a step, classes in order of arrival.

The old classes have the indices below ``num_old``, the new ones follow. ``herding`` chooses what is
kept of a class, ``rehearsal_prior`` tells balanced softmax how often each class then occurs,
``distillation`` holds on to the model before, ``alignment`` corrects the new classes' weights, and
``nearest_mean`` predicts without them. ``old_weight_gradient`` is what learns the old classes'
coefficient.
"""

from lastlayer.functional.incremental.alignment import aligned_weight, alignment_factor
from lastlayer.functional.incremental.distillation import (
    distillation_loss,
    feature_distillation_loss,
)
from lastlayer.functional.incremental.herding import herding_order
from lastlayer.functional.incremental.nearest_mean import class_means, nearest_mean_scores
from lastlayer.functional.incremental.old_weight_gradient import (
    OldWeightGradient,
    old_weight_gradient,
)
from lastlayer.functional.incremental.rehearsal_prior import rehearsal_counts
from lastlayer.functional.incremental.unit_rows import unit_rows

__all__ = [
    "OldWeightGradient",
    "aligned_weight",
    "alignment_factor",
    "class_means",
    "distillation_loss",
    "feature_distillation_loss",
    "herding_order",
    "nearest_mean_scores",
    "old_weight_gradient",
    "rehearsal_counts",
    "unit_rows",
]
