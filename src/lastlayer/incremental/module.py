"""The Lightning module of one task: the head's loss, what the task before teaches, and alpha."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lastlayer._inputs import Inputs, call, take
from lastlayer._random import derive_seed
from lastlayer.data import Labelled
from lastlayer.functional.incremental import (
    distillation_loss,
    feature_distillation_loss,
)
from lastlayer.heads import Classifier, HeadOutput, set_class_counts
from lastlayer.incremental.config import IncrementalConfig
from lastlayer.incremental.old_class_weight import MetaOldWeight
from lastlayer.longtail import ClassDraw, sampling_prior
from lastlayer.training.augmentation import SeededAugmentation
from lastlayer.training.module import TrainingModule, build_optimizer, parameter_groups
from lastlayer.training.sections import OptimizerConfig


class TaskModule(TrainingModule):
    """Train a classifier on one task.

    Args:
        classifier: with a row for every class seen, the new ones last.
        config: the run's configuration; its seed is the task's.
        num_old: classes of the tasks before.
        teacher: the classifier as the task before left it; None for no distillation. It is held
            beside the module: neither trained nor checkpointed.
        alpha: the learned factor of the old counts; None for a fixed one.
        meta_data: the task's examples, on which alpha is learned, and the (K,) counts of all
            classes among them; None without alpha.
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
        meta_data: tuple[Labelled, Tensor] | None = None,
        augmentation: SeededAugmentation | None = None,
        optimizer_state: dict[int, Any] | None = None,
    ) -> None:
        super().__init__(
            classifier, config.optimizer, config.training.steps, augmentation=augmentation
        )
        if (alpha is None) != (meta_data is None):
            raise ValueError("alpha needs the meta_data it is learned on, and they need alpha")
        self.config, self.num_old = config, num_old
        # In a list, for a module would be a part of this one.
        self._teacher = [] if teacher is None else [teacher.eval().requires_grad_(False)]
        self.alpha = alpha
        # Sorted by class once.
        self._meta = None if meta_data is None else (*meta_data, ClassDraw(meta_data[0].target))
        self._optimizer_state = optimizer_state

    def on_fit_start(self) -> None:
        """Bring the teacher to where the training is."""
        for teacher in self._teacher:
            teacher.to(self.device)

    def output(self, inputs: Inputs, target: Tensor) -> HeadOutput:
        """Return a batch's loss: the head's own, and the distillation's term."""
        features = call(self.classifier.features, inputs)
        if self.alpha is not None and self._meta is not None:
            self._move_alpha(self.alpha, *self._meta, features, target)
        out = self.classifier.head(features, target)
        if not isinstance(out, HeadOutput):
            raise TypeError("the head returned no loss for a batch with a target")
        if not self._teacher:
            return out
        term = self._distillation(inputs, features)
        return HeadOutput(out.loss + term, out.terms | {"distillation": term})

    def _distillation(self, inputs: Inputs, features: Tensor) -> Tensor:
        wanted, head = self.config.distillation, self.classifier.head
        teacher = self._teacher[0]
        with torch.no_grad():
            taught = call(teacher.features, inputs)
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

    def _move_alpha(
        self,
        alpha: MetaOldWeight,
        data: Labelled,
        counts: Tensor,
        draw: ClassDraw,
        features: Tensor,
        target: Tensor,
    ) -> None:
        """Take a step of alpha on a class-balanced batch, and tell the head its counts."""
        head = self.classifier.head
        optimizer: Any = self.optimizers()
        seed = derive_seed(self.config.seed, "meta batch", self.global_step)
        generator = torch.Generator().manual_seed(seed)
        prior = sampling_prior(draw.counts, "class-balanced")
        rows = draw(self.config.old_classes.batch_size, prior, generator)
        alpha.meta_step(
            head.classifier.weight,
            head.classifier.bias,
            features,
            target,
            counts,
            self.num_old,
            # Without noise; the backbone's statistics are of training batches.
            self.classifier.features_of(take(data.inputs, rows), len(rows)).to(target.device),
            data.target[rows].to(target.device),
            lr=optimizer.param_groups[0]["lr"],
        )
        set_class_counts(head, alpha.counts(counts, self.num_old))

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its schedule, with the state of the task before if it goes on."""
        built = super().configure_optimizers()
        if self._optimizer_state is not None:
            optimizer: Optimizer = built["optimizer"] if isinstance(built, dict) else built
            _carry_on(optimizer, self._optimizer_state)
        return built

    def optimizer_state(self) -> dict[int, Any]:
        """Return a copy of the optimizer's state after training, by the order of parameters."""
        optimizer: Any = self.optimizers()
        return copy.deepcopy(optimizer.optimizer.state_dict()["state"])


def optimizer_with_state(
    config: OptimizerConfig, classifier: Classifier, state: dict[int, Any]
) -> Optimizer:
    """Return an optimizer of a classifier's parameters that goes on from a copy of a state."""
    device = classifier.head.classifier.weight.device
    optimizer = build_optimizer(config, parameter_groups(classifier, config.weight_decay), device)
    _carry_on(optimizer, state)
    return optimizer


def _carry_on(optimizer: Optimizer, state: dict[int, Any]) -> None:
    """Give an optimizer a copy of another one's state, by the order of their parameters."""
    own = optimizer.state_dict()
    # Loading alone would share the tensors, and a step would change the state it came from.
    copied = copy.deepcopy(state)
    optimizer.load_state_dict({"state": copied, "param_groups": own["param_groups"]})
