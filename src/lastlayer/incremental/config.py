"""The complete description of a run over a sequence of tasks."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from lastlayer.incremental.sections import (
    CorrectionConfig,
    DistillationConfig,
    MemoryConfig,
    OldClassesConfig,
    TasksConfig,
)
from lastlayer.training import RunConfig
from lastlayer.training.config import rename_entry
from lastlayer.training.sections import HeadConfig


class IncrementalConfig(RunConfig):
    """Everything that makes a run over tasks; the tables of a plain run mean what they mean there.

    Raises:
        ValueError: if two entries do not fit together.

    Example:
        >>> config = IncrementalConfig().updated({"tasks": {"first_steps": 300, "later": 4}})
        >>> config.task_steps(0), config.task_steps(1)
        (300, 1500)
    """

    head: HeadConfig = HeadConfig(name="balanced-softmax")
    tasks: TasksConfig = TasksConfig()
    memory: MemoryConfig = MemoryConfig()
    old_classes: OldClassesConfig = OldClassesConfig()
    distillation: DistillationConfig = DistillationConfig()
    correction: CorrectionConfig = CorrectionConfig()
    #: What predicts: the classifier, or the nearest mean of the exemplars' features (iCaRL).
    predictor: Literal["classifier", "nearest-mean"] = "classifier"

    @classmethod
    def current(cls, entries: dict[str, Any]) -> dict[str, Any]:
        """Return nested entries, as an older version may have written them, by today's names.

        Example:
            >>> IncrementalConfig.current({"tasks": {"base": 50, "steps": 5}})
            {'tasks': {'base': 50, 'later': 5}}
        """
        if not isinstance(entries.get("tasks"), dict):
            return entries
        return entries | {"tasks": rename_entry(entries["tasks"], "steps", "later")}

    @model_validator(mode="after")
    def _fits_tasks(self) -> Self:
        training = self.training
        if training.validate_every is not None:
            raise ValueError("training.validate_every is not defined for a sequence of tasks")
        if self.classifier_stage.sampler is not None:
            raise ValueError("classifier_stage is not defined for a sequence of tasks")
        if training.devices != 1:
            raise ValueError("a sequence of tasks is trained on one device")
        if self.head.options.keys() & {"class_counts", "weight"}:
            raise ValueError("head.options: class_counts and weight change from task to task")
        if self.tasks.restart and self.tasks.carry_optimizer:
            raise ValueError("tasks.restart begins anew: there is no optimizer state to carry")
        first = self.tasks.first_steps
        if first is not None and self.optimizer.warmup >= first:
            raise ValueError(
                "optimizer.warmup must be below tasks.first_steps; got "
                f"{self.optimizer.warmup} of {first} steps"
            )
        return self

    @model_validator(mode="after")
    def _remembers_enough(self) -> Self:
        each = self.memory.at_most_per_class
        if self.predictor == "nearest-mean" and each == 0:
            raise ValueError('predictor="nearest-mean" needs memory: an exemplar of every class')
        if self.predictor == "nearest-mean" and self.memory.is_one_reservoir:
            raise ValueError(
                'predictor="nearest-mean" needs an exemplar of every class, which one reservoir '
                "over all does not promise; choose memory.per_class or another memory.selection"
            )
        if self.correction.kind == "bias-correction" and each is not None and each < 2:
            raise ValueError(
                "bias-correction needs memory: two exemplars of every class, one to train on and "
                f"one held out; got memory.per_class={each}"
            )
        if self.old_classes.learn_alpha and each == 0:
            raise ValueError("old_classes.learn_alpha needs memory: it is learned on exemplars")
        return self

    def task_steps(self, task: int) -> int:
        """Return the training steps of a task, counted from 0."""
        first = self.tasks.first_steps or self.training.steps
        if self.tasks.restart:
            return first + task * self.training.steps
        return first if task == 0 else self.training.steps

    @property
    def total_steps(self) -> int:
        """Steps of all tasks together."""
        return sum(map(self.task_steps, range(1 + self.tasks.later)))
