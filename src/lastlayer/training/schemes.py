"""Ways of training by name: how batches are drawn, in one stage or in two."""

from __future__ import annotations

from lastlayer.longtail import SAMPLERS
from lastlayer.training.variants import Word


class _Scheme(Word):
    """A head and how its batches are drawn; what is left out (steps, rates) is the recipe's.

    Options are entries of the stage that the head is trained in, and options of the head after
    ``head.``: ``balms:meta.initial_power=1,head.tau=0.25``.
    """

    def entry(self, option: str) -> str:
        """Return the dotted entry of the configuration that an option is."""
        if option.startswith("head."):
            return option.replace("head.", "head.options.", 1)
        return super().entry(option)


def _two_stages(description: str, head: str, sampler: str, train: str = "head") -> Word:
    """Return a scheme of softmax features and a second stage for the head or its class scales."""
    representation = {"name": "softmax", "options": {}}
    stage = {"sampler": sampler, "train": train, "representation_head": representation}
    changes = {"head": {"name": head, "options": {}}, "classifier_stage": stage}
    return _Scheme(description, changes, "classifier_stage")


def _one_stage(sampler: str) -> Word:
    """Return softmax on the batches of a sampler."""
    description = f"softmax in one stage, on batches of the {sampler} sampler"
    changes = {"head": {"name": "softmax", "options": {}}, "training": {"sampler": sampler}}
    return _Scheme(description, changes, "training")


SCHEMES: dict[str, Word] = {
    "balms": _two_stages(
        "Balanced Meta-Softmax: softmax features, then a balanced softmax with the Meta Sampler",
        "balanced-softmax",
        "meta",
    ),
    "crt": _two_stages(
        "classifier re-training: softmax features, then a softmax on class-balanced batches",
        "softmax",
        "class-balanced",
    ),
    "lws": _two_stages(
        "learnable weight scaling: softmax features and layer, then one factor per class",
        "softmax",
        "class-balanced",
        train="class-scales",
    ),
    "softmax-meta": _two_stages(
        "softmax features, then a softmax with the Meta Sampler", "softmax", "meta"
    ),
} | {f"{sampler}-sampling": _one_stage(sampler) for sampler in SAMPLERS}
