"""Which examples an epoch draws, and what that together with the head does to the class prior."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lastlayer.data import Splits
from lastlayer.heads import Classifier, prior_correction
from lastlayer.longtail import SAMPLERS, ClassDraw, class_counts, sampling_prior
from lastlayer.training.batches import Order
from lastlayer.training.config import RunConfig
from lastlayer.training.sections import TrainingConfig


def epoch_order(training: TrainingConfig, target: Tensor) -> Order | None:
    """Return what draws an epoch's examples, or None for every example once.

    A draw is a function of the seed and the epoch, so that a resumed run draws what it would have.

    Args:
        training: sampler, batch size and length of the run.
        target: (N,) labels of the training examples.
    """
    if training.sampler == "instance":
        return None
    steps_per_epoch = len(target) // min(training.batch_size, len(target))
    last_epoch = max(1, math.ceil(training.steps / steps_per_epoch) - 1)
    draw = ClassDraw(target)

    def order(epoch: int, generator: torch.Generator) -> Tensor:
        progress = min(1.0, epoch / last_epoch)
        prior = sampling_prior(draw.counts, training.sampler, progress)
        return draw(len(target), prior, generator)

    return order


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
