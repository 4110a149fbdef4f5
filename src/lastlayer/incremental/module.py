"""The Lightning module of one task: the head's loss, what the task before teaches, and alpha."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lastlayer.data import Split
from lastlayer.functional.incremental import (
    distillation_loss,
    feature_distillation_loss,
)
from lastlayer.heads import Classifier, HeadOutput, set_class_counts
from lastlayer.incremental.config import IncrementalConfig
from lastlayer.incremental.old_class_weight import MetaOldWeight
from lastlayer.longtail import ClassDraw, sampling_prior
from lastlayer.training.augmentation import SeededAugmentation
from lastlayer.training.module import TrainingModule
from lastlayer.training.randomness import derive_seed


class TaskModule(TrainingModule):
    """Train a classifier on one task.

    Args:
        classifier: with a row for every class seen, the new ones last.
        config: the run's configuration; its seed is the task's.
        num_old: classes of the tasks before.
        teacher: the classifier as the task before left it; None for no distillation.
        alpha: the learned factor of the old counts, with the examples it is learned on and all
            classes' counts there; None for a fixed one.
        augmentation: changes the training inputs of a step; None leaves them.
        optimizer_state: what to go on with, by parameter; None for a fresh optimizer.
    """

    def __init__(
        self,
        classifier: Classifier,
        config: IncrementalConfig,
        *,
        num_old: int,
        teacher: Classifier | None = None,
        alpha: MetaOldWeight | None = None,
        meta_data: tuple[Split, Tensor] | None = None,
        augmentation: SeededAugmentation | None = None,
        optimizer_state: dict[int, Any] | None = None,
    ) -> None:
        super().__init__(
            classifier, config.optimizer, config.training.steps, augmentation=augmentation
        )
        self.config, self.num_old = config, num_old
        # Not a part of the module: it is neither trained nor checkpointed.
        self._teacher = [] if teacher is None else [teacher.eval().requires_grad_(False)]
        self.alpha, self._meta_data = alpha, meta_data
        self._draw = None if meta_data is None else ClassDraw(meta_data[0].target)
        self._optimizer_state = optimizer_state

    def on_fit_start(self) -> None:
        """Bring the teacher to where the training is."""
        for teacher in self._teacher:
            teacher.to(self.device)

    def output(self, inputs: Tensor, target: Tensor) -> HeadOutput:
        """Return a batch's loss: the head's own, and the distillation's term."""
        features = self.classifier.features(inputs)
        if self.alpha is not None:
            self._move_alpha(self.alpha, features, target)
        out = self.classifier.head(features, target)
        if not isinstance(out, HeadOutput):
            raise TypeError("the head returned no loss for a batch with a target")
        if not self._teacher:
            return out
        term = self._distillation(inputs, features)
        return HeadOutput(out.loss + term, out.terms | {"distillation": term})

    def _distillation(self, inputs: Tensor, features: Tensor) -> Tensor:
        wanted, head = self.config.distillation, self.classifier.head
        teacher = self._teacher[0]
        with torch.no_grad():
            taught = teacher.features(inputs)
        if wanted.kind == "features":
            loss = feature_distillation_loss(features, taught)
        else:
            with torch.no_grad():
                teacher_logits = teacher.head.logits(taught)
            loss = distillation_loss(
                head.logits(features)[..., : self.num_old],
                teacher_logits[..., : self.num_old],
                temperature=wanted.temperature,
            )
        return wanted.factor(self.num_old, head.num_classes - self.num_old) * loss

    def _move_alpha(self, alpha: MetaOldWeight, features: Tensor, target: Tensor) -> None:
        """Take a step of alpha on a class-balanced batch, and tell the head its counts."""
        if self._meta_data is None or self._draw is None:
            raise ValueError("alpha needs the examples it is learned on; got None")
        data, counts = self._meta_data
        head = self.classifier.head
        seed = derive_seed(self.config.seed, "meta batch", self.global_step)
        generator = torch.Generator().manual_seed(seed)
        prior = sampling_prior(self._draw.counts, "class-balanced", 0.0)
        rows = self._draw(self.config.old_classes.batch_size, prior, generator)
        training = self.classifier.backbone.training
        self.classifier.backbone.eval()  # its statistics are of the training batches
        with torch.no_grad():
            meta_features = self.classifier.features(data.inputs[rows].to(features))
        self.classifier.backbone.train(training)
        alpha.meta_step(
            head.classifier.weight,
            head.classifier.bias,
            features,
            target,
            counts,
            self.num_old,
            meta_features,
            data.target[rows].to(target.device),
            lr=self._learning_rate(),
        )
        set_class_counts(head, alpha.counts(counts, self.num_old))

    def _learning_rate(self) -> float:
        optimizer: Any = self.optimizers()
        return float(optimizer.param_groups[0]["lr"])

    def configure_optimizers(self) -> Any:
        """Build the optimiser and its schedule, with the state of the task before if it goes on."""
        built = super().configure_optimizers()
        if self._optimizer_state is not None:
            optimizer: Optimizer = built["optimizer"] if isinstance(built, dict) else built
            carry_state(optimizer, self._optimizer_state)
        return built


def carry_state(optimizer: Optimizer, state: dict[int, Any]) -> None:
    """Give an optimizer another one's state, by the order of their parameters."""
    own = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": own["param_groups"]})
