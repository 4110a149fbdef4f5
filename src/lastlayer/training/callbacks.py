"""What happens beside the steps: records, checkpoints, early stop."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lastlayer.training.records import Progress, Records
from lastlayer.training.run_directory import RunDirectory


class RecordMetrics(Callback):
    """Append training terms (means since the last record) and held-out measures to the run.

    Args:
        run: where to.
        every: steps between two records.
        last: the last step, which has a record in any case.
        progress: called with the step and the newest record.
        offset: what is added to the steps in what is written.
    """

    def __init__(
        self,
        run: RunDirectory,
        every: int,
        last: int,
        progress: Progress | None = None,
        *,
        offset: int = 0,
    ) -> None:
        self.records = Records(run, every, last, progress, offset=offset)

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return self.records.elapsed

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on with the same records."""
        return self.records.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the means and the clock where the checkpoint left them."""
        self.records.load_state_dict(state_dict)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add the step's terms; write a record when one is due."""
        values = {"loss": outputs["loss"], **outputs["terms"]}
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        self.records.add(trainer.global_step, values, lr=lr, write=trainer.is_global_zero)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the held-out measures."""
        if trainer.sanity_checking:
            return
        measures = {
            name.removeprefix("validation/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("validation/")
        }
        if trainer.is_global_zero:
            self.records.write("validation", trainer.global_step, measures)


class TellProgress(Callback):
    """Tell something, such as a head that re-weights late, before every step how far the run is.

    Args:
        tell: called with the share of the steps that is done, in [0, 1].
        steps: length of the run.
    """

    def __init__(self, tell: Callable[[float], None], steps: int) -> None:
        self.tell, self.steps = tell, steps

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Tell the share of the steps that is done."""
        self.tell(min(1.0, trainer.global_step / self.steps))


class StopAfter(Callback):
    """End training after a number of steps.

    The engine's own ``max_steps`` trains one step too many after a resume at the end of an epoch.

    Args:
        steps: number of steps.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if the checkpoint was the last step's."""
        trainer.should_stop |= trainer.global_step >= self.steps

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop after the last step."""
        trainer.should_stop |= trainer.global_step >= self.steps


class StopWithoutProgress(EarlyStopping):
    """Stop after ``patience`` looks without a better held-out error.

    A run that was killed after it had stopped stops again as soon as it is resumed.

    Args:
        patience: number of looks.
    """

    def __init__(self, patience: int) -> None:
        super().__init__("validation/error", patience=patience)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if the checkpoint says so."""
        trainer.should_stop |= self.wait_count >= self.patience


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints written aside and moved into place: a kill leaves the one before."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` to ``path``."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        super().save_checkpoint(checkpoint, temporary, storage_options)
        temporary.replace(path)


def save_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint of our own so that a kill leaves the one before."""
    WholeCheckpoints().save_checkpoint(checkpoint, path)


def last_checkpoint(run: RunDirectory, every_epochs: int, name: str = "last") -> ModelCheckpoint:
    """Return the callback that keeps the newest state for resuming."""
    return ModelCheckpoint(
        dirpath=run.checkpoints,
        filename=name,
        every_n_epochs=every_epochs,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def best_checkpoint(run: RunDirectory) -> ModelCheckpoint:
    """Return the callback that keeps the weights of the least held-out error."""
    return ModelCheckpoint(
        dirpath=run.checkpoints,
        filename="best",
        monitor="validation/error",
        mode="min",
        save_weights_only=True,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours, weights only.

    Raises:
        ValueError: if the file is corrupt; the message names it.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged archive
        # Their text advises unsafe loading, so it is left to the traceback.
        raise ValueError(f"{path} is corrupt; remove it to start over") from error
    return checkpoint
