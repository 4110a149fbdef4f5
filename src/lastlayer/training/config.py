"""The complete description of one run, validated; written as TOML it replays the run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)


def _as_stored(options: dict[str, Any]) -> dict[str, Any]:
    # What TOML cannot hold, the run directory could not replay.
    try:
        return tomllib.loads(tomli_w.dumps(options))
    except TypeError as error:
        raise ValueError(f"options must be TOML values: {error}") from error


def _named(entry: str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(entry, str):
        return entry
    if not isinstance(entry.get("name"), str):
        raise ValueError('a table must have an entry name, such as {name = "crop", padding = 2}')
    return _as_stored(entry)


Options = Annotated[dict[str, Any], AfterValidator(_as_stored)]
#: A name, or a table of a name and options.
NameOrTable = Annotated[str | dict[str, Any], AfterValidator(_named)]
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
#: A number, or a fraction of something.
CountOrFraction = Annotated[int, Field(ge=0, strict=True)] | Fraction


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Which data, and which part of it."""

    name: str = "digits"
    data_dir: str | None = None
    train_size: Positive | None = None
    #: Held-out examples: a number, a fraction of the training examples, or None for a default.
    validation_size: CountOrFraction | None = None
    #: Seed of the subset and of the held-out part; the run's seed if None.
    seed: int | None = None
    options: Options = {}


class ModelConfig(_Section):
    """Which backbone."""

    name: str = "auto"
    options: Options = {}


class HeadConfig(_Section):
    """Which head."""

    name: str = "softmax"
    options: Options = {}


class PlaceConfig(_Section):
    """Where regularisers stand, as ``lastlayer.regularizers.insert`` has it.

    Patterns are of names within the backbone.
    """

    where: str | tuple[str, ...]
    position: Literal["after", "before"] = "after"
    #: What the rate is multiplied by here.
    factor: Annotated[float, Field(gt=0, le=1)] = 1.0


class RegularizerConfig(_Section):
    """Which regulariser, where, and how its rate moves over the run."""

    name: str | None = None
    options: Options = {}
    places: tuple[PlaceConfig, ...] = ()
    schedule: Literal["constant", "linear", "cosine"] = "constant"

    @model_validator(mode="after")
    def _needs_places(self) -> Self:
        if self.name is not None and not self.places:
            raise ValueError(
                "a regularizer needs places: regularizer.places=[{where='PATTERN'}], or "
                "where=PATTERN among its options"
            )
        return self


