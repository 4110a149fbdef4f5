"""The options that make a run, shared by the commands that train."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

#: Variants by one word in every command; the other two are what they are called where it fits.
Variants = Annotated[str | None, Parameter(name=("--variants", "--heads", "--methods"))]

#: Fewer training steps than these may be meant as tasks, as ``learn --steps`` had it.
FEW_STEPS = 20


def _entry(name: str) -> Any:
    """Return a field that is an entry of the configuration, by its dotted name."""
    return field(default=None, metadata={"entry": name})


@Parameter(name="*")
@dataclass(frozen=True)
class DataSettings:
    """Which data, and which part of it."""

    data: str | None = _entry("data.name")
    "Data source; see `lastlayer list data`. Default: digits."

    data_dir: Annotated[Path | None, Parameter(env_var="LASTLAYER_DATA")] = _entry(  # noqa: RUF009
        "data.data_dir"
    )
    "Folder of the data's files."

    train_size: int | None = _entry("data.train_size")
    "Training examples, drawn class-balanced; default: all, or the recipe's."

    validation_size: str | None = _entry("data.validation_size")
    "Held-out examples: a number, or a fraction of the training examples."


@Parameter(name="*")
@dataclass(frozen=True)
class Settings(DataSettings):
    """What a run is made of; what is left out comes from the recipe."""

    long_tail: float | None = _entry("data.long_tail.imbalance")
    "Imbalance of a long-tailed part of all training examples (or --train-size), such as 100."

    model: str | None = _entry("model.name")
    "Backbone; see `lastlayer list models`. Default: by the inputs' shape."

    recipe: str | None = None
    "Settings to start from: a name from `lastlayer list recipes`, or a .toml file."

    steps: int | None = _entry("training.steps")
    "Training steps; over tasks, of every task."

    batch_size: int | None = _entry("training.batch_size")
    "Examples per step."

    lr: float | None = _entry("optimizer.lr")
    "Learning rate."

    weight_decay: float | None = _entry("optimizer.weight_decay")
    "Weight decay; a head's retain branches are never decayed."

    device: str | None = _entry("training.device")
    "auto, cpu, gpu, mps, ..."

    precision: str | None = _entry("training.precision")
    "32-true, bf16-mixed, 16-mixed or 64-true."

    set: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = ()
    "Any other entry of the configuration, such as training.select=best."

    def changes(self) -> dict[str, Any]:
        """Return the configuration's entries that were given, nested."""
        from lastlayer.training.config import merge
        from lastlayer.training.variants import nest, parse_option

        changes: dict[str, Any] = {}
        for setting in fields(self):
            entry, value = setting.metadata.get("entry"), getattr(self, setting.name)
            if entry is None or value is None:
                continue
            if setting.name == "validation_size":  # as text, for 1 is one example and 0.5 a half
                _, value = parse_option(f"{entry}={value}")
            value = str(value) if isinstance(value, Path) else value
            changes = merge(changes, nest(entry, value))
        for entry, value in map(parse_option, self.set):
            changes = merge(changes, nest(entry, value))
        if self.long_tail is not None:  # a recipe's train_size would leave too short a tail
            changes["data"] = {"train_size": None} | changes["data"]
        return changes


@Parameter(name="*")
@dataclass(frozen=True)
class TaskSettings(Settings):
    """What a run over tasks is made of; what is left out comes from the recipe."""

    base: int | None = _entry("tasks.base")
    "Classes of the first task; default: as many as every later one has."

    later_tasks: int | None = _entry("tasks.later")
    "Tasks after the first; the other classes are divided among them."

    order: str | None = _entry("tasks.order")
    "Order of the classes: random (by the seed) or label."

    first_steps: int | None = _entry("tasks.first_steps")
    "Training steps of the first task; default: as every task's."

    memory: int | None = _entry("memory.per_class")
    "Exemplars kept of every class; 0 for none."

    memory_total: int | None = _entry("memory.total")
    "Exemplars kept of all classes together, instead."

    training_steps: Annotated[int | None, Parameter(show=False)] = None
    "The name of --steps in version 0.1."

    def changes(self) -> dict[str, Any]:
        """Return the configuration's entries that were given, nested.

        Raises:
            ValueError: if an option is given by the name that it had in version 0.1.
        """
        if self.training_steps is not None:
            raise ValueError(
                "--training-steps is now --steps, as in every command, and the number of tasks "
                "after the first, which was --steps, is --later-tasks"
            )
        return super().changes()

    def note(self) -> str | None:
        """Return what to tell a user who may have meant tasks by ``--steps``."""
        clear = self.later_tasks is not None or self.training_steps is not None
        if clear or self.steps is None or self.steps >= FEW_STEPS:
            return None
        return (
            f"note: --steps {self.steps} are training steps of every task; the number of tasks "
            "after the first is --later-tasks"
        )
