"""From a configuration to data and an untrained classifier."""

from __future__ import annotations

import torch

from lastlayer.data import Splits, load
from lastlayer.heads import Classifier, build_head
from lastlayer.models import Backbone, build
from lastlayer.training.config import RunConfig
from lastlayer.training.randomness import derive_seed


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
    config: RunConfig, input_shape: tuple[int, ...], num_classes: int
) -> Classifier:
    """Build the untrained classifier of a run; the seed fixes its weights.

    The backbone is drawn first, so that runs of different heads start from the same one.
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
    return Classifier(backbone, head)
