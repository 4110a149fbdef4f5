"""Neural estimators of mutual information with one interface: ``fit(x, y)``, ``estimate(x, y)``."""

from lastlayer.information.neural.catalog import ESTIMATORS, build_estimator
from lastlayer.information.neural.classifiers import ClassifierEstimator
from lastlayer.information.neural.critics import CriticEstimator
from lastlayer.information.neural.estimator import NeuralEstimator, Progress

__all__ = [
    "ESTIMATORS",
    "ClassifierEstimator",
    "CriticEstimator",
    "NeuralEstimator",
    "Progress",
    "build_estimator",
]
