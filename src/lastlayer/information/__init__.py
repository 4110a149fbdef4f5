"""What a trained last layer knows: information by example and class, and how good features are."""

from lastlayer.functional.information import InformationWarning
from lastlayer.information.classes import ClassInformation, class_information
from lastlayer.information.estimate import KINDS, estimate_information
from lastlayer.information.features import FeatureReport, HScore, h_score
from lastlayer.information.layers import LayerScores, feature_report
from lastlayer.information.neural import (
    ESTIMATORS,
    ClassifierEstimator,
    CriticEstimator,
    NeuralEstimator,
    build_estimator,
)
from lastlayer.information.result import InformationEstimate
from lastlayer.information.stochastic import StochasticInformation, stochastic_information

__all__ = [
    "ESTIMATORS",
    "KINDS",
    "ClassInformation",
    "ClassifierEstimator",
    "CriticEstimator",
    "FeatureReport",
    "HScore",
    "InformationEstimate",
    "InformationWarning",
    "LayerScores",
    "NeuralEstimator",
    "StochasticInformation",
    "build_estimator",
    "class_information",
    "estimate_information",
    "feature_report",
    "h_score",
    "stochastic_information",
]
