"""The second stage of a run: its head trained anew on the features of the frozen backbone."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.func import functional_call

from lastlayer._random import derive_seed, seed_all
from lastlayer.data import Splits
from lastlayer.heads import Classifier, HeadOutput
from lastlayer.longtail import MetaSampler, class_counts, row_losses
from lastlayer.training.augmentation import build_augmentations
from lastlayer.training.callbacks import Progress, RecordMetrics, load_checkpoint
from lastlayer.training.config import RunConfig
from lastlayer.training.engine import fit, progress_callbacks
from lastlayer.training.module import check_finite_loss, optimizer_and_schedule
from lastlayer.training.run_directory import RunDirectory
from lastlayer.training.stage_batches import StageDraws

#: The trained first stage, and the state of the second one, among a run's checkpoints.
REPRESENTATION_FILE, STAGE_FILE = "representation.ckpt", "classifier.ckpt"


def train_classifier_stage(
    config: RunConfig,
    run: RunDirectory,
    classifier: Classifier,
    splits: Splits,
    progress: Progress | None = None,
) -> float:
    """Train the head of a classifier on the backbone that the first stage left in the run.

    One process and device do it. The backbone is in evaluation mode throughout: what its batch
    normalization has counted stays, and the head trains on the features that it will meet. Where
    the images are augmented, those of the meta batches are not. A second stage that was stopped
    goes on; ``progress`` is called with the step, the first stage's included.

    Returns:
        Seconds of training of both stages.
    """
    representation = load_checkpoint(run.checkpoints / REPRESENTATION_FILE)
    training, stage = config.training, config.classifier_stage
    _take_over(classifier, representation["state_dict"], stage.train)
    module = ClassifierStage(config, classifier, splits)
    records = StageRecords(
        run,
        training.log_every,
        stage.steps,
        progress,
        offset=training.steps,
        seconds=representation["elapsed"],
    )
    cuda = training.device in ("auto", "gpu", "cuda")
    # The batch of a step follows from its number; an epoch is the steps between two checkpoints.
    epoch = range(min(training.checkpoint_every, stage.steps))
    fit(
        module,
        lambda trainer: epoch,
        [records, *progress_callbacks(classifier.head, stage.steps)],
        steps=stage.steps,
        checkpoint=run.checkpoints / STAGE_FILE,
        # A head alone is small: where there is no CUDA the processor does, which has float64.
        accelerator="cuda" if cuda and torch.cuda.is_available() else "cpu",
        devices=1,
        precision="32-true",  # which leaves the weights in the precision that they have
        gradient_clip_val=training.clip_norm,
        limit_val_batches=0,
    )
    module.finish()
    classifier.cpu().backbone.requires_grad_(True)
    return records.elapsed


class ClassifierStage(LightningModule):
    """Train the head, or factors of its rows, by the second stage's sampler."""

    def __init__(self, config: RunConfig, classifier: Classifier, splits: Splits) -> None:
        super().__init__()
        self.config, self.stage = config, config.classifier_stage
        self.head = classifier.head.train()
        # In a list, for the frozen backbone is no part of what is trained and checkpointed.
        self._classifier = [classifier]
        self.splits = splits
        self.augmentation = build_augmentations(config, splits.input_shape)
        self.scales: nn.Parameter | None = None
        if self.stage.train == "class-scales":
            ones = self.head.classifier.weight.new_ones(splits.num_classes)
            self.scales = nn.Parameter(ones)
        self.meta: MetaSampler | None = None
        if self.stage.sampler in ("meta", "meta-reweighter"):
            meta = self.stage.meta
            self.meta = MetaSampler(
                class_counts(splits.train.target, splits.num_classes),
                lr=meta.lr,
                betas=meta.betas,
                temperature=meta.temperature,
                initial_power=meta.initial_power,
            )

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its schedule from the second stage's configuration."""
        config = self.stage.optimizer
        groups = self.head.param_groups(config.weight_decay)
        if self.scales is not None:
            groups = [{"params": [self.scales], "weight_decay": 0.0}]
        return optimizer_and_schedule(config, groups, self.device, self.stage.steps)

    def on_fit_start(self) -> None:
        """Compute the features on the device of the training, once where nothing augments."""
        classifier, train = self._classifier[0], self.splits.train
        classifier.backbone.to(self.device).eval().requires_grad_(False)
        self.features = classifier.features_of(train.inputs).to(self.device)
        self.target = train.target.to(self.device)
        self.draws = StageDraws(
            self.target,
            self.splits.num_classes,
            kind=str(self.stage.sampler),
            batch_size=self.stage.batch_size,
            steps=self.stage.steps,
            seed=self.config.seed,
            meta=self.meta,
        )

    def training_step(self, batch: int, batch_idx: int) -> dict[str, Any]:
        """Return the loss of the step and its terms, after a step of the rates if they learn."""
        step, optimizer = self.global_step, self.optimizers()
        lr = optimizer.param_groups[0]["lr"]  # type: ignore[union-attr]
        seed_all(derive_seed(self.config.seed, "classifier stage", "step", step))
        rows, weights = self.draws.batch(step)
        features, target = self._features(rows, step), self.target[rows]
        meta_loss = {}
        if self.meta is not None and weights is not None:
            balanced = self.draws.meta_batch(step, self.stage.meta.batch_size)
            meta_loss["meta_loss"] = self.meta.meta_step(
                self.head,
                features,
                target,
                weights,
                self.features[balanced],
                self.target[balanced],
                lr=lr,
            )
        out = self._loss(features, target)
        check_finite_loss(out, self.config.training.steps + step)
        terms = {name: term.detach() for name, term in out.terms.items()} | meta_loss
        return {"loss": out.loss, "terms": terms, "lr": lr}

    def _features(self, rows: Tensor, step: int) -> Tensor:
        """Return (B, D) features of the examples at ``rows``, augmented for the step."""
        if self.augmentation is None:
            return self.features[rows]
        inputs = self.splits.train.inputs
        # Counted on from the first stage, the augmentation draws anew.
        at = self.config.training.steps + step
        images = self.augmentation(inputs[rows.to(inputs.device)], step=at)
        return self._classifier[0].features_of(images, len(images)).to(self.device)

    def _loss(self, features: Tensor, target: Tensor) -> HeadOutput:
        if self.meta is not None and self.stage.sampler == "meta-reweighter":
            weights = self.meta.weights(target).detach()
            loss = (weights * row_losses(self.head, features, target)).mean()
            return HeadOutput(loss, {"nll": loss})
        if self.scales is None:
            out = self.head(features, target)
        else:
            scaled = self._scaled_classifier(self.scales)
            named = {f"classifier.{name}": value for name, value in scaled.items()}
            out = functional_call(self.head, named, (features, target))
        if not isinstance(out, HeadOutput):
            raise TypeError("the head returned no loss for a batch with a target")
        return out

    def finish(self) -> None:
        """Put the learned factors into the head's layer."""
        if self.scales is not None:
            self.head.classifier.load_state_dict(self._scaled_classifier(self.scales.detach()))

    def _scaled_classifier(self, scales: Tensor) -> dict[str, Tensor]:
        """Return the linear layer's parameters, the rows of every class times its factor."""
        frozen = self.head.classifier.state_dict()
        return {n: (v.movedim(0, -1) * scales).movedim(-1, 0) for n, v in frozen.items()}


