"""What a trained classifier predicts, how good that is, and the run's summary of it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lastlayer._inputs import Inputs, batches, call, to_weight
from lastlayer._random import seeded
from lastlayer.data import Split, Splits
from lastlayer.evaluation import (
    apply_temperature,
    balanced_accuracy,
    class_accuracy,
    confusion_counts,
    evaluate,
    fit_temperature,
    group_accuracy,
    group_confusion,
)
from lastlayer.heads import Classifier, Head
from lastlayer.longtail import class_counts, class_groups
from lastlayer.training.build import backbone_name
from lastlayer.training.config import RunConfig
from lastlayer.training.randomness import derive_seed
from lastlayer.training.run_directory import RunDirectory

SUMMARY_VERSION = 1
EVALUATION_BATCH = 500
#: From so many examples of the most frequent class per one of the rarest, data are long-tailed.
LONG_TAIL = 10.0


@torch.no_grad()
def predict(classifier: Classifier, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and scores of inputs, batch by batch in the weights' precision."""
    classifier.eval()
    weight = classifier.head.classifier.weight
    own_scores = type(classifier.head).scores is not Head.scores
    log_probs, scores = [], []
    for batch in batches(inputs, EVALUATION_BATCH):
        features = call(classifier.features, to_weight(batch, weight))
        log_prob = classifier.head.log_prob(features).cpu()
        log_probs.append(log_prob)
        scores.append(classifier.head.scores(features).cpu() if own_scores else log_prob)
    return torch.cat(log_probs), torch.cat(scores)


def measure(
    classifier: Classifier, splits: Splits, measured: Split
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return measures, after temperature scaling too if there is a held-out part."""
    log_prob, scores = predict(classifier, measured.inputs)
    measures: dict[str, Any] = {"metrics": evaluate(log_prob, measured.target).as_dict()}
    if splits.validation is not None and measured is not splits.validation:
        _, held_out = predict(classifier, splits.validation.inputs)
        temperature = fit_temperature(held_out, splits.validation.target)
        scaled = apply_temperature(scores, temperature)
        measures["temperature"] = temperature
        measures["temperature_scaled"] = evaluate(scaled, measured.target).as_dict()
    return measures, {"log_prob": log_prob, "scores": scores, "target": measured.target}


def summarize(
    config: RunConfig, run: RunDirectory, classifier: Classifier, splits: Splits, seconds: float
) -> dict[str, Any]:
    """Store a trained classifier's predictions in its run, and return the run's summary."""
    measured = splits.validation if config.evaluate_on == "validation" else splits.test
    if measured is None:
        raise ValueError("there is no held-out part to measure on")
    with seeded(derive_seed(config.seed, "predictions")):  # of heads that predict with masks
        measures, predictions = measure(classifier, splits, measured)
    run.write_tensors(run.predictions_path, predictions)
    counts = class_counts(splits)
    if is_long_tailed(config, counts):
        measures["long_tail"] = long_tail_measures(predictions["log_prob"], measured.target, counts)
    return {
        "summary_version": SUMMARY_VERSION,
        "head": config.head.name,
        "seed": config.seed,
        "model": backbone_name(config, splits.input_shape),
        "measured_on": config.evaluate_on,
        **measures,
        "seconds": round(seconds, 3),
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "train_size": len(splits.train),
        "class_counts": counts.tolist(),
        "validation_size": 0 if splits.validation is None else len(splits.validation),
        "input_shape": list(splits.input_shape),
        "class_names": list(splits.class_names),
        "notes": list(splits.notes),
    }


def is_long_tailed(config: RunConfig, counts: Tensor) -> bool:
    """Return whether a run's summary measures groups of classes: by its settings or its data."""
    return config.data.long_tail is not None or float(counts.max() / counts.min()) >= LONG_TAIL


def long_tail_measures(log_prob: Tensor, target: Tensor, counts: Tensor) -> dict[str, Any]:
    """Return accuracy by class and by groups of classes, and which groups are taken for which.

    Args:
        log_prob: (N, K) predictions.
        target: (N,) labels.
        counts: (K,) training examples of each class.

    Returns:
        Plain data; None for what has no example.
    """
    groups = class_groups(counts)
    confusion = confusion_counts(log_prob.argmax(dim=-1), target, len(counts))
    accuracy = class_accuracy(confusion)
    return {
        "balanced_accuracy": balanced_accuracy(confusion),
        "grouping": groups.scheme,
        "groups": groups.describe(),
        "group_accuracy": {
            name: _or_none(value)
            for name, value in group_accuracy(confusion, groups.members).items()
        },
        "group_confusion": [
            [_or_none(value) for value in row]
            for row in group_confusion(confusion, groups.members).tolist()
        ],
        "class_accuracy": [_or_none(value) for value in accuracy.tolist()],
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
