"""The tables of a configuration that are about classes that come one task after another."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lastlayer.incremental.old_class_weight import MAX_ALPHA, MIN_ALPHA
from lastlayer.training.sections import Fraction, Positive, Section

Whole = Annotated[int, Field(ge=0)]


class TasksConfig(Section):
    """Which classes come when, and how the tasks are trained.

    ``training.steps`` is the length of every task; the learning rate's schedule begins anew.
    """

    #: Classes of the first task; None for as many as every later one has.
    base: Positive | None = None
    #: Tasks after the first; their number was called ``steps`` in version 0.1.
    later: Whole = 4
    #: The order of the classes: by a seed, by their labels, or as given.
    order: Literal["random", "label"] | tuple[Whole, ...] = "random"
    #: Seed of the order; the run's seed if None.
    order_seed: Whole | None = None
    #: Training steps of the first task; those of every task if None.
    first_steps: Positive | None = None
    #: Whether every task starts from untrained weights, for as many steps as all tasks so far.
    restart: bool = False
    #: Whether the optimizer's state goes on into the next task, with zeros for the new rows.
    carry_optimizer: bool = False


class MemoryConfig(Section):
    """What is kept of the examples that were learned, as ``RehearsalMemory`` has it."""

    #: Exemplars of every class; 0 for none.
    per_class: Whole = 20
    #: Exemplars of all classes together, instead.
    total: Whole | None = None
    #: Every example, instead.
    everything: bool = False
    selection: Literal["herding", "random", "reservoir"] = "herding"

    def describe(self) -> str:
        """Return what is kept, in words."""
        if self.everything:
            return "every example"
        number = self.per_class if self.total is None else self.total
        whose = "of every class" if self.total is None else "in all"
        return f"{number} exemplars {whose}, by {self.selection}" if number else "nothing"

    @property
    def at_most_per_class(self) -> int | None:
        """Exemplars that a class has, if it has the examples; None where it depends."""
        if self.everything or self.total:
            return None
        return self.per_class if self.total is None else 0

    @property
    def is_one_reservoir(self) -> bool:
        """Whether exemplars are drawn from all examples at once, whatever their classes."""
        return not self.everything and self.total is not None and self.selection == "reservoir"

    @property
    def budget(self) -> dict[str, int | None]:
        """The memory's arguments."""
        if self.everything or self.total is not None:
            return {"per_class": None, "total": self.total}
        return {"per_class": self.per_class, "total": None}


class OldClassesConfig(Section):
    """What a head that takes class counts is told of the old classes' counts."""

    #: Factor of the old classes' counts: below 1 favours them in predictions, above 1 the new ones.
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    #: Count of an old class without an example (no memory): the smaller, the less it is suppressed.
    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-6
    #: Whether alpha is learned, for the cross entropy on class-balanced batches.
    learn_alpha: bool = False
    #: Learning rate of that, and examples of a class-balanced batch.
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    batch_size: Positive = 128

    @model_validator(mode="after")
    def _can_be_learned(self) -> Self:
        if self.learn_alpha and not MIN_ALPHA < self.alpha < MAX_ALPHA:
            raise ValueError(
                f"a learned alpha must begin in ({MIN_ALPHA:g}, {MAX_ALPHA:g}); got {self.alpha}"
            )
        return self


class DistillationConfig(Section):
    """What the classifier of the task before still teaches.

    ``"logits"`` compares the old classes' raw logits, ``"features"`` the features' directions.
    """

    kind: Literal["none", "logits", "features"] = "none"
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    #: What else the term is multiplied by: the share of old classes, the root of old per new
    #: classes, or nothing.
    scale: Literal["old-share", "root-ratio", "constant"] = "old-share"

    def factor(self, num_old: int, num_new: int) -> float:
        """Return the weight of the term, with so many old and new classes.

        Example:
            >>> DistillationConfig(weight=2.0).factor(num_old=3, num_new=1)
            1.5
        """
        if self.scale == "old-share":
            return self.weight * num_old / max(1, num_old + num_new)
        if self.scale == "root-ratio":
            return float(self.weight * (num_old / max(1, num_new)) ** 0.5)
        return self.weight


class CorrectionConfig(Section):
    """What is done after every task against the bias to the new classes.

    ``"weight-alignment"`` gives the new classes' weights the old ones' mean norm;
    ``"bias-correction"`` fits a scale and a bias of the new classes' logits on held-out examples.
    """

    kind: Literal["none", "weight-alignment", "bias-correction"] = "none"
    #: Share of the examples of a class that is held out for the fit, by the class that has fewest;
    #: where no old class can spare one, the new logits stay as they are, with a warning.
    held_out: Fraction = 0.1