class OptimizerConfig(_Section):
    """Adam or SGD, and how the learning rate moves.

    ``"adam"`` adds weight decay to the gradient (coupled L2, as the papers have it), ``"adamw"``
    does not. ``milestones`` are fractions of the run at which ``"step"`` multiplies the rate by
    ``gamma``. ``warmup`` steps, or that fraction of the run, come before the schedule's own course:
    the rate rises linearly from step to step and is ``lr`` at the last of them. ``"cosine"`` then
    falls over the steps that are left; milestones count from the start of the run.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    #: Nesterov's form of the momentum.
    nesterov: bool = False
    schedule: Literal["constant", "cosine", "one-cycle", "step"] = "one-cycle"
    milestones: tuple[float, ...] = (1 / 3, 2 / 3)
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup: CountOrFraction = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            raise ValueError('nesterov needs name="sgd" and momentum above 0')
        if self.warmup and self.schedule == "one-cycle":
            raise ValueError(
                'warmup is for the schedules "constant", "step" and "cosine"; '
                '"one-cycle" warms up by itself'
            )
        return self


class ClassifierOptimizerConfig(OptimizerConfig):
    """As for a run, with the defaults that Balanced Meta-Softmax was published with on CIFAR."""

    name: Literal["adam", "adamw", "sgd"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    nesterov: bool = True
    schedule: Literal["constant", "cosine", "one-cycle", "step"] = "cosine"


class MetaSamplerConfig(_Section):
    """How the sampling rates are learned, as ``lastlayer.longtail.MetaSampler`` has it."""

    #: Examples of a meta batch, drawn from the training set with every class equally likely.
    batch_size: Positive = 512
    lr: Annotated[float, Field(gt=0)] = 0.01
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.99,
    )
    temperature: Annotated[float, Field(gt=0)] = 1.0
    #: The rates begin at this power, negated, of the class frequencies; 0 for 1/2 each.
    initial_power: Annotated[float, Field(ge=0)] = 0.0


class ClassifierStageConfig(_Section):
    """A second stage: the backbone stays as it is and the head is trained anew on its features.

    The run's head is the second stage's. Held-out looks and early stops are for the first stage;
    the second one runs to its last step.
    """

    #: How batches are drawn; None for no second stage. "instance" takes every example once an
    #: epoch, "class-balanced" draws every class equally often, "meta" draws classes at learned
    #: rates, "meta-reweighter" takes every example once an epoch and weighs it by its class's rate.
    sampler: Literal["instance", "class-balanced", "meta", "meta-reweighter"] | None = None
    #: What is trained: the whole "head", drawn anew; or "class-scales", one factor per class of the
    #: first stage's linear layer, which ends in that layer's weights (learnable weight scaling).
    train: Literal["head", "class-scales"] = "head"
    #: The head of the first stage; the run's if None.
    representation_head: HeadConfig | None = None
    steps: Positive = 2000
    batch_size: Positive = 512
    optimizer: ClassifierOptimizerConfig = ClassifierOptimizerConfig()
    meta: MetaSamplerConfig = MetaSamplerConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.train != "head" and self.sampler in ("meta", "meta-reweighter"):
            raise ValueError(f'sampler {self.sampler!r} needs train="head"; got {self.train!r}')
        if self.optimizer.warmup >= self.steps:
            raise ValueError(
                f"optimizer.warmup must be below steps; got {self.optimizer.warmup} of "
                f"{self.steps} steps"
            )
        return self


class TrainingConfig(_Section):
    """How long, how large the steps, on what."""

    steps: Positive = 1500
    batch_size: Positive = 50
    #: Random changes of the training images, in this order: ["crop", "flip"], or with options
    #: [{name = "crop", padding = 2}].
    augment: tuple[NameOrTable, ...] = ()
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    device: str = "auto"
    devices: Positive = 1
    strategy: str = "auto"
    #: Steps between two looks at the held-out part; None for never.
    validate_every: Positive | None = None
    #: Looks without a better held-out error after which training stops; None for never.
    patience: Positive | None = None
    #: Which weights are kept: the last step's, or the first of the least held-out error.
    select: Literal["last", "best"] = "last"
    checkpoint_every: Positive = 500
    log_every: Positive = 25
    #: Gradient norm above which gradients are scaled down; None for never.
    clip_norm: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _needs_validation(self) -> Self:
        if self.validate_every is None and (self.patience or self.select == "best"):
            raise ValueError('patience and select="best" need validate_every')
        return self


class RunConfig(_Section):
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
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a TOML file: {error}") from error
        except ValidationError as error:
            raise ValueError(f"{path} is not a run configuration: {explain(error)}") from error

    def updated(self, changes: dict[str, Any]) -> Self:
        """Return a validated copy with nested ``changes`` merged in.

        Raises:
            ValueError: if a change does not fit; the message names the entry.
        """
        try:
            return type(self).model_validate(merge(self.model_dump(), changes))
        except ValidationError as error:
            raise ValueError(f"invalid configuration: {explain(error)}") from error


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, tables merged, everything else replaced."""
    merged = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def explain(error: ValidationError) -> str:
    """Return a validation error on one line: entry, what is wrong, what came."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or 'configuration'}: {item['msg']}"
        + (f" (got {item['input']!r})" if item["type"] != "missing" else "")
        for item in error.errors()
    )


def _without_empty(config: dict[str, Any]) -> dict[str, Any]:
    # TOML has no null: an absent entry means the default, and what is left out here is None by
    # default or options without an entry.
    return {
        name: {key: value for key, value in section.items() if value is not None and value != {}}
        if isinstance(section, dict)
        else section
        for name, section in config.items()
    }
