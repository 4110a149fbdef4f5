"""The complete description of one run, validated; written as TOML it replays the run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, Field, ValidationError, model_validator

from lastlayer._checks import did_you_mean
from lastlayer.training.sections import (
    ClassifierStageConfig,
    DataConfig,
    HeadConfig,
    ModelConfig,
    OptimizerConfig,
    RegularizerConfig,
    Section,
    TrainingConfig,
)


class RunConfig(Section):
    """Everything that makes a run."""

    schema_version: Literal[1] = 1
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    head: HeadConfig = HeadConfig()
    regularizer: RegularizerConfig = RegularizerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    classifier_stage: ClassifierStageConfig = ClassifierStageConfig()
    #: What the finished run is measured on; a search must say "validation".
    evaluate_on: Literal["test", "validation"] = "test"

    @model_validator(mode="after")
    def _warms_up_within_the_run(self) -> Self:
        if self.optimizer.warmup >= self.training.steps:
            raise ValueError(
                f"optimizer.warmup must be below training.steps; got {self.optimizer.warmup} "
                f"of {self.training.steps} steps"
            )
        return self

    @property
    def total_steps(self) -> int:
        """Steps of all stages together."""
        stage = self.classifier_stage
        return self.training.steps + (0 if stage.sampler is None else stage.steps)

    def first_stage(self) -> Self:
        """Return the configuration of the first stage as a run of its own."""
        stage = self.classifier_stage
        if stage.sampler is None:
            return self
        head = self.head if stage.representation_head is None else stage.representation_head
        only = stage.model_copy(update={"sampler": None})
        return self.model_copy(update={"head": head, "classifier_stage": only})

    def to_toml(self) -> str:
        """Return the configuration as TOML text."""
        return tomli_w.dumps(_without_empty(self.model_dump()))

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Read a configuration file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not TOML or not a configuration; the message names the file.
        """
        try:
            entries = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls.model_validate(cls.current(entries))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a TOML file: {error}") from error
        except ValidationError as error:
            raise ValueError(f"{path} is not a run configuration: {explain(error, cls)}") from error

    @classmethod
    def current(cls, entries: dict[str, Any]) -> dict[str, Any]:
        """Return nested entries, as an older version may have written them, by today's names."""
        return entries

    def updated(self, changes: dict[str, Any]) -> Self:
        """Return a validated copy with nested ``changes`` merged in.

        Raises:
            ValueError: if a change does not fit; the message names the entry.
        """
        try:
            return type(self).model_validate(merge(self.model_dump(), self.current(changes)))
        except ValidationError as error:
            raise ValueError(f"invalid configuration: {explain(error, type(self))}") from error


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, tables merged, everything else replaced.

    A table's ``options`` are those of the part that its ``name`` says: another name drops them.

    Example:
        >>> merge({"model": {"name": "mlp", "options": {"hidden": [8]}}, "seed": 0},
        ...       {"model": {"name": "lenet"}})
        {'model': {'name': 'lenet'}, 'seed': 0}
    """
    merged = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            table = dict(merged[key])
            if table.get("name") is not None and value.get("name", table["name"]) != table["name"]:
                table.pop("options", None)
            merged[key] = merge(table, value)
        else:
            merged[key] = value
    return merged


def rename_entry(table: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return a table with an entry renamed; if it has both it stays: one of them is a mistake.

    Example:
        >>> rename_entry({"base": 50, "steps": 5}, "steps", "later")
        {'base': 50, 'later': 5}
    """
    if new in table:
        return table
    return {new if key == old else key: value for key, value in table.items()}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return a validation error on one line: entry, what is wrong, what came, what was near."""
    told = []
    for item in error.errors():
        kind, came = item["type"], item["input"]
        text = f"{'.'.join(map(str, item['loc'])) or 'configuration'}: {item['msg']}"
        # Where the entries of a table do not fit together, the message has those that matter.
        if kind != "missing" and not (kind == "value_error" and isinstance(came, dict)):
            text += f" (got {came!r})"
        told.append(text + (_nearest(item["loc"], model) if kind == "extra_forbidden" else ""))
    return "; ".join(told)


def _nearest(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Return the entry that is nearest to an unknown one, as a question."""
    *tables, entry = location
    for table in tables:
        field = model.model_fields.get(str(table))
        if field is None or not isinstance(field.annotation, type):
            return ""
        model = field.annotation
    return did_you_mean(str(entry), model.model_fields)


def _without_empty(config: dict[str, Any]) -> dict[str, Any]:
    # TOML has no null: an absent entry means the default, and what is left out here is None by
    # default or options without an entry.
    return {
        name: _without_empty(section)
        if isinstance(section, dict) and name != "options"
        else section
        for name, section in config.items()
        if section is not None and section != {}
    }
