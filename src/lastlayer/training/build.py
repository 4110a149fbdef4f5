"""From a configuration to data and an untrained classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lastlayer._random import derive_seed, seeded
from lastlayer.data import Splits, load
from lastlayer.heads import Classifier, build_head, takes_class_counts
from lastlayer.longtail import class_counts, long_tail_counts, long_tail_indices
from lastlayer.models import Backbone, build
from lastlayer.training.config import RunConfig
from lastlayer.training.regularization import add_regularizers


def load_splits(config: RunConfig) -> Splits:
    """Load the data of a run, long-tailed if it says so."""
    data = config.data
    seed = config.seed if data.seed is None else data.seed
    tail = data.long_tail

    def keep(target: Tensor) -> Tensor:
        if tail is None:
            return torch.arange(len(target))
        options = tail.model_dump(exclude={"imbalance"})
        counts = long_tail_counts(class_counts(target), tail.imbalance, seed=seed, **options)
        return long_tail_indices(target, counts, seed=seed)

    splits = load(
        data.name,
        data_dir=data.data_dir,
        train_size=data.train_size,
        validation_size=data.validation_size,
        seed=seed,
        options=data.options,
        keep=None if tail is None else keep,
    )
    if tail is None:
        return splits
    counts = class_counts(splits)
    note = (
        f"Training part long-tailed ({tail.profile}, imbalance {tail.imbalance:g}): "
        f"{int(counts.max())} to {int(counts.min())} examples per class, {len(splits.train)} in all"
    )
    return replace(splits, notes=(*splits.notes, note))


def backbone_name(config: RunConfig, input_shape: tuple[int, ...]) -> str:
    """Return the backbone's name, chosen by the inputs' shape for ``"auto"``."""
    if config.model.name != "auto":
        return config.model.name
    if len(input_shape) == 1:
        return "mlp"
    return "digits-cnn" if min(input_shape[1:]) < 16 else "tutorial-cnn"


def build_classifier(
    config: RunConfig,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    num_examples: int = 1,
    class_counts: Tensor | Sequence[int] | None = None,
) -> Classifier:
    """Build the untrained classifier of a run; the seed fixes its weights.

    The backbone is drawn first, so that runs of different heads start from the same one.
    Regularizers that learn their rate take ``num_examples``, heads their own ``class_counts``
    before these.
    """
    with seeded(derive_seed(config.seed, "initial weights")):
        name = backbone_name(config, input_shape)
        backbone = build(name, input_shape, options=config.model.options)
        width = backbone.out_features
        if not isinstance(width, int):
            raise TypeError(f"backbone {name!r} must have an int out_features; got {width!r}")
        options = config.head.options
        if class_counts is not None and takes_class_counts(config.head.name):
            options = {"class_counts": class_counts} | options
        head = build_head(config.head.name, width, num_classes, **options)
        if isinstance(backbone, Backbone):
            backbone.init_classifier_(head.classifier)
        classifier = Classifier(backbone, head)
        add_regularizers(classifier, config.regularizer, num_examples)
    return classifier
