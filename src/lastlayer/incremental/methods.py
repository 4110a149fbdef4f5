"""Methods of incremental learning by name: a head, and what is added to it."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

from lastlayer.heads import HEADS
from lastlayer.training.config import merge
from lastlayer.training.options import parse_head

Changes = dict[str, Any]


@dataclass(frozen=True)
class Addition:
    """What a word after a plus sign stands for.

    Attributes:
        table: the configuration's table that its options are entries of.
        changes: what the word alone changes in that table.
        description: one line.
    """

    table: str
    changes: Changes
    description: str

    def apply(self, options: Changes) -> Changes:
        """Return the changes in a configuration."""
        return {self.table: merge(self.changes, options)}


ADDITIONS: dict[str, Addition] = {
    "distillation": Addition(
        "distillation", {"kind": "logits"}, "the old classes' logits stay near the task before"
    ),
    "feature-distillation": Addition(
        "distillation",
        {"kind": "features", "scale": "root-ratio"},
        "the features' directions stay near the task before (as in LUCIR)",
    ),
    "alignment": Addition(
        "correction", {"kind": "weight-alignment"}, "weights of new classes scaled to old norms"
    ),
    "bias-correction": Addition(
        "correction", {"kind": "bias-correction"}, "scale and bias of new logits, on held-out data"
    ),
    "old-classes": Addition("old_classes", {}, "alpha=... and epsilon=... of the old counts"),
    "meta": Addition("old_classes", {"learn_alpha": True}, "alpha of the old counts is learned"),
    "class-sampling": Addition(
        "training", {"sampler": "class-balanced"}, "batches with every class equally likely"
    ),
    "memory": Addition("memory", {}, "per_class=..., total=..., selection=..."),
}

#: Names that stand for a head and additions.
METHODS: dict[str, tuple[str, Changes, str]] = {
    "balanced": (
        "balanced-softmax:tau=0.35+class-sampling+distillation:weight=0.5,temperature=4.0",
        {},
        "where to begin: class-balanced batches, a third of a balanced softmax, distillation",
    ),
    "weighted": (
        "class-balanced:beta=1.0",
        {},
        "cross entropy weighted by one over the class counts",
    ),
    "icarl": (
        "softmax+distillation",
        {"predictor": "nearest-mean"},
        "softmax, distillation and herding, predicting by the nearest mean of exemplars; with "
        "cross entropies where the paper has binary ones",
    ),
    "joint": (
        "softmax",
        {"memory": {"everything": True}, "tasks": {"restart": True}},
        "everything seen so far, from the beginning, after every task: the ceiling",
    ),
}


def parse_method(text: str) -> tuple[str, Changes]:
    """Return a method's name without options, and the changes it makes in a configuration.

    Args:
        text: a head, or a name of :data:`METHODS`, and words of :data:`ADDITIONS` after plus signs,
            each with options: ``balanced-softmax+old-classes:alpha=0.5+distillation:weight=2``.

    Raises:
        ValueError: if a word is unknown or comes twice, two words exclude each other, or an option
            has no value.

    Example:
        >>> parse_method("softmax+distillation:weight=2")[1]["distillation"]
        {'kind': 'logits', 'weight': 2}
    """
    # A plus sign before a digit is part of a number such as 1e+3.
    first, *added = re.split(r"\+(?!\d)", text)
    name, options = parse_head(first, kind="method")
    if name in METHODS:
        head, changes, _ = METHODS[name]
        _, base = parse_method(head)
        changes = merge(base, copy.deepcopy(changes))  # the caller may change what it gets
        changes["head"] = merge(changes["head"], {"options": options})
    else:
        if name not in HEADS.names():
            known = ", ".join([*METHODS, *HEADS.names()])
            raise ValueError(f"unknown method {name!r}. Known: {known}")
        changes = {"head": {"name": name, "options": options}}
    names: list[str] = []
    for word in added:
        addition, options = parse_head(word, kind="addition")
        _check_addition(addition, names, text)
        names.append(addition)
        changes = merge(changes, ADDITIONS[addition].apply(options))
    return "+".join([name, *names]), changes


def _check_addition(addition: str, before: list[str], text: str) -> None:
    """Raise ``ValueError`` unless an addition is known and fits those before it."""
    if addition not in ADDITIONS:
        raise ValueError(f"unknown addition {addition!r}. Known: {', '.join(ADDITIONS)}")
    if addition in before:
        raise ValueError(f"{addition} comes twice in {text!r}")
    own = ADDITIONS[addition]
    for other in before:
        if ADDITIONS[other].table == own.table and ADDITIONS[other].changes.keys() & own.changes:
            raise ValueError(f"{other} and {addition} exclude each other; got both in {text!r}")
