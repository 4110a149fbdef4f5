"""Train one run from its configuration to its summary."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lastlayer.data import Split, Splits
from lastlayer.heads import Classifier
from lastlayer.longtail import class_counts
from lastlayer.training.augmentation import build_augmentations
from lastlayer.training.build import build_classifier, load_splits
from lastlayer.training.callbacks import Progress, load_checkpoint, save_checkpoint
from lastlayer.training.classifier_stage import (
    REPRESENTATION_FILE,
    describe_stages,
    train_classifier_stage,
)
from lastlayer.training.config import RunConfig
from lastlayer.training.engine import BEST_FILE, fit_module
from lastlayer.training.measuring import corrected_prior, measure, summarize
from lastlayer.training.module import TrainingModule
from lastlayer.training.run_directory import RunDirectory

ENCODER_FILE = "encoder.json"


def train(
    config: RunConfig,
    path: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    splits: Splits | None = None,
) -> RunDirectory:
    """Train, measure and store one classifier.

    Args:
        config: the complete description of the run.
        path: the run directory.
        resume: take up a run that was stopped; a finished one is returned as it is.
        progress: called with the step and the newest record now and then.
        splits: the run's data if they are loaded already.

    Returns:
        The finished run.

    Raises:
        FileExistsError: if there is a run and ``resume`` is False.
        BlockingIOError: if another process trains this run.
        ValueError: if the configuration does not fit the data or the run that is there.
        FloatingPointError: if the loss is not finite.
    """
    if not is_first_process():
        run = RunDirectory(path)
        _train(config, run, progress, splits)
        return run
    with RunDirectory(path).locked():
        run = RunDirectory.create(path, config, resume=resume)
        if not run.finished:
            _train(config, run, progress, splits)
    return run


def _train(
    config: RunConfig, run: RunDirectory, progress: Progress | None, splits: Splits | None
) -> None:
    splits = load_splits(config) if splits is None else splits
    looks = config.evaluate_on == "validation" or config.training.validate_every is not None
    if looks and splits.validation is None:
        raise ValueError(
            "the configuration looks at held-out examples, but there are none; "
            "set --validation-size"
        )
    classifier = _build(config, splits)
    staged = config.classifier_stage.sampler is not None
    corrections = corrected_prior(config, classifier, splits)  # warns before the training
    fit = _fit_in_stages if staged else _fit
    seconds = fit(config, run, classifier, splits, progress)
    if not is_first_process():
        return
    run.write_tensors(run.model_path, classifier.state_dict())
    if splits.extras:
        run.write_json(ENCODER_FILE, dict(splits.extras))
    measures, predictions = measure(config, classifier, splits)
    run.write_tensors(run.predictions_path, predictions)
    stages = {"stages": describe_stages(config)} if staged else {}
    summary = summarize(config, splits, classifier, measures, seconds)
    run.write_summary(summary | corrections | stages)
    run.remove_checkpoints()


def _build(config: RunConfig, splits: Splits) -> Classifier:
    return build_classifier(
        config,
        splits.input_shape,
        splits.num_classes,
        num_examples=len(splits.train),
        class_counts=class_counts(splits),
    )


def is_first_process() -> bool:
    """Return whether this process keeps the run's files; with several devices the others do not."""
    return getattr(rank_zero_only, "rank", 0) == 0


def load_classifier(run: RunDirectory) -> Classifier:
    """Return a finished run's trained classifier, in evaluation mode."""
    summary = run.summary()
    classifier = build_classifier(
        run.config(),
        tuple(summary["input_shape"]),
        len(summary["class_names"]),
        num_examples=summary["train_size"],
        class_counts=summary.get("class_counts"),
    )
    if run.config().training.precision == "64-true":
        classifier.double()
    classifier.load_state_dict(run.state_dict())
    if len(summary["input_shape"]) == 3:  # as in training: other layouts round differently
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return classifier.eval()


def predictions_on(run: RunDirectory, part: Split) -> dict[str, Tensor]:
    """Return a finished run's predictions; ``ValueError`` if they are not of these examples."""
    predictions = run.predictions()
    if not torch.equal(part.target, predictions["target"]):
        raise ValueError(f"{run.path} was not measured on these data; give the run's --data-dir")
    return predictions


def load_run_splits(run: RunDirectory, *, data_dir: str | None = None) -> Splits:
    """Return a run's data, from another folder if they have moved there since."""
    config = run.config()
    if data_dir is not None:
        config = config.updated({"data": {"data_dir": data_dir}})
    return load_splits(config)


def _fit(
    config: RunConfig,
    run: RunDirectory,
    classifier: Classifier,
    splits: Splits,
    progress: Progress | None,
) -> float:
    """Train from the last checkpoint, if there is one, and return the seconds it took."""
    module = TrainingModule(
        classifier,
        config.optimizer,
        config.training.steps,
        augmentation=build_augmentations(config, splits.input_shape),
    )
    validation = splits.validation if config.training.validate_every is not None else None
    seconds = fit_module(
        module, config, splits.train, run=run, validation=validation, progress=progress
    )
    if config.training.select == "best":
        module.load_state_dict(load_checkpoint(run.checkpoints / BEST_FILE)["state_dict"])
    return seconds


def _fit_in_stages(
    config: RunConfig,
    run: RunDirectory,
    classifier: Classifier,
    splits: Splits,
    progress: Progress | None,
) -> float:
    """Train backbone and head, then the head alone, anew; return the seconds of both."""
    representation = run.checkpoints / REPRESENTATION_FILE
    if not representation.exists():
        first = config.first_stage()
        trained = _build(first, splits)
        seconds = _fit(first, run, trained, splits, progress)
        if is_first_process():
            kept = {"state_dict": trained.state_dict(), "elapsed": seconds}
            save_checkpoint(kept, representation)
    if not is_first_process():
        return 0.0
    return train_classifier_stage(config, run, classifier, splits, progress)
