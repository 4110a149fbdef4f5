"""The one engine: Lightning trains a module, from its checkpoint if there is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lastlayer.data import Labelled
from lastlayer.heads import Head
from lastlayer.training.batches import Batches, ShuffledBatches, epoch_order
from lastlayer.training.callbacks import (
    Progress,
    ProgressCallback,
    RecordMetrics,
    SeedEveryStep,
    StopAfter,
    StopWithoutProgress,
    WholeCheckpoints,
    best_checkpoint,
    last_checkpoint,
    load_checkpoint,
)
from lastlayer.training.config import RunConfig
from lastlayer.training.measuring import EVALUATION_BATCH
from lastlayer.training.module import TrainingModule
from lastlayer.training.process_guard import guarded_process, tune_allocator
from lastlayer.training.regularization import RateSchedule
from lastlayer.training.run_directory import RunDirectory

#: Weights of the least held-out error, among a run's checkpoints.
BEST_FILE = "best.ckpt"


def fit(
    module: LightningModule,
    batches: Callable[[Trainer], Iterable[Any]],
    callbacks: Sequence[Callback],
    *,
    steps: int,
    checkpoint: Path | None = None,
    checkpoint_epochs: int = 1,
    validation: Iterable[Any] | None = None,
    **options: Any,
) -> None:
    """Train a module for a number of steps; a fit that was stopped goes on.

    Args:
        module: what is trained, in place.
        batches: gives the batches of every epoch, of the engine that asks for them.
        callbacks: what happens beside the steps, in this order.
        steps: when training ends.
        checkpoint: file of the newest state, from which training goes on; None to keep none.
        checkpoint_epochs: epochs between two of them.
        validation: held-out batches; None for a module that looks at none.
        **options: further ones of Lightning's ``Trainer``.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("training needs gradients; leave torch.inference_mode() before it")
    kept = [] if checkpoint is None else [last_checkpoint(checkpoint, checkpoint_epochs)]
    resumes = checkpoint is not None and checkpoint.exists()
    if checkpoint is not None and resumes and "loops" not in load_checkpoint(checkpoint):
        raise ValueError(
            f"{checkpoint} was written by an earlier version, whose second stage this one cannot "
            "go on with; remove it to train that stage from its beginning"
        )
    tune_allocator()
    with guarded_process():
        trainer = Trainer(
            max_epochs=-1,  # StopAfter ends the run
            callbacks=[*callbacks, StopAfter(steps), *kept],
            plugins=[WholeCheckpoints()],
            enable_checkpointing=checkpoint is not None,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            deterministic=True,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        trainer.fit(
            module,
            train_dataloaders=batches(trainer),
            val_dataloaders=validation,
            ckpt_path=str(checkpoint) if resumes else None,
            weights_only=True,
        )


def fit_module(
    module: TrainingModule,
    config: RunConfig,
    train: Labelled,
    *,
    run: RunDirectory | None = None,
    validation: Labelled | None = None,
    progress: Progress | None = None,
    checkpoint: str = "last",
    offset: int = 0,
) -> float:
    """Train a module on examples for the steps of its configuration; if stopped it goes on.

    Records and checkpoints go to ``run``, if any; ``checkpoint`` is the name of the one to go on
    from. ``offset``, the steps of earlier fits, is added to those in records and ``progress``.
    Returns the seconds of training, those before a resume included.
    """
    training = config.training
    if training.precision == "64-true":
        module.double()  # the engine restores a checkpoint's weights before it does that
    if isinstance(train.inputs, Tensor) and train.inputs.dim() == 4:
        module.classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batches(trainer: Trainer) -> ShuffledBatches:
        return ShuffledBatches(
            train.inputs,
            train.target,
            batch_size=training.batch_size,
            seed=config.seed,
            epoch=lambda: trainer.current_epoch,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            order=epoch_order(training, train.target),
        )

    records = RecordMetrics(run, training.log_every, training.steps, progress, offset=offset)
    steps_per_epoch = max(1, len(train) // training.batch_size)
    try:
        fit(
            module,
            batches,
            [records, SeedEveryStep(config.seed), *_callbacks(config, module, run)],
            steps=training.steps,
            checkpoint=None if run is None else run.checkpoints / f"{checkpoint}.ckpt",
            checkpoint_epochs=math.ceil(training.checkpoint_every / steps_per_epoch),
            validation=[]
            if validation is None
            else Batches(validation.inputs, validation.target, EVALUATION_BATCH),
            accelerator=training.device,
            devices=training.devices,
            strategy=training.strategy,
            precision=training.precision,
            gradient_clip_val=training.clip_norm,
            val_check_interval=training.validate_every,
            limit_val_batches=None if training.validate_every else 0,
        )
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "training.batch_size and the training examples must be 2 or more where a network "
            "normalizes over the batch; got a batch of one example"
        ) from error
    return records.elapsed


def progress_callbacks(head: Head, steps: int) -> list[Callback]:
    """Return what tells a head how far the run is, if it wants to know."""
    tell = getattr(head, "set_progress", None)
    return [] if tell is None else [ProgressCallback(tell, steps)]


def _callbacks(
    config: RunConfig, module: TrainingModule, run: RunDirectory | None
) -> Iterator[Callback]:
    training = config.training
    yield from progress_callbacks(module.classifier.head, training.steps)
    if config.regularizer.name is not None:
        yield RateSchedule(config.regularizer.schedule, training.steps)
    if training.select == "best" and run is not None:
        yield best_checkpoint(run.checkpoints / BEST_FILE)
    if training.patience is not None:
        yield StopWithoutProgress(training.patience)
