"""The second stage of a run: its head trained anew on the features of the frozen backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from lastlayer._random import seed_all
from lastlayer.data import Splits
from lastlayer.heads import Classifier, HeadOutput
from lastlayer.longtail import MetaSampler, class_counts, row_losses
from lastlayer.training.build import build_augmentations
from lastlayer.training.callbacks import load_checkpoint, save_checkpoint
from lastlayer.training.config import RunConfig
from lastlayer.training.module import build_optimizer, check_finite_loss
from lastlayer.training.randomness import derive_seed
from lastlayer.training.records import Progress, Records
from lastlayer.training.run_directory import RunDirectory
from lastlayer.training.schedule import build_schedule
from lastlayer.training.stage_batches import FrozenFeatures, StageDraws

#: The trained first stage, and the state of the second one, among a run's checkpoints.
REPRESENTATION_FILE, STAGE_FILE = "representation.ckpt", "classifier.ckpt"


def save_representation(run: RunDirectory, classifier: Classifier, seconds: float) -> None:
    """Keep the first stage's weights, and the seconds it took, until the run is finished."""
    checkpoint = {"state_dict": classifier.state_dict(), "elapsed": seconds}
    save_checkpoint(checkpoint, run.checkpoints / REPRESENTATION_FILE)


def train_classifier_stage(
    config: RunConfig,
    run: RunDirectory,
    classifier: Classifier,
    splits: Splits,
    progress: Progress | None = None,
) -> float:
    """Train the head of a classifier on the backbone that the first stage left in the run.

    One process and device do it. The backbone is in evaluation mode throughout: what its batch
    normalisation has counted stays, and the head trains on the features that it will meet. Where
    the images are augmented, those of the meta batches are not.

    Args:
        config: the run's configuration, with a second stage.
        run: the run, with the first stage's checkpoint; a second stage that was stopped goes on.
        classifier: untrained; its backbone gets the first stage's weights.
        splits: the run's data.
        progress: called with the step, the first stage's included, and the newest record.

    Returns:
        Seconds of training of both stages.

    Raises:
        ValueError: if a checkpoint is corrupt.
        FloatingPointError: if the loss is not finite.
    """
    representation = load_checkpoint(run.checkpoints / REPRESENTATION_FILE)
    _take_over(classifier, representation["state_dict"], config.classifier_stage.train)
    classifier.to(_device(config.training.device))
    records = Records(
        run,
        config.training.log_every,
        config.classifier_stage.steps,
        progress,
        offset=config.training.steps,
    )
    records.load_state_dict({"sums": {}, "count": 0, "elapsed": representation["elapsed"]})
    stage = ClassifierStage(config, classifier, splits, records)
    path = run.checkpoints / STAGE_FILE
    if path.exists():
        stage.load_state_dict(load_checkpoint(path))
    stage.run(lambda state: save_checkpoint(state, path))
    classifier.cpu().backbone.requires_grad_(True)
    return records.elapsed


