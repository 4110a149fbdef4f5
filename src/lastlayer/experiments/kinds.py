"""Kinds of runs: what is trained, into which directory, and what can be checked before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from lastlayer._inputs import blank
from lastlayer.incremental import IncrementalConfig, IncrementalRun, learn
from lastlayer.incremental.build import build_untrained, check_head, new_state
from lastlayer.incremental.run import check_remembered, plan_tasks
from lastlayer.longtail import class_counts
from lastlayer.training import RunConfig, RunDirectory, train
from lastlayer.training.build import build_classifier, load_splits

Config = TypeVar("Config", bound=RunConfig)
KindName = Literal["heads", "incremental"]


@dataclass(frozen=True)
class RunKind:
    """What sets one kind of run apart from another.

    Attributes:
        command: of ``lastlayer`` that sets such runs side by side.
        config: the class of their configuration.
        directory: the class of their run directory.
        train: called with the configuration, the path and ``resume=True``.
        check: reads the data and builds what is to be trained, so that a mistake is found before.
        describe: takes a configuration; what all runs of a comparison have in common, in words.
    """

    command: str
    config: type[RunConfig]
    directory: type[RunDirectory]
    train: Callable[..., RunDirectory]
    check: Callable[[Sequence[Any]], None]
    describe: Callable[[Any], str] = lambda config: ""

    def check_variant(self, variant: str, changes: dict[str, Any]) -> None:
        """Raise ``ValueError`` if a variant changes tables that only another kind of runs has."""
        if others := sorted(changes.keys() - self.config.model_fields.keys()):
            raise ValueError(
                f"{variant!r} is for classes that come in tasks, lastlayer learn: it sets "
                f"{', '.join(others)}"
            )


def _check_trainable(configs: Sequence[RunConfig]) -> None:
    """Read the data and build every classifier once."""
    splits = load_splits(configs[0])
    stages = [stage for config in configs for stage in (config, config.first_stage())]
    for stage in _distinct(stages, "model", "head", "regularizer"):
        build_classifier(
            stage, splits.input_shape, splits.num_classes, class_counts=class_counts(splits)
        )


def _check_learnable(configs: Sequence[IncrementalConfig]) -> None:
    """Divide the classes and build every classifier once."""
    splits = load_splits(configs[0])
    for config in configs:
        check_remembered(config, splits.num_classes)
    parts = ("model", "head", "regularizer", "correction", "old_classes", "tasks")
    for config in _distinct(configs, *parts):
        plan = plan_tasks(config, splits)
        counts = class_counts(splits)[: plan.sizes[0]]
        state = new_state(config)
        classifier = build_untrained(state, blank(splits.train.inputs), plan.sizes[0], counts)
        check_head(config, classifier.head)


def _distinct(configs: Sequence[Config], *parts: str) -> list[Config]:
    """Return one configuration for every choice of some parts, among those of the first's data."""
    found: dict[str, Config] = {}
    for config in configs:
        if config.data == configs[0].data:
            found.setdefault(config.model_dump_json(include=set(parts)), config)
    return list(found.values())


KINDS: dict[KindName, RunKind] = {
    "heads": RunKind("compare", RunConfig, RunDirectory, train, _check_trainable),
    "incremental": RunKind(
        "learn",
        IncrementalConfig,
        IncrementalRun,
        learn,
        _check_learnable,
        # What is kept of old classes, but for methods that say so themselves.
        lambda config: f". Memory: {config.memory.describe()}.",
    ),
}
