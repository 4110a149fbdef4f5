"""Measures of predictions: error, NLL, Brier, calibration, by class and task; intervals."""

from lastlayer.evaluation.calibration import Reliability, reliability
from lastlayer.evaluation.catalog import MEASURES, measures_of
from lastlayer.evaluation.class_tasks import TaskMatrix, task_confusion
from lastlayer.evaluation.classes import (
    balanced_accuracy,
    class_accuracy,
    confusion_counts,
    group_accuracy,
    group_confusion,
)
from lastlayer.evaluation.intervals import Interval, mean_interval, mean_sd, paired_difference
from lastlayer.evaluation.measures import (
    NATS,
    SCORE,
    SECONDS,
    SHARE,
    Measure,
    Unit,
)
from lastlayer.evaluation.metrics import Metrics, evaluate
from lastlayer.evaluation.temperature import apply_temperature, fit_temperature

__all__ = [
    "MEASURES",
    "NATS",
    "SCORE",
    "SECONDS",
    "SHARE",
    "Interval",
    "Measure",
    "Metrics",
    "Reliability",
    "TaskMatrix",
    "Unit",
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
    "measures_of",
    "paired_difference",
    "reliability",
    "task_confusion",
]
