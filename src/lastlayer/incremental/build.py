"""From a configuration to the state before the first task, and to an untrained classifier."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from lastlayer._inputs import Inputs, call, form, map_inputs, to_weight
from lastlayer._random import derive_seed, seeded
from lastlayer.heads import (
    LDAM,
    BalancedSoftmax,
    Classifier,
    Head,
    Softmax,
    build_head,
    takes_class_counts,
)
from lastlayer.heads.after_layer import as_features
from lastlayer.incremental.config import IncrementalConfig
from lastlayer.incremental.memory import RehearsalMemory
from lastlayer.incremental.state import LearnerState
from lastlayer.training.build import build_classifier

#: Of the head that tries a configuration out: some heads depend on having many classes.
CLASSES_TO_TRY = 1000


def new_state(config: IncrementalConfig, backbone: nn.Module | None = None) -> LearnerState:
    """Return the state before the first task."""
    wanted = config.memory
    if wanted.everything:
        memory = RehearsalMemory.unlimited()
    else:
        memory = RehearsalMemory(
            **wanted.budget, selection=wanted.selection, seed=derive_seed(config.seed, "memory")
        )
    return LearnerState(config, memory, backbone)


def build_untrained(
    state: LearnerState, empty: Inputs, num_classes: int, counts: Tensor
) -> Classifier:
    """Return the untrained classifier of a state's configuration, for so many classes.

    It takes inputs of the form of ``empty``, which hold no example; (K,) class ``counts`` go to a
    head that takes them.
    """
    if state.backbone is None:
        if not isinstance(empty, Tensor):
            raise ValueError(
                "a backbone given by name takes one tensor; give a network of your own for "
                f"several inputs ({form(empty)})"
            )
        shape = tuple(empty.shape[1:])
        return build_classifier(state.config, shape, num_classes, class_counts=counts)
    backbone = copy.deepcopy(state.backbone)
    with seeded(derive_seed(state.config.seed, "initial weights")), torch.no_grad():
        one = map_inputs(lambda part: part.new_zeros((1, *part.shape[1:])), empty)
        weight = next((p for p in backbone.parameters() if p.is_floating_point()), torch.empty(0))
        features = as_features(call(backbone.eval(), to_weight(one, weight)))
        if features.dim() != 2:
            raise ValueError(
                f"backbone must map inputs ({form(empty)} each) to features of shape (N, D); "
                f"of one it made {tuple(features.shape)}"
            )
        options = dict(state.config.head.options)
        if takes_class_counts(state.config.head.name):
            options["class_counts"] = counts
        head = build_head(state.config.head.name, features.shape[1], num_classes, **options)
        head.to(features.dtype)
    return Classifier(backbone.train(), head)


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
    """Build a configuration's head, without memory for it, and check it."""
    options = dict(config.head.options)
    if takes_class_counts(config.head.name):
        options["class_counts"] = [1] * CLASSES_TO_TRY
    check_head(config, build_head(config.head.name, 2, CLASSES_TO_TRY, device="meta", **options))
