"""Measures of predictions: error, NLL, Brier, calibration, by class; intervals over seeds."""

from lastlayer.evaluation.calibration import Reliability, reliability
from lastlayer.evaluation.classes import (
    balanced_accuracy,
    class_accuracy,
    confusion_counts,
    group_accuracy,
    group_confusion,
)
from lastlayer.evaluation.intervals import Interval, mean_interval, mean_sd, paired_difference
from lastlayer.evaluation.metrics import Metrics, evaluate
from lastlayer.evaluation.temperature import apply_temperature, fit_temperature

__all__ = [
    "Interval",
    "Metrics",
    "Reliability",
    "apply_temperature",
    "balanced_accuracy",
    "class_accuracy",
    "confusion_counts",
    "evaluate",
    "fit_temperature",
    "group_accuracy",
    "group_confusion",
    "mean_interval",
    "mean_sd",
    "paired_difference",
    "reliability",
]
