"""Train one run from its configuration to its summary."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only

from lastlayer.data import Splits
from lastlayer.heads import Classifier
from lastlayer.longtail import class_counts
from lastlayer.training.batches import Batches, ShuffledBatches
from lastlayer.training.build import (
    build_augmentations,
    build_classifier,
    load_splits,
)
from lastlayer.training.callbacks import (
    RecordMetrics,
    StopAfter,
    StopWithoutProgress,
    TellProgress,
    WholeCheckpoints,
    best_checkpoint,
    last_checkpoint,
    load_checkpoint,
)
from lastlayer.training.classifier_stage import (
    REPRESENTATION_FILE,
    describe_stages,
    save_representation,
    train_classifier_stage,
)
from lastlayer.training.config import RunConfig
from lastlayer.training.engine import contained_engine
from lastlayer.training.measuring import EVALUATION_BATCH, summarize
from lastlayer.training.memory import keep_freed_memory
from lastlayer.training.module import TrainingModule
from lastlayer.training.randomness import SeedEveryStep
from lastlayer.training.records import Progress
from lastlayer.training.regularization import RateSchedule
from lastlayer.training.run_directory import RunDirectory
from lastlayer.training.sampling import corrected_prior, epoch_order

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
    if config.evaluate_on == "validation" or config.training.validate_every is not None:
        _require_validation(splits)
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
    summary = summarize(config, run, classifier, splits, seconds)
    stages = {"stages": describe_stages(config)} if staged else {}
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
    return classifier.eval()


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
    training = config.training
    if training.precision == "64-true":
        classifier.double()  # the engine restores a checkpoint's weights before it does that
    if len(splits.input_shape) == 3:
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    records = RecordMetrics(run, training.log_every, training.steps, progress)
    callbacks = [records, *_callbacks(config, run, classifier, len(splits.train))]
    keep_freed_memory()
    with contained_engine():
        trainer = _trainer(config, callbacks)
        augmentation = build_augmentations(config, splits.input_shape)
        module = TrainingModule(
            classifier, config.optimizer, training.steps, augmentation=augmentation
        )
        batches = ShuffledBatches(
            splits.train.inputs,
            splits.train.target,
            batch_size=training.batch_size,
            seed=config.seed,
            epoch=lambda: trainer.current_epoch,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            order=epoch_order(training, splits.train.target),
        )
        resume_from = run.checkpoints / "last.ckpt"
        if resume_from.exists():
            load_checkpoint(resume_from)  # a damaged file is named before training begins
        trainer.fit(
            module,
            train_dataloaders=batches,
            val_dataloaders=_validation_batches(config, splits),
            ckpt_path=str(resume_from) if resume_from.exists() else None,
            weights_only=True,
        )
    if training.select == "best":
        best = load_checkpoint(run.checkpoints / "best.ckpt")["state_dict"]
        module.load_state_dict(best)
    return records.elapsed


def _fit_in_stages(
    config: RunConfig,
    run: RunDirectory,
    classifier: Classifier,
    splits: Splits,
    progress: Progress | None,
) -> float:
    """Train backbone and head, then the head alone, anew; return the seconds of both."""
    if not (run.checkpoints / REPRESENTATION_FILE).exists():
        first = config.first_stage()
        trained = _build(first, splits)
        seconds = _fit(first, run, trained, splits, progress)
        if is_first_process():
            save_representation(run, trained, seconds)
    if not is_first_process():
        return 0.0
    with contained_engine():
        torch.use_deterministic_algorithms(True)
        return train_classifier_stage(config, run, classifier, splits, progress)


def _callbacks(
    config: RunConfig, run: RunDirectory, classifier: Classifier, num_examples: int
) -> list[Callback]:
    training = config.training
    steps_per_epoch = max(1, num_examples // training.batch_size)
    checkpoint_epochs = math.ceil(training.checkpoint_every / steps_per_epoch)
    callbacks: list[Callback] = [
        SeedEveryStep(config.seed),
        StopAfter(training.steps),
        last_checkpoint(run, checkpoint_epochs),
    ]
    tell = getattr(classifier.head, "set_progress", None)
    if tell is not None:
        callbacks.append(TellProgress(tell, training.steps))
    if config.regularizer.name is not None:
        callbacks.append(RateSchedule(config.regularizer.schedule, training.steps))
    if training.select == "best":
        callbacks.append(best_checkpoint(run))
    if training.patience is not None:
        callbacks.append(StopWithoutProgress(training.patience))
    return callbacks


def _trainer(config: RunConfig, callbacks: list[Callback]) -> Trainer:
    training = config.training
    return Trainer(
        accelerator=training.device,
        devices=training.devices,
        strategy=training.strategy,
        precision=training.precision,
        max_epochs=-1,  # StopAfter ends the run
        callbacks=callbacks,
        plugins=[WholeCheckpoints()],
        gradient_clip_val=training.clip_norm,
        val_check_interval=training.validate_every,
        check_val_every_n_epoch=None,
        limit_val_batches=None if training.validate_every else 0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic=True,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _validation_batches(config: RunConfig, splits: Splits) -> Batches | list[Any]:
    if config.training.validate_every is None or splits.validation is None:
        return []
    return Batches(splits.validation.inputs, splits.validation.target, EVALUATION_BATCH)


def _require_validation(splits: Splits) -> None:
    if splits.validation is None:
        raise ValueError(
            "the configuration looks at held-out examples, but there are none; "
            "set --validation-size"
        )
