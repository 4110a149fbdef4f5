"""From a configuration to data and an untrained classifier."""

from __future__ import annotations

import torch

from lastlayer.data import Splits, build_augmentation, load
from lastlayer.heads import Classifier, build_head
from lastlayer.models import Backbone, build
from lastlayer.training.augmentation import SeededAugmentation
from lastlayer.training.config import RunConfig
from lastlayer.training.randomness import derive_seed
from lastlayer.training.regularization import add_regularizers


def load_splits(config: RunConfig) -> Splits:
    """Load the data of a run."""
    data = config.data
    return load(
        data.name,
        data_dir=data.data_dir,
        train_size=data.train_size,
        validation_size=data.validation_size,
        seed=config.seed if data.seed is None else data.seed,
        options=data.options,
    )


def backbone_name(config: RunConfig, input_shape: tuple[int, ...]) -> str:
    """Return the backbone's name, chosen by the inputs' shape for ``"auto"``."""
    if config.model.name != "auto":
        return config.model.name
    if len(input_shape) == 1:
        return "mlp"
    return "digits-cnn" if min(input_shape[1:]) < 16 else "tutorial-cnn"


def build_classifier(
    config: RunConfig, input_shape: tuple[int, ...], num_classes: int, *, num_examples: int = 1
) -> Classifier:
    """Build the untrained classifier of a run; the seed fixes its weights.

    The backbone is drawn first, so that runs of different heads start from the same one. The number
    of training examples is for regularisers that learn their rate.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "initial weights"))
        name = backbone_name(config, input_shape)
        backbone = build(name, input_shape, options=config.model.options)
        width = backbone.out_features
        if not isinstance(width, int):
            raise TypeError(f"backbone {name!r} must have an int out_features; got {width!r}")
        head = build_head(config.head.name, width, num_classes, **config.head.options)
        if isinstance(backbone, Backbone):
            backbone.init_classifier_(head.classifier)
        classifier = Classifier(backbone, head)
        add_regularizers(classifier, config.regularizer, num_examples)
    return classifier


def build_augmentations(
    config: RunConfig, input_shape: tuple[int, ...]
) -> SeededAugmentation | None:
    """Build what changes a run's training images, or None if nothing does.

    Raises:
        ValueError: if a name or option is unknown, or the inputs are no images.
    """
    entries = config.training.augment
    if not entries:
        return None
    if len(input_shape) != 3:
        raise ValueError(
            "training.augment is for images (channels, height, width); "
            f"the inputs have shape {input_shape}"
        )
    tables = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
    return SeededAugmentation([build_augmentation(**table) for table in tables], seed=config.seed)
