"""Long-tailed data: profiles of class counts, subsets, groups of classes and samplers."""

from lastlayer.longtail.counts import class_counts
from lastlayer.longtail.groups import ClassGroups, class_groups, shot_groups, tertile_groups
from lastlayer.longtail.meta_sampler import MetaSampler
from lastlayer.longtail.profiles import (
    PROFILES,
    exponential_counts,
    pareto_counts,
    profile_counts,
    step_counts,
)
from lastlayer.longtail.samplers import SAMPLERS, ClassDraw, ClassSampler, sampling_prior
from lastlayer.longtail.subset import long_tail_counts, long_tail_indices, long_tail_subset
from lastlayer.longtail.virtual_step import row_losses, virtual_meta_loss

__all__ = [
    "PROFILES",
    "SAMPLERS",
    "ClassDraw",
    "ClassGroups",
    "ClassSampler",
    "MetaSampler",
    "class_counts",
    "class_groups",
    "exponential_counts",
    "long_tail_counts",
    "long_tail_indices",
    "long_tail_subset",
    "pareto_counts",
    "profile_counts",
    "row_losses",
    "sampling_prior",
    "shot_groups",
    "step_counts",
    "tertile_groups",
    "virtual_meta_loss",
]
