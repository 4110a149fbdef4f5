"""The options that make a run, shared by the commands that train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter


@Parameter(name="*")
@dataclass(frozen=True)
class Settings:
    """What a run is made of; what is left out comes from the recipe."""

    data: str | None = None
    "Data source; see `lastlayer list data`. Default: digits."

    data_dir: Annotated[Path | None, Parameter(env_var="LASTLAYER_DATA")] = None
    "Folder of the data's files."

    train_size: int | None = None
    "Training examples, drawn class-balanced; default: all, or the recipe's."

    long_tail: float | None = None
    "Imbalance of a long-tailed part of all training examples (or --train-size), such as 100."

    validation_size: str | None = None
    "Held-out examples: a number, or a fraction of the training examples."

    model: str | None = None
    "Backbone; see `lastlayer list models`. Default: by the inputs' shape."

    recipe: str | None = None
    "Settings to start from: a name from `lastlayer list recipes`, or a .toml file."

    steps: int | None = None
    "Training steps."

    batch_size: int | None = None
    "Examples per step."

    lr: float | None = None
    "Learning rate."

    weight_decay: float | None = None
    "Weight decay; a head's retain branches are never decayed."

    device: str | None = None
    "auto, cpu, gpu, mps, ..."

    precision: str | None = None
    "32-true, bf16-mixed, 16-mixed or 64-true."

    set: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = ()
    "Any other entry of the configuration, such as training.select=best."

    def changes(self) -> dict[str, Any]:
        """Return the configuration's entries that were given, nested."""
        from lastlayer.experiments import nest, parse_option
        from lastlayer.training.config import merge

        given = {
            "data.name": self.data,
            "data.data_dir": None if self.data_dir is None else str(self.data_dir),
            "data.train_size": self.train_size,
            "model.name": self.model,
            "training.steps": self.steps,
            "training.batch_size": self.batch_size,
            "optimizer.lr": self.lr,
            "optimizer.weight_decay": self.weight_decay,
            "training.device": self.device,
            "training.precision": self.precision,
        }
        if self.long_tail is not None:
            given["data.long_tail.imbalance"] = self.long_tail
        # As text, for 1 is one example and 0.5 a half.
        held_out = [] if self.validation_size is None else [self.validation_size]
        typed = [*(f"data.validation_size={size}" for size in held_out), *self.set]
        changes: dict[str, Any] = {}
        for entry, value in [*given.items(), *map(parse_option, typed)]:
            if value is not None:
                changes = merge(changes, nest(entry, value))
        if self.long_tail is not None:  # a recipe's train_size would leave too short a tail
            changes["data"] = {"train_size": None} | changes["data"]
        return changes
