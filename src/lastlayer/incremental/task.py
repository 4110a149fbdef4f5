"""Learn one task: grow the classifier, train it, correct it, keep exemplars."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lastlayer._inputs import Inputs, blank, join
from lastlayer._random import derive_seed, seeded
from lastlayer.data import Labelled
from lastlayer.functional.incremental import (
    aligned_weight,
    alignment_factor,
    rehearsal_counts,
)
from lastlayer.heads import Classifier, grow, takes_class_counts
from lastlayer.incremental.bias_correction import hold_out_balanced
from lastlayer.incremental.build import build_untrained, check_head
from lastlayer.incremental.config import IncrementalConfig
from lastlayer.incremental.module import TaskModule, optimizer_with_state
from lastlayer.incremental.old_class_weight import MetaOldWeight
from lastlayer.incremental.state import LearnerState
from lastlayer.longtail import class_counts
from lastlayer.models import Backbone
from lastlayer.training.augmentation import build_augmentations
from lastlayer.training.callbacks import Progress
from lastlayer.training.engine import fit_module
from lastlayer.training.regularization import spread_penalties
from lastlayer.training.run_directory import RunDirectory


@dataclass(frozen=True)
class TaskReport:
    """How a task was learned.

    Attributes:
        num_new: classes that were new.
        num_examples: training examples, exemplars included.
        class_counts: (K,) of them.
        alpha: factor of the old classes' counts.
        alignment: what the new classes' weights were multiplied by; None for no alignment.
        seconds: of training.
    """

    num_new: int
    num_examples: int
    class_counts: list[int]
    alpha: float
    alignment: float | None
    seconds: float


def learn_task(
    state: LearnerState,
    data: Labelled,
    num_new: int,
    *,
    steps: int,
    run: RunDirectory | None = None,
    offset: int = 0,
    progress: Progress | None = None,
) -> tuple[LearnerState, TaskReport]:
    """Return the state after one more task; the given one stays as it is.

    Args:
        state: what was learned before.
        data: the task's examples; labels are rows in order of arrival, the new classes' the last
            ones. Examples of old classes are welcome.
        num_new: new classes.
        steps: training steps.
        run: where records and the checkpoint within the task go; None to keep neither.
        offset: steps of the tasks before, for the records.
        progress: called with the step and the newest record.
    """
    task, num_old = len(state.sizes), state.num_classes
    check_task(state, data, num_new)
    seed = derive_seed(state.config.seed, "task", task)
    config = state.config.updated({"seed": seed, "training": {"steps": steps}})
    examples, held_out = _examples(state, data, num_new)
    counts = class_counts(examples.target, num_old + num_new)
    old = config.old_classes
    effective = rehearsal_counts(counts, num_old, alpha=old.alpha, epsilon=old.epsilon)
    module = _module(state, config, examples, counts, effective)
    seconds = fit_module(
        module,
        config,
        examples,
        run=run,
        progress=progress,
        checkpoint=checkpoint_name(task),
        offset=offset,
    )
    after = replace(
        state,
        classifier=module.classifier.eval(),
        blank=blank(data.inputs),
        sizes=[*state.sizes, num_new],
        effective_counts=effective,
        memory=copy.deepcopy(state.memory),
        correction=copy.deepcopy(state.correction),
        optimizer_state=module.optimizer_state() if config.tasks.carry_optimizer else None,
    )
    alignment = _correct(after, num_old, held_out)
    _remember(after, data)
    report = TaskReport(
        num_new=num_new,
        num_examples=len(examples),
        class_counts=counts.tolist(),
        alpha=old.alpha if module.alpha is None else module.alpha.alpha,
        alignment=alignment,
        seconds=seconds,
    )
    return after, report


def _module(
    state: LearnerState,
    config: IncrementalConfig,
    examples: Labelled,
    counts: Tensor,
    effective: Tensor,
) -> TaskModule:
    """Return what is trained: the grown classifier, its teacher and what else goes with it."""
    num_old, inputs = state.num_classes, examples.inputs
    classifier, optimizer_state = _grown(state, effective, blank(inputs))
    spread_penalties(classifier, len(examples))
    teaches = config.distillation.kind != "none" and num_old > 0
    alpha = None
    if config.old_classes.learn_alpha and num_old > 0:
        old = config.old_classes
        alpha = MetaOldWeight(initial=old.alpha, lr=old.lr, epsilon=old.epsilon)
    return TaskModule(
        classifier,
        config,
        num_old=num_old,
        teacher=copy.deepcopy(state.trained) if teaches else None,
        alpha=alpha,
        meta_data=None if alpha is None else (examples, counts),
        augmentation=build_augmentations(
            config, tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else ()
        ),
        optimizer_state=optimizer_state,
    )


def _remember(state: LearnerState, data: Labelled) -> None:
    """Keep exemplars of a task's examples."""
    memory = state.memory
    features = memory_features = None
    if memory.selection == "herding" and not state.config.memory.everything:
        features = state.trained.features_of(data.inputs)
        if len(memory):
            memory_features = state.trained.features_of(memory.inputs)
    memory.update(data.inputs, data.target, features, memory_features=memory_features)


