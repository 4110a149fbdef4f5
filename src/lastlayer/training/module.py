"""The Lightning module: one classifier, its optimiser and its schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
)

from lastlayer.heads import Classifier, HeadOutput
from lastlayer.training.config import OptimizerConfig


class TrainingModule(LightningModule):
    """Train a :class:`~lastlayer.Classifier` with its head's own loss.

    Args:
        classifier: backbone and head.
        optimizer: which optimiser and schedule.
        total_steps: length of the schedule.
    """

    def __init__(
        self, classifier: Classifier, optimizer: OptimizerConfig, total_steps: int
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.optimizer_config = optimizer
        self.total_steps = total_steps

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        """Return the loss and its terms; a loss that is not finite stops the run."""
        inputs, target = batch
        out = self.classifier(_like_weights(inputs), target=target)
        if not isinstance(out, HeadOutput):
            raise TypeError("the head returned no loss for a batch with a target")
        if not bool(torch.isfinite(out.loss)):
            terms = ", ".join(
                f"{name}={float(term.detach()):g}" for name, term in out.terms.items()
            )
            raise FloatingPointError(
                f"the loss is {float(out.loss.detach())} at step {self.global_step} ({terms}); "
                "try a smaller learning rate, --set training.clip_norm=1, or precision 32-true"
            )
        return {"loss": out.loss, "terms": {k: v.detach() for k, v in out.terms.items()}}

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add the batch to the held-out error and NLL."""
        inputs, target = batch
        log_prob = self.classifier(_like_weights(inputs))
        wrong = log_prob.argmax(dim=-1) != target
        nll = -log_prob.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        self.log_dict(
            {"validation/error": wrong.float().mean(), "validation/nll": nll.mean()},
            on_epoch=True,
            batch_size=len(target),
            sync_dist=True,
        )

    def configure_optimizers(self) -> Any:
        """Build the optimiser and its schedule from the configuration."""
        config = self.optimizer_config
        groups = self.classifier.param_groups(config.weight_decay)
        optimizer = _optimizer(config, groups, fused=self.device.type in ("cpu", "cuda"))
        schedule = _schedule(config, optimizer, self.total_steps)
        if schedule is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def _optimizer(config: OptimizerConfig, groups: list[dict[str, Any]], *, fused: bool) -> Optimizer:
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, fused=fused)


def _schedule(
    config: OptimizerConfig, optimizer: Optimizer, total_steps: int
) -> LRScheduler | None:
    if config.schedule == "constant":
        return None
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, total_steps)
    if config.schedule == "one-cycle":
        # Lightning steps the schedule once more after the last step.
        return OneCycleLR(optimizer, config.lr, total_steps=total_steps + 1)
    milestones = [math.floor(total_steps * fraction) for fraction in config.milestones]
    return MultiStepLR(optimizer, milestones, gamma=config.gamma)


def _like_weights(inputs: Tensor) -> Tensor:
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs
