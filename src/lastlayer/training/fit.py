"""Train one run from its configuration to its summary."""

from __future__ import annotations

import logging
import math
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lastlayer.data import Split, Splits
from lastlayer.evaluation import apply_temperature, evaluate, fit_temperature
from lastlayer.heads import Classifier, Head
from lastlayer.training.batches import Batches, ShuffledBatches
from lastlayer.training.build import (
    backbone_name,
    build_augmentations,
    build_classifier,
    load_splits,
)
from lastlayer.training.callbacks import (
    Progress,
    RecordMetrics,
    StopAfter,
    StopWithoutProgress,
    WholeCheckpoints,
    best_checkpoint,
    last_checkpoint,
    load_checkpoint,
)
from lastlayer.training.config import RunConfig
from lastlayer.training.memory import keep_freed_memory
from lastlayer.training.module import TrainingModule
from lastlayer.training.randomness import SeedEveryStep
from lastlayer.training.run_directory import RunDirectory

SUMMARY_VERSION = 1
EVALUATION_BATCH = 500
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
    if not _is_first_process():
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
    classifier = build_classifier(config, splits.input_shape, splits.num_classes)
    seconds = _fit(config, run, classifier, splits, progress)
    if not _is_first_process():
        return
    run.write_tensors(run.model_path, classifier.state_dict())
    if splits.extras:
        run.write_json(ENCODER_FILE, dict(splits.extras))
    run.write_summary(_summary(config, run, classifier, splits, seconds))
    run.remove_checkpoints()


def _is_first_process() -> bool:
    """Whether this process keeps the run's files; with several devices the others do not."""
    return getattr(rank_zero_only, "rank", 0) == 0


def load_classifier(run: RunDirectory) -> Classifier:
    """Return a finished run's trained classifier, in evaluation mode."""
    summary = run.summary()
    classifier = build_classifier(
        run.config(), tuple(summary["input_shape"]), len(summary["class_names"])
    )
    if run.config().training.precision == "64-true":
        classifier.double()
    classifier.load_state_dict(run.state_dict())
    return classifier.eval()


@torch.no_grad()
def predict(classifier: Classifier, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and scores of inputs, batch by batch in the weights' precision."""
    classifier.eval()
    weight = classifier.head.classifier.weight
    own_scores = type(classifier.head).scores is not Head.scores
    log_probs, scores = [], []
    for batch in torch.split(inputs, EVALUATION_BATCH):
        features = classifier.features(batch.to(weight.device, weight.dtype))
        log_prob = classifier.head.log_prob(features).cpu()
        log_probs.append(log_prob)
        scores.append(classifier.head.scores(features).cpu() if own_scores else log_prob)
    return torch.cat(log_probs), torch.cat(scores)


def _fit(
    config: RunConfig,
    run: RunDirectory,
    classifier: Classifier,
    splits: Splits,
    progress: Progress | None,
) -> float:
    """Train from the last checkpoint, if there is one, and return the seconds it took."""
    training = config.training
    if len(splits.input_shape) == 3:
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps_per_epoch = max(1, len(splits.train) // training.batch_size)
    checkpoint_epochs = math.ceil(training.checkpoint_every / steps_per_epoch)
    records = RecordMetrics(run, training.log_every, training.steps, progress)
    callbacks: list[Callback] = [
        SeedEveryStep(config.seed),
        records,
        StopAfter(training.steps),
        last_checkpoint(run, checkpoint_epochs),
    ]
    if training.select == "best":
        callbacks.append(best_checkpoint(run))
    if training.patience is not None:
        callbacks.append(StopWithoutProgress(training.patience))
    keep_freed_memory()
    with _contained_engine():
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


@contextmanager
def _contained_engine() -> Iterator[None]:
    """Silence what the engine says about itself and undo what it sets for the whole process."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    deterministic = torch.are_deterministic_algorithms_enabled()
    filling: Any = torch.utils.deterministic  # the stub does not know its one setting
    filled = filling.fill_uninitialized_memory
    # Deterministic kernels suffice; filling fresh memory as well only costs time.
    filling.fill_uninitialized_memory = False
    in_main_thread = threading.current_thread() is threading.main_thread()
    on_interrupt = signal.getsignal(signal.SIGINT)
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # The engine calls a helper that torch deprecates; nothing a user could change.
            warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)
            # A resumed run finds its own checkpoints there.
            warnings.filterwarnings("ignore", r"Checkpoint directory .* is not empty", UserWarning)
            yield
    except SystemExit as stop:
        # The engine makes an exit of an interrupt, and has the next one ignored.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        raise
    finally:
        logger.setLevel(level)
        torch.use_deterministic_algorithms(deterministic)
        filling.fill_uninitialized_memory = filled
        if in_main_thread and on_interrupt is not None:
            signal.signal(signal.SIGINT, on_interrupt)


def _require_validation(splits: Splits) -> None:
    if splits.validation is None:
        raise ValueError(
            "the configuration looks at held-out examples, but there are none; "
            "set --validation-size"
        )


def _measure(
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


def _summary(
    config: RunConfig, run: RunDirectory, classifier: Classifier, splits: Splits, seconds: float
) -> dict[str, Any]:
    measured = splits.validation if config.evaluate_on == "validation" else splits.test
    if measured is None:
        raise ValueError("there is no held-out part to measure on")
    measures, predictions = _measure(classifier, splits, measured)
    run.write_tensors(run.predictions_path, predictions)
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
        "validation_size": 0 if splits.validation is None else len(splits.validation),
        "input_shape": list(splits.input_shape),
        "class_names": list(splits.class_names),
        "notes": list(splits.notes),
    }
