"""Learn one task: grow the classifier, train it, correct it, keep exemplars."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lastlayer.data import Split
from lastlayer.functional.incremental import (
    aligned_weight,
    alignment_factor,
    rehearsal_counts,
)
from lastlayer.heads import (
    LDAM,
    BalancedSoftmax,
    Classifier,
    Softmax,
    grow,
    takes_class_counts,
)
from lastlayer.incremental.config import IncrementalConfig
from lastlayer.incremental.held_out import hold_out
from lastlayer.incremental.module import TaskModule
from lastlayer.incremental.old_class_weight import MetaOldWeight
from lastlayer.incremental.optimizer_state import grown_optimizer_state, kept_state
from lastlayer.incremental.state import LearnerState, build_untrained
from lastlayer.longtail import class_counts
from lastlayer.models import Backbone
from lastlayer.training.build import build_augmentations
from lastlayer.training.fitting import fit_module
from lastlayer.training.randomness import derive_seed
from lastlayer.training.records import Progress
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
    data: Split,
    num_new: int,
    run: RunDirectory,
    *,
    steps: int,
    offset: int = 0,
    progress: Progress | None = None,
) -> tuple[LearnerState, TaskReport]:
    """Return the state after one more task; the given one stays as it is.

    Args:
        state: what was learned before.
        data: the task's examples; labels are rows in order of arrival, the new classes' the last
            ones. Examples of old classes are welcome.
        num_new: new classes.
        run: where records and the checkpoint within the task go.
        steps: training steps.
        offset: steps of the tasks before, for the records.
        progress: called with the step and the newest record.

    Raises:
        ValueError: if a new class has no example, or the head cannot do what is configured.
        FloatingPointError: if the loss is not finite.
    """
    task, num_old = len(state.sizes), state.num_classes
    check_task(state, data, num_new)
    config = _task_config(state, task, steps)
    examples, held_out = _examples(state, data, num_new)
    counts = class_counts(examples.target, num_old + num_new)
    wanted = config.old_classes
    told = rehearsal_counts(counts, num_old, alpha=wanted.alpha, epsilon=wanted.epsilon)
    classifier, optimizer_state = _grown(state, task, num_new, told, tuple(data.inputs.shape[1:]))
    teaches = config.distillation.kind != "none" and num_old > 0
    learns_alpha = config.old_classes.learn_alpha and num_old > 0
    alpha = MetaOldWeight(initial=wanted.alpha, lr=wanted.lr, epsilon=wanted.epsilon)
    module = TaskModule(
        classifier,
        config,
        num_old=num_old,
        teacher=copy.deepcopy(state.trained) if teaches else None,
        alpha=alpha if learns_alpha else None,
        meta_data=(examples, counts) if learns_alpha else None,
        augmentation=build_augmentations(config, tuple(data.inputs.shape[1:])),
        optimizer_state=optimizer_state,
    )
    seconds = fit_module(
        module, config, run, examples, progress=progress, checkpoint=checkpoint(task), offset=offset
    )
    after = replace(
        state,
        classifier=classifier,
        input_shape=tuple(data.inputs.shape[1:]),
        sizes=[*state.sizes, num_new],
        told_counts=told,
        memory=copy.deepcopy(state.memory),
        correction=copy.deepcopy(state.correction),
        optimizer_state=kept_state(module) if config.tasks.carry_optimizer else None,
    )
    alignment = _correct(after, num_old, held_out)
    _remember(after, data)
    report = TaskReport(
        num_new=num_new,
        num_examples=len(examples),
        class_counts=counts.tolist(),
        alpha=float(alpha.alpha),
        alignment=alignment,
        seconds=seconds,
    )
    return after, report


def _remember(state: LearnerState, data: Split) -> None:
    """Keep exemplars of a task's examples."""
    memory = state.memory
    herding = memory.selection == "herding" and not state.config.memory.everything
    memory.update(
        data.inputs,
        data.target,
        state.features(data.inputs) if herding else None,
        memory_features=state.features(memory.inputs) if herding and len(memory) else None,
    )


