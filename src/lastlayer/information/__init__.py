"""What a trained last layer knows: where in an image it finds a class, and filtering by it."""

from lastlayer.information.bridges import ContrastModel, contrast_linear, contrast_target
from lastlayer.information.filtering import (
    Filtered,
    RemovalRates,
    erase,
    filter_object,
    posterior_threshold,
    removal_rates,
)
from lastlayer.information.maps import ClassMapOutput, ClassMaps
from lastlayer.information.windows import cell_pmi, window_pmi

__all__ = [
    "ClassMapOutput",
    "ClassMaps",
    "ContrastModel",
    "Filtered",
    "RemovalRates",
    "cell_pmi",
    "contrast_linear",
    "contrast_target",
    "erase",
    "filter_object",
    "posterior_threshold",
    "removal_rates",
    "window_pmi",
]
