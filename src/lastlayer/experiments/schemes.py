"""Training in two stages by name: a head, the head that trains the backbone, and a sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lastlayer.training.config import merge


@dataclass(frozen=True)
class Scheme:
    """What a name stands for.

    The heads are looked up when a run is built, and what is left out (steps, learning rates) is
    the recipe's.

    Attributes:
        head: the run's head, which the second stage trains.
        sampler: how the second stage draws its batches.
        description: one line.
        representation_head: the first stage's head.
        train: what the second stage trains, the ``"head"`` or its ``"class-scales"``.
    """

    head: str
    sampler: str
    description: str
    representation_head: str = "softmax"
    train: str = "head"

    def changes(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the changes in a configuration, nested.

        Args:
            options: entries of ``classifier_stage`` by dotted name; those that begin with
                ``head.`` are options of the head.
        """
        changes: dict[str, Any] = {
            "head": {"name": self.head, "options": {}},
            "classifier_stage": {
                "sampler": self.sampler,
                "train": self.train,
                "representation_head": {"name": self.representation_head, "options": {}},
            },
        }
        for entry, value in options.items():
            of_head = entry.startswith("head.")
            path = ("head", "options") if of_head else ("classifier_stage",)
            nested: Any = value
            for key in reversed((*path, *entry.removeprefix("head.").split("."))):
                nested = {key: nested}
            changes = merge(changes, nested)
        return changes


SCHEMES: dict[str, Scheme] = {
    "balms": Scheme(
        "balanced-softmax",
        "meta",
        "Balanced Meta-Softmax: softmax features, then a balanced softmax with the Meta Sampler",
    ),
    "crt": Scheme(
        "softmax",
        "class-balanced",
        "classifier re-training: softmax features, then a softmax on class-balanced batches",
    ),
    "lws": Scheme(
        "softmax",
        "class-balanced",
        "learnable weight scaling: softmax features and layer, then one factor per class",
        train="class-scales",
    ),
    "softmax-meta": Scheme(
        "softmax", "meta", "softmax features, then a softmax with the Meta Sampler"
    ),
}