def checkpoint_name(task: int) -> str:
    """Return the name of the checkpoint within a task."""
    return f"task-{task:03d}"


def check_task(state: LearnerState, data: Labelled, num_new: int) -> None:
    """Raise ``ValueError`` unless there is a class, and every new one has an example."""
    known = state.num_classes + num_new
    counts = class_counts(data.target, known)
    missing = [row for row in range(state.num_classes, known) if counts[row] == 0]
    if missing:
        raise ValueError(f"new classes need at least one example; rows {missing} have none")
    if known < 1:
        raise ValueError("a first task needs at least one class; got none")


def _examples(
    state: LearnerState, data: Labelled, num_new: int
) -> tuple[Labelled, Labelled | None]:
    """Return the task's examples with the memory's, less those held out for the correction."""
    kept, both = state.memory, data
    if len(kept):
        target = torch.cat([data.target, kept.target])
        both = Labelled(join([data.inputs, kept.inputs]), target)
    if not (state.has_correction and state.num_classes and num_new):
        return both, None
    seed = derive_seed(state.config.seed, "held out", len(state.sizes))
    return hold_out_balanced(both, state.config.correction.held_out, seed)


def _grown(
    state: LearnerState, effective: Tensor, inputs: Inputs
) -> tuple[Classifier, dict[int, Any] | None]:
    """Return the classifier that is to be trained, and the optimizer's state to go on with."""
    if state.classifier is None or state.config.tasks.restart:
        classifier = build_untrained(state, inputs, len(effective), effective)
        check_head(state.config, classifier.head)
        return classifier, None
    classifier = copy.deepcopy(state.trained).train()
    backbone = classifier.backbone
    kept = state.optimizer_state
    optimizer = None
    if kept is not None:
        optimizer = optimizer_with_state(state.config.optimizer, classifier, kept)
    with seeded(derive_seed(state.config.seed, "new classes", len(state.sizes))):
        grow(
            classifier.head,
            len(effective) - state.num_classes,
            class_counts=effective if takes_class_counts(state.config.head.name) else None,
            init_classifier=backbone.init_classifier_ if isinstance(backbone, Backbone) else None,
            optimizer=optimizer,
        )
    return classifier, None if optimizer is None else optimizer.state_dict()["state"]


def _correct(state: LearnerState, num_old: int, held_out: Labelled | None) -> float | None:
    """Correct the bias to the new classes as configured; return the weights' factor, if any."""
    head = state.trained.head
    num_new = head.num_classes - num_old
    if state.config.correction.kind == "weight-alignment" and num_old and num_new:
        with torch.no_grad():
            factor = float(alignment_factor(head.classifier.weight, num_old))
            head.classifier.weight.copy_(aligned_weight(head.classifier.weight, num_old))
        return factor
    if state.has_correction and num_new:
        state.correction.add_task(num_new)
        if num_old:
            _fit_correction(state, num_old, held_out)
    return None


def _fit_correction(state: LearnerState, num_old: int, held_out: Labelled | None) -> None:
    """Fit the newest task's scale and bias, if old and new classes have examples held out."""
    is_new = torch.zeros(0) if held_out is None else (held_out.target >= num_old).double()
    if held_out is None or not 0 < float(is_new.mean()) < 1:
        warnings.warn(
            "bias-correction needs held-out examples of old and of new classes, and a class with "
            "one example keeps it for training: the logits of this task's classes stay as they are",
            stacklevel=2,
        )
        return
    head = state.trained.head
    features = state.trained.features_of(held_out.inputs).to(head.classifier.weight)
    with torch.no_grad():
        logits = head.logits(features).cpu()
    state.correction.fit(logits, held_out.target)
