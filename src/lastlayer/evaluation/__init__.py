"""Measures of predicted probabilities: error, NLL, Brier, calibration; intervals over seeds."""

from lastlayer.evaluation.calibration import Reliability, reliability
from lastlayer.evaluation.intervals import Interval, mean_interval, mean_sd, paired_difference
from lastlayer.evaluation.metrics import Metrics, evaluate
from lastlayer.evaluation.temperature import apply_temperature, fit_temperature

__all__ = [
    "Interval",
    "Metrics",
    "Reliability",
    "apply_temperature",
    "evaluate",
    "fit_temperature",
    "mean_interval",
    "mean_sd",
    "paired_difference",
    "reliability",
]
