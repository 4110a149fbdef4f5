r"""Learning classes one after another: the mathematics of a step, classes in order of arrival.

The old classes have the indices below ``num_old``, the new ones follow. ``class_means`` chooses
what is kept of a class, and predicts without a classifier's weights; ``rehearsal_prior`` tells
balanced softmax how often each class then occurs, and learns the old classes' coefficient;
``distillation`` holds on to the model before; ``alignment`` corrects the new classes' weights.
"""

from lastlayer.functional.incremental.alignment import aligned_weight, alignment_factor
from lastlayer.functional.incremental.class_means import (
    class_means,
    herding_order,
    nearest_mean_scores,
)
from lastlayer.functional.incremental.distillation import (
    distillation_loss,
    feature_distillation_loss,
)
from lastlayer.functional.incremental.rehearsal_prior import (
    OldWeightGradient,
    old_weight_gradient,
    rehearsal_counts,
)
from lastlayer.functional.numerics import unit_rows

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
