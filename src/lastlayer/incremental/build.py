"""What a head can be asked for while classes arrive."""

from __future__ import annotations

from lastlayer.heads import LDAM, BalancedSoftmax, Head, Softmax, build_head, takes_class_counts
from lastlayer.incremental.config import IncrementalConfig

#: Of the head that tries a configuration out: some heads depend on having many classes.
CLASSES_TO_TRY = 1000


def check_head(config: IncrementalConfig, head: Head) -> None:
    """Raise ``ValueError`` if the head cannot do what the configuration asks for."""
    name, old, correction = config.head.name, config.old_classes, config.correction.kind
    if (old.alpha != 1.0 or old.learn_alpha) and not takes_class_counts(name):
        raise ValueError(
            "old_classes.alpha and learn_alpha need a head that takes class counts; "
            f"{name!r} does not"
        )
    if old.learn_alpha and type(head) is not BalancedSoftmax:
        raise ValueError(f"old_classes.learn_alpha is for balanced-softmax; got {name!r}")
    if correction == "weight-alignment" and isinstance(head, LDAM):
        raise ValueError("weight-alignment does nothing for a head of cosines; choose another")
    if correction == "bias-correction" and type(head) not in (Softmax, BalancedSoftmax):
        raise ValueError(
            "bias-correction is for heads that predict the softmax of their logits: softmax and "
            f"balanced-softmax; got {name!r}"
        )


def try_head(config: IncrementalConfig) -> None:
    """Build a configuration's head, without memory for it, and check it.

    Raises:
        ValueError: if its name or an option does not fit, or it cannot do what is asked for.
    """
    options = dict(config.head.options)
    if takes_class_counts(config.head.name):
        options["class_counts"] = [1] * CLASSES_TO_TRY
    check_head(config, build_head(config.head.name, 2, CLASSES_TO_TRY, device="meta", **options))