class StageRecords(RecordMetrics):
    """Append the sampling rates of the classes too, where they learn."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the rates before the first step."""
        if trainer.global_step == 0:
            self._write_rates(0, pl_module)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write the rates behind a record of the terms."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.due(trainer.global_step):
            self._write_rates(trainer.global_step, pl_module)

    def _write_rates(self, step: int, module: LightningModule) -> None:
        meta = module.meta
        if self.run is not None and isinstance(meta, MetaSampler):
            rates = [round(rate, 6) for rate in meta.rates().tolist()]
            self.run.append_metrics({"split": "rates", "step": self.offset + step, "rates": rates})


def describe_stages(config: RunConfig) -> list[dict[str, Any]]:
    """Return what a summary says about the stages of a run that has two."""
    stage = config.classifier_stage
    return [
        {
            "name": "representation",
            "head": config.first_stage().head.name,
            "steps": config.training.steps,
        },
        {
            "name": "classifier",
            "head": config.head.name,
            "sampler": stage.sampler,
            "train": stage.train,
            "steps": stage.steps,
        },
    ]


def _take_over(classifier: Classifier, weights: dict[str, Tensor], train: str) -> None:
    """Give a classifier the first stage's backbone, and its linear layer to be scaled."""

    def part(name: str) -> dict[str, Tensor]:
        prefix = f"{name}."
        return {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}

    linear = part("head.classifier")
    classifier.to(linear["weight"].dtype)
    classifier.backbone.load_state_dict(part("backbone"))
    if train == "class-scales":
        classifier.head.classifier.load_state_dict(linear)