def checkpoint(task: int) -> str:
    """Return the name of the checkpoint within a task."""
    return f"task-{task:03d}"


def check_task(state: LearnerState, data: Split, num_new: int) -> None:
    """Raise ``ValueError`` unless every new class has an example and the head fits the settings."""
    known = state.num_classes + num_new
    counts = class_counts(data.target, known)
    missing = [row for row in range(state.num_classes, known) if counts[row] == 0]
    if missing:
        raise ValueError(f"new classes need at least one example; rows {missing} have none")
    if known < 1:
        raise ValueError("a first task needs at least one class; got none")


def check_head(config_head: str, classifier: Classifier, state: LearnerState) -> None:
    """Raise ``ValueError`` if the head cannot do what the configuration asks for."""
    head, config = classifier.head, state.config
    wants_counts = config.old_classes.alpha != 1.0 or config.old_classes.learn_alpha
    if wants_counts and not takes_class_counts(config_head):
        raise ValueError(
            f"old_classes.alpha and learn_alpha need a head that takes class counts; "
            f"{config_head!r} does not"
        )
    if config.old_classes.learn_alpha and type(head) is not BalancedSoftmax:
        raise ValueError(f"old_classes.learn_alpha is for balanced-softmax; got {config_head!r}")
    if config.correction.kind == "weight-alignment" and isinstance(head, LDAM):
        raise ValueError("weight-alignment does nothing for a head of cosines; choose another")
    if config.correction.kind == "bias-correction" and type(head) not in (Softmax, BalancedSoftmax):
        raise ValueError(
            "bias-correction is for heads that predict the softmax of their logits: softmax and "
            f"balanced-softmax; got {config_head!r}"
        )


def _task_config(state: LearnerState, task: int, steps: int) -> IncrementalConfig:
    seed = derive_seed(state.config.seed, "task", task)
    return state.config.updated({"seed": seed, "training": {"steps": steps}})


def _examples(state: LearnerState, data: Split, num_new: int) -> tuple[Split, Split | None]:
    """Return the task's examples with the memory's, less those held out for the correction."""
    both = data
    if len(state.memory):
        kept = state.memory
        both = Split(torch.cat([data.inputs, kept.inputs]), torch.cat([data.target, kept.target]))
    if not state.has_correction or not state.num_classes:
        return both, None
    seed = derive_seed(state.config.seed, "held out", len(state.sizes))
    return hold_out(both, state.config.correction.held_out, seed)


def _grown(
    state: LearnerState, task: int, num_new: int, told: Tensor, input_shape: tuple[int, ...]
) -> tuple[Classifier, dict[int, object] | None]:
    """Return the classifier that is to be trained, and the optimizer's state to go on with."""
    num_classes = state.num_classes + num_new
    if state.classifier is None or state.config.tasks.restart:
        classifier = build_untrained(state, input_shape, num_classes, told)
        check_head(state.config.head.name, classifier, state)
        return classifier, None
    classifier = copy.deepcopy(state.trained).train()
    backbone = classifier.backbone
    init = backbone.init_classifier_ if isinstance(backbone, Backbone) else None
    counts = told if takes_class_counts(state.config.head.name) else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(state.config.seed, "new classes", task))
        with grown_optimizer_state(state, classifier) as optimizer:
            grow(
                classifier.head,
                num_new,
                class_counts=counts,
                init_classifier=init,
                optimizer=optimizer,
            )
    return classifier, None if optimizer is None else optimizer.state_dict()["state"]


def _correct(state: LearnerState, num_old: int, held_out: Split | None) -> float | None:
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
        if held_out is not None and bool((held_out.target >= num_old).any()):
            logits = head.logits(state.features(held_out.inputs).to(head.classifier.weight)).cpu()
            state.correction.fit(logits.detach(), held_out.target)
    return None
