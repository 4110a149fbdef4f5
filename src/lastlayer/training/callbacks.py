"""What happens beside the steps: seeds, records, checkpoints, early stop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lastlayer._random import derive_seed, seed_all
from lastlayer.training.run_directory import RunDirectory

#: Called with the step and the newest record.
Progress = Callable[[int, dict[str, float]], None]


class SeedEveryStep(Callback):
    """Seed torch before every step from the run's seed, the step and the process's rank."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the step's dropout and masks."""
        seed_all(derive_seed(self.seed, "step", trainer.global_step, trainer.global_rank))


class RecordMetrics(Callback):
    """Append training terms (means since the last record) and held-out measures to the run.

    Without a run only ``progress`` is told. There is a record of every so many steps and of the
    last; ``offset``, the steps before this fit, is added to what is written and told, and the clock
    begins at ``seconds``.
    """

    def __init__(
        self,
        run: RunDirectory | None,
        every: int,
        last: int,
        progress: Progress | None = None,
        *,
        offset: int = 0,
        seconds: float = 0.0,
    ) -> None:
        self.run, self.every, self.last, self.progress = run, every, last, progress
        self.offset = offset
        self._sums: dict[str, float] = {}
        self._count = 0
        self._start = time.perf_counter()
        self._before = seconds

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return self._before + time.perf_counter() - self._start

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on with the same records."""
        return {"sums": self._sums, "count": self._count, "elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the means and the clock where the checkpoint left them."""
        self._sums, self._count = dict(state_dict["sums"]), state_dict["count"]
        self._before = state_dict["elapsed"]

    def due(self, step: int) -> bool:
        """Return whether a step ends with a record."""
        return step % self.every == 0 or step == self.last

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add the step's terms; write a record when one is due."""
        for name, value in {"loss": outputs["loss"], **outputs["terms"]}.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._count += 1
        if not self.due(trainer.global_step):
            return
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        # The schedule has moved the optimizer's rate on already; a module may say the step's own.
        lr = outputs.get("lr", trainer.optimizers[0].param_groups[0]["lr"])
        if trainer.is_global_zero:
            self._write("train", trainer.global_step, means | {"lr": lr})

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the held-out measures."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        measures = {
            name.removeprefix("validation/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("validation/")
        }
        self._write("validation", trainer.global_step, measures)

    def _write(self, split: str, step: int, values: dict[str, float]) -> None:
        """Write one record and tell the progress."""
        at = self.offset + step
        if self.run is not None:
            # JSON has no infinity; a sparse head's held-out NLL may be infinite.
            finite = {n: value if math.isfinite(value) else None for n, value in values.items()}
            elapsed = round(self.elapsed, 3)
            self.run.append_metrics({"split": split, "step": at, **finite, "elapsed": elapsed})
        if self.progress is not None:
            self.progress(at, values)


class ProgressCallback(Callback):
    """Tell something, such as a head that re-weights late, before every step how far the run is."""

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


def last_checkpoint(path: Path, every_epochs: int) -> ModelCheckpoint:
    """Return the callback that keeps the newest state, for resuming, in a file ``NAME.ckpt``."""
    return ModelCheckpoint(
        dirpath=path.parent,
        filename=path.stem,
        every_n_epochs=every_epochs,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def best_checkpoint(path: Path) -> ModelCheckpoint:
    """Return the callback that keeps the weights of the least held-out error in ``NAME.ckpt``."""
    return ModelCheckpoint(
        dirpath=path.parent,
        filename=path.stem,
        monitor="validation/error",
        mode="min",
        save_weights_only=True,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours, weights only; ``ValueError`` names a corrupt file."""
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged archive
        # Their text advises unsafe loading, so it is left to the traceback.
        raise ValueError(f"{path} is corrupt; remove it to start over") from error
    return checkpoint
