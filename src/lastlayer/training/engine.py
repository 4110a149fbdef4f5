"""Fit a module to a training set with the engine, from its checkpoint if there is one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lastlayer.data import Labelled
from lastlayer.training.batches import Batches, ShuffledBatches
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
from lastlayer.training.config import RunConfig
from lastlayer.training.engine import contained_engine
from lastlayer.training.measuring import EVALUATION_BATCH
from lastlayer.training.memory import keep_freed_memory
from lastlayer.training.module import TrainingModule
from lastlayer.training.randomness import SeedEveryStep
from lastlayer.training.records import Progress
from lastlayer.training.regularization import RateSchedule
from lastlayer.training.run_directory import RunDirectory
from lastlayer.training.sampling import epoch_order


def fit_module(
    module: TrainingModule,
    config: RunConfig,
    run: RunDirectory,
    train: Labelled,
    *,
    validation: Labelled | None = None,
    progress: Progress | None = None,
    checkpoint: str = "last",
    offset: int = 0,
) -> float:
    """Train a module for the steps of its configuration; a fit that was stopped goes on.

    Args:
        module: what is trained, in place.
        config: the seed, and how it is trained.
        run: where records and checkpoints go.
        train: the training examples.
        validation: held-out examples to look at now and then; None for none.
        progress: called with the step, ``offset`` included, and the newest record.
        checkpoint: name of the checkpoint to go on from.
        offset: what is added to the steps in records: the steps of earlier fits.

    Returns:
        Seconds of training, those before a resume included.

    Raises:
        ValueError: if the checkpoint is corrupt, or batch normalization gets one example alone.
        FloatingPointError: if the loss is not finite.
        RuntimeError: within ``torch.inference_mode``.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("training needs gradients; leave torch.inference_mode() before it")
    training = config.training
    if training.precision == "64-true":
        module.double()  # the engine restores a checkpoint's weights before it does that
    if isinstance(train.inputs, Tensor) and train.inputs.dim() == 4:
        module.classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    records = RecordMetrics(run, training.log_every, training.steps, progress, offset=offset)
    callbacks = [records, *_callbacks(config, run, module, len(train), checkpoint)]
    keep_freed_memory()
    with contained_engine():
        trainer = _trainer(config, callbacks)
        batches = ShuffledBatches(
            train.inputs,
            train.target,
            batch_size=training.batch_size,
            seed=config.seed,
            epoch=lambda: trainer.current_epoch,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            order=epoch_order(training, train.target),
        )
        resume_from = run.checkpoints / f"{checkpoint}.ckpt"
        if resume_from.exists():
            load_checkpoint(resume_from)  # a damaged file is named before training begins
        with _named_errors():
            trainer.fit(
                module,
                train_dataloaders=batches,
                val_dataloaders=_batches(validation),
                ckpt_path=str(resume_from) if resume_from.exists() else None,
                weights_only=True,
            )
    return records.elapsed


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "training.batch_size and the training examples must be 2 or more where a network "
            "normalizes over the batch; got a batch of one example"
        ) from error


def _callbacks(
    config: RunConfig,
    run: RunDirectory,
    module: TrainingModule,
    num_examples: int,
    checkpoint: str,
) -> list[Callback]:
    training = config.training
    steps_per_epoch = max(1, num_examples // training.batch_size)
    checkpoint_epochs = math.ceil(training.checkpoint_every / steps_per_epoch)
    callbacks: list[Callback] = [
        SeedEveryStep(config.seed),
        StopAfter(training.steps),
        last_checkpoint(run, checkpoint_epochs, checkpoint),
    ]
    tell = getattr(module.classifier.head, "set_progress", None)
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


def _batches(validation: Labelled | None) -> Batches | list[Any]:
    if validation is None:
        return []
    return Batches(validation.inputs, validation.target, EVALUATION_BATCH)
