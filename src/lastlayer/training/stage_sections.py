"""The tables of a second stage of training."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lastlayer.training.sections import HeadConfig, OptimizerConfig, Positive, Sampler, Section


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
