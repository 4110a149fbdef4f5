"""What a trained classifier predicts, how good that is, and the summary of its run."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lastlayer._files import with_null
from lastlayer._inputs import Inputs
from lastlayer._random import derive_seed, seeded
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
from lastlayer.heads import Classifier, Head, prior_correction
from lastlayer.longtail import SAMPLERS, class_counts, class_groups, sampling_prior
from lastlayer.training.build import backbone_name
from lastlayer.training.config import RunConfig

SUMMARY_VERSION = 1
EVALUATION_BATCH = 500
#: From so many examples of the most frequent class per one of the rarest, data are long-tailed.
LONG_TAIL = 10.0


@torch.no_grad()
def predict(classifier: Classifier, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and scores of inputs, batch by batch in the weights' precision."""
    head = classifier.eval().head
    own_scores = type(head).scores is not Head.scores
    log_probs, scores = [], []
    for batch in torch.split(classifier.features_of(inputs, EVALUATION_BATCH), EVALUATION_BATCH):
        features = batch.to(head.classifier.weight.device)
        log_prob = head.log_prob(features).cpu()
        log_probs.append(log_prob)
        scores.append(head.scores(features).cpu() if own_scores else log_prob)
    return torch.cat(log_probs), torch.cat(scores)


def measured_part(config: RunConfig, splits: Splits) -> Split:
    """Return the examples that a run is measured on; ``ValueError`` if there are none."""
    measured = splits.validation if config.evaluate_on == "validation" else splits.test
    if measured is None:
        raise ValueError("there is no held-out part to measure on; set --validation-size")
    return measured


def measure(
    config: RunConfig, classifier: Classifier, splits: Splits
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a trained classifier's measures, and the predictions that they are of.

    With a held-out part there are measures after temperature scaling too; for long-tailed data by
    groups of classes.
    """
    measured = measured_part(config, splits)
    with seeded(derive_seed(config.seed, "predictions")):  # of heads that predict with masks
        log_prob, scores = predict(classifier, measured.inputs)
        measures: dict[str, Any] = {"metrics": evaluate(log_prob, measured.target).as_dict()}
        if splits.validation is not None and measured is not splits.validation:
            _, held_out = predict(classifier, splits.validation.inputs)
            temperature = fit_temperature(held_out, splits.validation.target)
            scaled = apply_temperature(scores, temperature)
            measures["temperature"] = temperature
            measures["temperature_scaled"] = evaluate(scaled, measured.target).as_dict()
    counts = class_counts(splits)
    measures["class_counts"] = counts.tolist()
    if is_long_tailed(config, counts):
        measures["long_tail"] = long_tail_measures(log_prob, measured.target, counts)
    return measures, {"log_prob": log_prob, "scores": scores, "target": measured.target}


def summarize(
    config: RunConfig,
    splits: Splits,
    classifier: Classifier,
    measures: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """Return the summary of a run, over tasks or not; ``measures`` are entries of it."""
    return {
        "summary_version": SUMMARY_VERSION,
        "head": config.head.name,
        "seed": config.seed,
        "model": backbone_name(config, splits.input_shape),
        "measured_on": config.evaluate_on,
        "seconds": round(seconds, 3),
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "train_size": len(splits.train),
        "validation_size": 0 if splits.validation is None else len(splits.validation),
        "input_shape": list(splits.input_shape),
        "class_names": list(splits.class_names),
        "notes": list(splits.notes),
        **measures,
    }


def is_long_tailed(config: RunConfig, counts: Tensor) -> bool:
    """Return whether a run's summary measures groups of classes: by its settings or its data."""
    return config.data.long_tail is not None or float(counts.max() / counts.min()) >= LONG_TAIL


def long_tail_measures(log_prob: Tensor, target: Tensor, counts: Tensor) -> dict[str, Any]:
    """Return accuracy by class and by groups of classes, and which groups are taken for which.

    Of (N, K) log-probabilities, (N,) labels and the (K,) class counts of training; plain data,
    None for what has no example.
    """
    groups = class_groups(counts)
    confusion = confusion_counts(log_prob.argmax(dim=-1), target, len(counts))
    measures = {
        "balanced_accuracy": balanced_accuracy(confusion),
        "grouping": groups.scheme,
        "groups": groups.describe(),
        "group_accuracy": group_accuracy(confusion, groups.members),
        "group_confusion": group_confusion(confusion, groups.members).tolist(),
        "class_accuracy": class_accuracy(confusion).tolist(),
    }
    return dict(with_null(measures, math.isnan))


def corrected_prior(config: RunConfig, classifier: Classifier, splits: Splits) -> dict[str, Any]:
    """Return the summary's entry on how the class prior is corrected; empty if nothing does.

    It is an account of what the head was trained with: of two stages the second one. Rates that are
    learned answer to the loss on balanced data and are left out.

    Warns:
        DoubleCorrectionWarning: if the sampler and the head, or two parts of it, do the same.
    """
    counts = class_counts(splits)
    sampler = config.classifier_stage.sampler or config.training.sampler
    if sampler not in SAMPLERS:
        sampler = "instance"
    # Half way: a progressive sampler's mean over the run.
    prior = sampling_prior(counts, sampler, 0.5)
    strengths = prior_correction(classifier.head, counts, prior).strengths
    return {"prior_correction": strengths} if strengths else {}
