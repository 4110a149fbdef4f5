"""What a learner knows after some tasks, and what it predicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lastlayer._checks import check_choice
from lastlayer._inputs import Inputs
from lastlayer.functional.incremental import class_means, nearest_mean_scores
from lastlayer.heads import Classifier
from lastlayer.incremental.bias_correction import BiasCorrection
from lastlayer.incremental.config import IncrementalConfig
from lastlayer.incremental.memory import RehearsalMemory

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
        effective_counts: (K,) class counts that the head has, the old classes' weighed.
        correction: scales and biases by task, where the configuration has them.
        optimizer_state: by parameter, where it goes on into the next task.
    """

    config: IncrementalConfig
    memory: RehearsalMemory
    backbone: nn.Module | None = None
    classifier: Classifier | None = None
    blank: Inputs | None = None
    sizes: list[int] = field(default_factory=list)
    effective_counts: Tensor | None = None
    correction: BiasCorrection = field(default_factory=BiasCorrection)
    optimizer_state: dict[int, Any] | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes seen."""
        return sum(self.sizes)

    @property
    def trained(self) -> Classifier:
        """The classifier; ``ValueError`` if nothing was learned yet."""
        if self.classifier is None:
            raise ValueError("nothing was learned yet: learn a task first")
        return self.classifier

    @property
    def takes_integers(self) -> bool:
        """Whether the network has an embedding, which looks up whole numbers."""
        modules = [] if self.backbone is None else self.backbone.modules()
        return any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in modules)

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
        """Return the (N, K) log-probabilities of (N, D) features, by the configuration's predictor.

        Those of the nearest mean are a softmax over minus its squared distances: their order is the
        prediction, their size has no meaning beyond.
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
        """Return the (K, D) means of the exemplars' directions in feature space, or raise."""
        if not self.has_exemplars():
            held = len(set(self.memory.target.tolist()))
            raise ValueError(
                "predicting by the nearest mean needs an exemplar of every class; the memory holds "
                f"some of {held} of the {self.num_classes} classes"
            )
        features = self.trained.features_of(self.memory.inputs)
        return class_means(features, self.memory.target, self.num_classes)
