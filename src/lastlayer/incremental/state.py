"""What a learner knows after some tasks, and what it predicts."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lastlayer._checks import check_choice
from lastlayer._inputs import Inputs, batches, call, form, map_inputs, to_weight
from lastlayer._random import seeded
from lastlayer.functional.incremental import class_means, nearest_mean_scores
from lastlayer.heads import Classifier, build_head, takes_class_counts
from lastlayer.incremental.bias_correction import BiasCorrection
from lastlayer.incremental.config import IncrementalConfig
from lastlayer.incremental.memory import RehearsalMemory
from lastlayer.training.build import build_classifier
from lastlayer.training.measuring import EVALUATION_BATCH
from lastlayer.training.randomness import derive_seed

Predictor = Literal["classifier", "nearest-mean"]
PREDICTORS: tuple[Predictor, ...] = ("classifier", "nearest-mean")


@dataclass
class LearnerState:
    """A classifier and what goes with it from task to task; classes are rows in order of arrival.

    Attributes:
        config: how it learns.
        memory: exemplars of the classes seen.
        backbone: an untrained network of the user's, or None for the configuration's.
        classifier: None before the first task.
        blank: inputs without an example, of the form of those learned; None before the first task.
        sizes: new classes of each task.
        told_counts: (K,) class counts that the head was last told.
        correction: scales and biases by task, where the configuration has them.
        optimizer_state: by parameter, where it goes on into the next task.
    """

    config: IncrementalConfig
    memory: RehearsalMemory
    backbone: nn.Module | None = None
    classifier: Classifier | None = None
    blank: Inputs | None = None
    sizes: list[int] = field(default_factory=list)
    told_counts: Tensor | None = None
    correction: BiasCorrection = field(default_factory=BiasCorrection)
    optimizer_state: dict[int, Any] | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes seen."""
        return sum(self.sizes)

    @property
    def trained(self) -> Classifier:
        """The classifier.

        Raises:
            ValueError: if nothing was learned yet.
        """
        if self.classifier is None:
            raise ValueError("nothing was learned yet: learn a task first")
        return self.classifier

    @property
    def takes_integers(self) -> bool:
        """Whether the network has an embedding, which looks up whole numbers."""
        modules = [] if self.backbone is None else self.backbone.modules()
        return any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in modules)

    @torch.no_grad()
    def features(self, inputs: Inputs) -> Tensor:
        """Return the (N, D) features of inputs, in evaluation mode."""
        classifier = self.trained.eval()
        weight = classifier.head.classifier.weight
        parts = [
            call(classifier.features, to_weight(part, weight)).cpu()
            for part in batches(inputs, EVALUATION_BATCH)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def class_logits(self, features: Tensor) -> Tensor:
        """Return the classifier's (N, K) logits of features, corrected where that is configured."""
        head = self.trained.head
        logits = head.logits(features.to(head.classifier.weight)).cpu()
        return self.correction(logits) if self.has_correction else logits

    @property
    def has_correction(self) -> bool:
        """Whether the logits have scales and biases."""
        return self.config.correction.kind == "bias-correction"

    @torch.no_grad()
    def log_prob(self, features: Tensor, predictor: Predictor | None = None) -> Tensor:
        """Return the (N, K) log-probabilities that features have.

        Those of the nearest mean are a softmax over minus its squared distances: their order is the
        prediction, their size has no meaning beyond.

        Args:
            features: (N, D).
            predictor: the configuration's if None.

        Raises:
            ValueError: if the predictor is unknown, or a class has no exemplar whose mean could be
                taken.
        """
        wanted = self.config.predictor if predictor is None else predictor
        check_choice("predictor", wanted, PREDICTORS)
        if wanted == "nearest-mean":
            return nearest_mean_scores(features, self.exemplar_means()).log_softmax(dim=-1)
        if self.has_correction:
            return self.class_logits(features).log_softmax(dim=-1)
        head = self.trained.head
        return head.log_prob(features.to(head.classifier.weight)).cpu()

    def has_exemplars(self) -> bool:
        """Return whether every class seen has an exemplar."""
        return len(self.memory) > 0 and bool((self.memory.counts(self.num_classes) > 0).all())

    def exemplar_means(self) -> Tensor:
        """Return the (K, D) means of the exemplars' directions in feature space.

        Raises:
            ValueError: if a class has no exemplar.
        """
        if not self.has_exemplars():
            held = len(set(self.memory.target.tolist()))
            raise ValueError(
                "predicting by the nearest mean needs an exemplar of every class; the memory holds "
                f"some of {held} of the {self.num_classes} classes"
            )
        features = self.features(self.memory.inputs)
        return class_means(features, self.memory.target, self.num_classes)


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
    state: LearnerState, blank: Inputs, num_classes: int, counts: Tensor
) -> Classifier:
    """Return the untrained classifier of a state's configuration, for so many classes.

    Args:
        state: its configuration and the network of the user's, if any.
        blank: inputs without an example.
        num_classes: K.
        counts: (K,) class counts for a head that takes them.

    Raises:
        ValueError: if a network of the user's does not return (N, D) features, or one given by name
            would have several inputs.
    """
    if state.backbone is None:
        if not isinstance(blank, Tensor):
            raise ValueError(
                "a backbone given by name takes one tensor; give a network of your own for "
                f"several inputs ({form(blank)})"
            )
        shape = tuple(blank.shape[1:])
        return build_classifier(state.config, shape, num_classes, class_counts=counts)
    backbone = copy.deepcopy(state.backbone)
    with seeded(derive_seed(state.config.seed, "initial weights")), torch.no_grad():
        one = map_inputs(lambda part: part.new_zeros((1, *part.shape[1:])), blank)
        weight = next((p for p in backbone.parameters() if p.is_floating_point()), torch.empty(0))
        features = call(backbone.eval(), to_weight(one, weight))
        features = getattr(features, "logits", features)  # as of transformers' output objects
        if not isinstance(features, Tensor) or features.dim() != 2:
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"backbone must map inputs ({form(blank)} each) to features of shape (N, D); "
                f"of one it made {got}"
            )
        options = dict(state.config.head.options)
        if takes_class_counts(state.config.head.name):
            options["class_counts"] = counts
        head = build_head(state.config.head.name, features.shape[1], num_classes, **options)
        head.to(features.dtype)
    return Classifier(backbone.train(), head)
