"""The words of variants, all in one table: heads, schemes, regularizers, and incremental methods.

The words of incremental learning are written here: what is added to a head against forgetting, and
names that stand for a head and additions.
"""

from __future__ import annotations

from typing import Any

from lastlayer.training.config import merge
from lastlayer.training.schemes import SCHEMES
from lastlayer.training.variants import Changes, Word, expand, head_words, regularizer_words

ADDITIONS: dict[str, Word] = {
    "distillation": Word(
        "the old classes' logits stay near the task before",
        {"distillation": {"kind": "logits"}},
        "distillation",
    ),
    "feature-distillation": Word(
        "the features' directions stay near the task before (as in LUCIR)",
        {"distillation": {"kind": "features", "scale": "root-ratio"}},
        "distillation",
    ),
    "alignment": Word(
        "weights of new classes scaled to old norms",
        {"correction": {"kind": "weight-alignment"}},
        "correction",
    ),
    "bias-correction": Word(
        "scale and bias of new logits, on held-out data",
        {"correction": {"kind": "bias-correction"}},
        "correction",
    ),
    "old-classes": Word(
        "alpha=... and epsilon=... of the old counts", {"old_classes": {}}, "old_classes"
    ),
    "meta": Word(
        "alpha of the old counts is learned", {"old_classes": {"learn_alpha": True}}, "old_classes"
    ),
    "class-sampling": Word(
        "batches with every class equally likely",
        {"training": {"sampler": "class-balanced"}},
        "training",
    ),
    "memory": Word("per_class=..., total=..., selection=...", {"memory": {}}, "memory"),
}


def _method(description: str, text: str, **more: Any) -> Word:
    """Return a word for a head with additions and more; its options are the head's."""
    return Word(description, merge(expand(text, head_words(), ADDITIONS)[1], more))


METHODS: dict[str, Word] = {
    "balanced": _method(
        "where to begin: class-balanced batches, a third of a balanced softmax, distillation",
        "balanced-softmax:tau=0.35+class-sampling+distillation:weight=0.5,temperature=4.0",
    ),
    "weighted": _method(
        "cross-entropy weighted by one over the class counts", "class-balanced:beta=1.0"
    ),
    "icarl": _method(
        "softmax, distillation and herding, predicting by the nearest mean of exemplars; with "
        "cross-entropies where the paper has binary ones",
        "softmax+distillation",
        predictor="nearest-mean",
    ),
    "joint": _method(
        "everything seen so far, from the beginning, after every task: the ceiling",
        "softmax",
        memory={"everything": True},
        tasks={"restart": True},
    ),
}


def variant_words() -> dict[str, dict[str, Word]]:
    """Return all words by what they are; additions and regularizers stand after a plus sign."""
    return {
        "methods": METHODS,
        "schemes": SCHEMES,
        "heads": head_words(),
        "additions": ADDITIONS,
        "regularizers": regularizer_words(),
    }


def parse_variant(text: str) -> tuple[str, Changes]:
    """Return what a variant is called without options, and what it changes in a configuration.

    Args:
        text: a head, scheme or method, and additions or a regularizer after plus signs, each with
            options: ``dropmax:temperature=0.2``, ``softmax+disout:where=layer3,p=0.1``,
            ``balms:meta.initial_power=1``, ``balanced-softmax+distillation:weight=2``.

    Raises:
        ValueError: if a word is unknown or missing, an addition comes twice, two of them exclude
            each other, or an option has no value.

    Example:
        >>> parse_variant("softmax+distillation:weight=2")[1]["distillation"]
        {'kind': 'logits', 'weight': 2}
        >>> parse_variant("crt:steps=500")[1]["classifier_stage"]["steps"]
        500
    """
    words = variant_words()
    heads = words["methods"] | words["schemes"] | words["heads"]
    return expand(text, heads, words["additions"] | words["regularizers"])
