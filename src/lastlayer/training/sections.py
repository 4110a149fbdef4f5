"""The tables of a run's configuration, validated entry by entry."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


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
#: How often classes are drawn, as ``lastlayer.longtail.sampling_prior`` has it.
Sampler = Literal["instance", "class-balanced", "square-root", "progressive"]


class Section(BaseModel):
    """A table of a configuration: unknown entries are mistakes, and nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LongTailConfig(Section):
    """A long-tailed part of the training examples, as ``lastlayer.longtail`` has it.

    The held-out examples are drawn first and stay balanced; the test part stays as it is.
    """

    #: Examples of the most frequent class per one of the rarest.
    imbalance: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    profile: Literal["exponential", "step", "pareto"] = "exponential"
    #: Which classes are frequent: the first labels, or a random order by the data's seed.
    order: Literal["label", "random"] = "label"
    #: Examples of the most frequent class; None for as many as every class has.
    n_max: Positive | None = None
    #: Whether a class that would keep no example is an error, or keeps one.
    small: Literal["error", "clamp"] = "error"


class DataConfig(Section):
    """Which data, and which part of it."""

    name: str = "digits"
    data_dir: str | None = None
    train_size: Positive | None = None
    #: Held-out examples: a number, a fraction of the training examples, or None for a default.
    validation_size: CountOrFraction | None = None
    #: Seed of the subset and of the held-out part; the run's seed if None.
    seed: int | None = None
    options: Options = {}
    long_tail: LongTailConfig | None = None


class ModelConfig(Section):
    """Which backbone."""

    name: str = "auto"
    options: Options = {}


class HeadConfig(Section):
    """Which head."""

    name: str = "softmax"
    options: Options = {}


class PlaceConfig(Section):
    """Where regularizers stand, as ``lastlayer.regularizers.insert`` has it.

    Patterns are of names within the backbone.
    """

    where: str | tuple[str, ...] = ""
    kind: Literal["module", "block", "branch", "convolution"] = "module"
    position: Literal["after", "before"] = "after"
    #: What the rate is multiplied by here.
    factor: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.kind == "module" and "where" not in self.model_fields_set:
            raise ValueError("a place needs where=PATTERN or kind=block, branch or convolution")
        return self


class RegularizerConfig(Section):
    """Which regularizer, where, and how its rate moves over the run."""

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


class OptimizerConfig(Section):
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


class TrainingConfig(Section):
    """How long, how large the steps, on what."""

    steps: Positive = 1500
    batch_size: Positive = 50
    #: How often classes are drawn: as the data have them, all alike, by the square root of their
    #: counts, or from the first to the second over the run.
    sampler: Sampler = "instance"
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


class ClassifierOptimizerConfig(OptimizerConfig):
    """As for a run, with the defaults that Balanced Meta-Softmax was published with on CIFAR."""

    name: Literal["adam", "adamw", "sgd"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    nesterov: bool = True
    schedule: Literal["constant", "cosine", "one-cycle", "step"] = "cosine"


class MetaSamplerConfig(Section):
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


class ClassifierStageConfig(Section):
    """A second stage: the backbone stays as it is and the head is trained anew on its features.

    The run's head is the second stage's. Held-out looks and early stops are for the first stage;
    the second one runs to its last step.
    """

    #: How batches are drawn; None for no second stage. The first four are as for a run's training;
    #: "meta" draws classes at learned rates, "meta-reweighter" takes every example once an epoch
    #: and weighs it by its class's rate.
    sampler: Literal[Sampler, "meta", "meta-reweighter"] | None = None
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