class ClassifierStage:
    """The second stage's state and its steps.

    Args:
        config: the run's configuration.
        classifier: with the trained backbone, on the device of the training.
        splits: the run's data.
        records: where the means of the terms and the rates go.
    """

    def __init__(
        self, config: RunConfig, classifier: Classifier, splits: Splits, records: Records
    ) -> None:
        self.config, self.stage, self.records = config, config.classifier_stage, records
        self.head = classifier.head.train()
        self.tell = getattr(self.head, "set_progress", None)
        weight = self.head.classifier.weight
        self.target = splits.train.target.to(weight.device)
        self.features = FrozenFeatures(
            classifier, splits.train.inputs, build_augmentations(config, splits.input_shape)
        )
        self.meta = self._build_meta(splits.num_classes)
        self.draws = StageDraws(
            self.target,
            splits.num_classes,
            kind=str(self.stage.sampler),
            batch_size=self.stage.batch_size,
            steps=self.stage.steps,
            seed=config.seed,
            meta=self.meta,
        )
        groups = self.head.param_groups(self.stage.optimizer.weight_decay)
        self.scales: Tensor | None = None
        if self.stage.train == "class-scales":
            self.scales = weight.new_ones(splits.num_classes).requires_grad_()
            groups = [{"params": [self.scales], "weight_decay": 0.0}]
        self.optimizer = build_optimizer(self.stage.optimizer, groups, weight.device)
        self.schedule = build_schedule(self.stage.optimizer, self.optimizer, self.stage.steps)
        self.done = 0

    def _build_meta(self, num_classes: int) -> MetaSampler | None:
        if self.stage.sampler not in ("meta", "meta-reweighter"):
            return None
        meta = self.stage.meta
        return MetaSampler(
            class_counts(self.target, num_classes),
            lr=meta.lr,
            betas=meta.betas,
            temperature=meta.temperature,
            initial_power=meta.initial_power,
        ).to(self.target.device)

    def run(self, save: Any) -> None:
        """Take the steps that are left; ``save`` is called with the state now and then."""
        if self.done == 0:
            self._record_rates()
        while self.done < self.stage.steps:
            lr = self.optimizer.param_groups[0]["lr"]
            values = self._step(self.done, lr)
            self.done += 1
            self.records.add(self.done, values, lr=lr)
            if self.records.due(self.done):
                self._record_rates()
            if self.done % self.config.training.checkpoint_every == 0:
                save(self.state_dict())
        if self.scales is not None:
            self.head.classifier.load_state_dict(self._scaled_classifier(self.scales.detach()))

    def _step(self, step: int, lr: float) -> dict[str, Tensor]:
        seed_all(derive_seed(self.config.seed, "classifier stage", "step", step))
        rows, weights = self.draws.batch(step)
        target = self.target[rows]
        if self.tell is not None:
            self.tell(step / self.stage.steps)
        # Counted on from the first stage, the augmentation draws anew.
        features = self.features.of_step(rows, self.config.training.steps + step)
        meta_loss = {}
        if self.meta is not None and weights is not None:
            balanced = self.draws.meta_batch(step, self.stage.meta.batch_size)
            meta_loss["meta_loss"] = self.meta.meta_step(
                self.head,
                features,
                target,
                weights,
                self.features.plain[balanced],
                self.target[balanced],
                lr=lr,
            )
        out = self._loss(features, target)
        check_finite_loss(out, self.records.offset + step)
        self.optimizer.zero_grad()
        out.loss.backward()  # type: ignore[no-untyped-call]
        if self.config.training.clip_norm is not None:
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(trained, self.config.training.clip_norm)
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        values = {"loss": out.loss, **out.terms, **meta_loss}
        return {name: value.detach() for name, value in values.items()}

    def _loss(self, features: Tensor, target: Tensor) -> HeadOutput:
        if self.meta is not None and self.stage.sampler == "meta-reweighter":
            weights = self.meta.weights(target).detach()
            loss = (weights * row_losses(self.head, features, target)).mean()
            return HeadOutput(loss, {"nll": loss})
        if self.scales is None:
            out = self.head(features, target)
        else:
            scaled = self._scaled_classifier(self.scales)
            parameters = {f"classifier.{name}": value for name, value in scaled.items()}
            out = functional_call(self.head, parameters, (features, target))
        if not isinstance(out, HeadOutput):
            raise TypeError("the head returned no loss for a batch with a target")
        return out

    def _scaled_classifier(self, scales: Tensor) -> dict[str, Tensor]:
        """Return the linear layer's parameters, the rows of every class times its factor."""
        frozen = self.head.classifier.state_dict()
        return {n: (v.movedim(0, -1) * scales).movedim(-1, 0) for n, v in frozen.items()}

    def _record_rates(self) -> None:
        if self.meta is not None:
            self.records.write_rates(self.done, self.meta.rates())

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs."""
        return {
            "done": self.done,
            "head": self.head.state_dict(),
            "scales": None if self.scales is None else self.scales.detach(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "meta": None if self.meta is None else self.meta.state_dict(),
            "records": self.records.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken."""
        self.done = state["done"]
        self.head.load_state_dict(state["head"])
        if self.scales is not None:
            self.scales.data.copy_(state["scales"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.meta is not None:
            self.meta.load_state_dict(state["meta"])
        self.records.load_state_dict(state["records"])


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


def _device(name: str) -> torch.device:
    # A head alone is small: where there is no CUDA the processor does, which has float64.
    use_cuda = name in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")
