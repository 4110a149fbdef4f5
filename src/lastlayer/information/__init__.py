"""What a trained last layer knows: how many nats, where in an image, in which features."""

from lastlayer.functional.information import InformationWarning
from lastlayer.information.cam_adapters import ContrastModel, contrast_linear, contrast_target
from lastlayer.information.class_information import class_information
from lastlayer.information.class_maps import ClassMaps
from lastlayer.information.estimate import InformationEstimate, estimate_information
from lastlayer.information.feature_quality import feature_quality
from lastlayer.information.feature_report import FeatureReport, LayerScores, feature_report
from lastlayer.information.filtering import (
    erase,
    filter_object,
    posterior_threshold,
    removal_rates,
)
from lastlayer.information.h_score import h_score
from lastlayer.information.label_modes import label_modes
from lastlayer.information.localization import localization
from lastlayer.information.neural import ESTIMATORS, build_estimator
from lastlayer.information.neural.estimator import NeuralEstimator
from lastlayer.information.stochastic import stochastic_information
from lastlayer.information.windows import cell_pmi, window_pmi

__all__ = [
    "ESTIMATORS",
    "ClassMaps",
    "ContrastModel",
    "FeatureReport",
    "InformationEstimate",
    "InformationWarning",
    "LayerScores",
    "NeuralEstimator",
    "build_estimator",
    "cell_pmi",
    "class_information",
    "contrast_linear",
    "contrast_target",
    "erase",
    "estimate_information",
    "feature_quality",
    "feature_report",
    "filter_object",
    "h_score",
    "label_modes",
    "localization",
    "posterior_threshold",
    "removal_rates",
    "stochastic_information",
    "window_pmi",
]
