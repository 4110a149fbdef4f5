"""What a trained last layer knows: estimates of mutual information, by example, class and mask."""

from lastlayer.functional.information import InformationWarning
from lastlayer.information.classes import ClassInformation, class_information
from lastlayer.information.estimate import KINDS, estimate_information
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
    "InformationEstimate",
    "InformationWarning",
    "NeuralEstimator",
    "StochasticInformation",
    "build_estimator",
    "class_information",
    "estimate_information",
    "stochastic_information",
]
