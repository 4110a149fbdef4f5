"""The Lightning module: one classifier, its optimizer and its schedule."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from lastlayer._inputs import Inputs, call, to_weight
from lastlayer.heads import Classifier, HeadOutput
from lastlayer.regularizers import total_penalty
from lastlayer.training.augmentation import SeededAugmentation
from lastlayer.training.regularization import learned_rates, without_decay
from lastlayer.training.schedule import build_schedule
from lastlayer.training.sections import OptimizerConfig


class TrainingModule(LightningModule):
    """Train a :class:`~lastlayer.Classifier` with its head's own loss.

    ``total_steps`` is the length of the schedule; ``augmentation`` changes a step's training
    inputs.
    """

    def __init__(
        self,
        classifier: Classifier,
        optimizer: OptimizerConfig,
        total_steps: int,
        *,
        augmentation: SeededAugmentation | None = None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.optimizer_config = optimizer
        self.total_steps = total_steps
        self.augmentation = augmentation
        self._learned_rates = learned_rates(classifier)

    def training_step(self, batch: tuple[Inputs, Tensor], batch_idx: int) -> dict[str, Any]:
        """Return the loss and its terms; a loss that is not finite stops the run."""
        inputs, target = batch
        if self.augmentation is not None and isinstance(inputs, Tensor):
            inputs = self.augmentation(inputs, step=self.global_step, rank=self.global_rank)
        out = self.output(_like_weights(inputs, self.classifier), target)
        check_finite_loss(out, self.global_step)
        loss, terms = out.loss, out.terms
        if self._learned_rates:
            penalty = total_penalty(self.classifier)
            loss, terms = loss + penalty, terms | {"penalty": penalty}
        return {"loss": loss, "terms": {k: v.detach() for k, v in terms.items()}}

    def output(self, inputs: Inputs, target: Tensor) -> HeadOutput:
        """Return a batch's loss and its terms: the head's own."""
        out = call(self.classifier, inputs, target=target)
        if not isinstance(out, HeadOutput):
            raise TypeError("the head returned no loss for a batch with a target")
        return out

    def validation_step(self, batch: tuple[Inputs, Tensor], batch_idx: int) -> None:
        """Add the batch to the held-out error and NLL."""
        inputs, target = batch
        log_prob = call(self.classifier, _like_weights(inputs, self.classifier))
        wrong = log_prob.argmax(dim=-1) != target
        nll = -log_prob.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        self.log_dict(
            {"validation/error": wrong.float().mean(), "validation/nll": nll.mean()},
            on_epoch=True,
            batch_size=len(target),
            sync_dist=True,
        )

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its schedule from the configuration."""
        config = self.optimizer_config
        groups = parameter_groups(self.classifier, config.weight_decay)
        return optimizer_and_schedule(config, groups, self.device, self.total_steps)


def check_finite_loss(out: HeadOutput, step: int) -> None:
    """Raise ``FloatingPointError`` with the loss's terms unless the loss is finite."""
    if bool(torch.isfinite(out.loss)):
        return
    listed = ", ".join(f"{name}={float(term.detach()):g}" for name, term in out.terms.items())
    raise FloatingPointError(
        f"the loss is {float(out.loss.detach())} at step {step} ({listed}); "
        "try a smaller learning rate, --set training.clip_norm=1, or precision 32-true"
    )


def parameter_groups(classifier: Classifier, weight_decay: float) -> list[dict[str, Any]]:
    """Return a classifier's groups of parameters, learned rates of regularizers undecayed."""
    return without_decay(classifier.param_groups(weight_decay), learned_rates(classifier))


def build_optimizer(
    config: OptimizerConfig, groups: list[dict[str, Any]], device: torch.device
) -> Optimizer:
    """Build a configuration's optimizer for groups of parameters on a device."""
    fused = device.type in ("cpu", "cuda")
    if config.name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            fused=fused,
        )
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, fused=fused)


def optimizer_and_schedule(
    config: OptimizerConfig, groups: list[dict[str, Any]], device: torch.device, steps: int
) -> Any:
    """Return an optimizer and its schedule over so many steps, if any, as Lightning wants them."""
    optimizer = build_optimizer(config, groups, device)
    schedule = build_schedule(config, optimizer, steps)
    if schedule is None:
        return optimizer
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _like_weights(inputs: Inputs, classifier: Classifier) -> Inputs:
    inputs = to_weight(inputs, classifier.head.classifier.weight)
    if isinstance(inputs, Tensor) and inputs.dim() == 4:
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs
