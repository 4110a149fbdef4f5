"""Ways of training by name: how batches are drawn, in one stage or in two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lastlayer.longtail import SAMPLERS
from lastlayer.training.config import merge


@dataclass(frozen=True)
class Scheme:
    """What a name stands for.

    The heads are looked up when a run is built, and what is left out (steps, learning rates) is
    the recipe's.

    Attributes:
        head: the run's head; of two stages the second one trains it.
        sampler: how batches are drawn, of two stages the second one's.
        description: one line.
        representation_head: the first stage's head; None for training in one stage.
        train: what the second stage trains, the ``"head"`` or its ``"class-scales"``.
    """

    head: str
    sampler: str
    description: str
    representation_head: str | None = "softmax"
    train: str = "head"

    @property
    def section(self) -> str:
        """The configuration's table to which the sampler belongs."""
        return "training" if self.representation_head is None else "classifier_stage"

    def changes(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the changes in a configuration, nested.

        Args:
            options: entries of :attr:`section` by dotted name; those that begin with ``head.`` are
                options of the head.
        """
        entries: dict[str, Any] = {"sampler": self.sampler}
        if self.representation_head is not None:
            entries["train"] = self.train
            entries["representation_head"] = {"name": self.representation_head, "options": {}}
        changes: dict[str, Any] = {
            "head": {"name": self.head, "options": {}},
            self.section: entries,
        }
        for entry, value in options.items():
            of_head = entry.startswith("head.")
            path = ("head", "options") if of_head else (self.section,)
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
} | {
    f"{sampler}-sampling": Scheme(
        "softmax",
        sampler,
        f"softmax in one stage, on batches of the {sampler} sampler",
        representation_head=None,
    )
    for sampler in SAMPLERS
}
