"""A classifier to which classes are added, for one's own stream of data."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from lastlayer._checks import check_choice, check_count
from lastlayer._inputs import Inputs
from lastlayer.data import Labelled
from lastlayer.heads import Classifier
from lastlayer.incremental.build import new_state, try_head
from lastlayer.incremental.config import IncrementalConfig
from lastlayer.incremental.examples import as_inputs, as_labels, labelled_examples
from lastlayer.incremental.memory import RehearsalMemory
from lastlayer.incremental.methods import parse_variant
from lastlayer.incremental.run import IncrementalRun
from lastlayer.incremental.state import PREDICTORS, Predictor
from lastlayer.incremental.storage import Label, load_state, save_state
from lastlayer.incremental.task import TaskReport, learn_task
from lastlayer.training.callbacks import Progress
from lastlayer.training.config import merge
from lastlayer.training.run_directory import TASKS_FOLDER


class IncrementalClassifier:
    r"""A classifier that learns classes one task after another and keeps the old ones.

    Every call of :meth:`learn` adds the classes that are new in its data, trains on these data and
    the exemplars kept so far, and keeps exemplars of the new classes. With balanced softmax the few
    exemplars do not make the old classes rare:

    .. math:: \ell = -\log \frac{\lambda_y e^{\eta_y}}{\sum_j \lambda_j e^{\eta_j}}, \qquad
        \lambda_j = \alpha \, c_j \text{ for old classes}, \; c_j \text{ for new ones}

    with c the examples of each class in the task's training, exemplars included; it predicts by
    :math:`\eta` alone. Predictions are among all classes seen; no task is ever told.

    Args:
        method: a head and what is added to it, such as ``"balanced-softmax+distillation"``, or a
            name such as ``"icarl"``; see ``lastlayer list methods``. ``"balanced"`` is balanced
            batches, a third of a balanced softmax, and distillation.
        backbone: a backbone's name; ``"auto"`` by the inputs' shape; or a network that maps inputs
            to (N, D) features, which is copied and trained. Inputs of one tensor become float32,
            but for whole numbers where such a network has an embedding; of several tensors,
            integers stay.
        memory: exemplars kept of every class; 0 for none.
        epochs: passes over the task's examples; 30 if the steps are not given either.
        steps: training steps of every task, instead; also ``training.steps`` in the settings.
        seed: fixes weights, order and exemplars.
        settings: further entries of the configuration, nested, such as
            ``{"optimizer": {"lr": 0.01}, "memory": {"total": 2000}}``.

    Attributes:
        config: the complete configuration.
        reports: how each task since construction or loading was learned.

    Raises:
        TypeError: if ``backbone`` is neither a name nor a network, or ``settings`` no mapping.
        ValueError: if an argument is unknown or does not fit.

    Example:
        >>> inputs, target = torch.randn(40, 6), torch.arange(40) % 4
        >>> learner = IncrementalClassifier(backbone="mlp", memory=5, steps=3)
        >>> for classes in ([0, 1], [2, 3]):
        ...     own = torch.isin(target, torch.tensor(classes))
        ...     learner = learner.learn(inputs[own], target[own])
        >>> learner.classes, len(learner.memory), learner.predict(inputs).shape
        ([0, 1, 2, 3], 20, torch.Size([40]))

    Source: Jodelet, Liu and Murata, "Balanced Softmax Cross-Entropy for Incremental Learning",
    ICANN 2021, of which the abstract was read: alpha is from memory.
    """

    def __init__(
        self,
        method: str = "balanced",
        *,
        backbone: str | nn.Module = "auto",
        memory: int = 20,
        epochs: int | None = None,
        steps: int | None = None,
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if epochs is not None and steps is not None:
            raise ValueError(f"give epochs or steps, not both; got {epochs} and {steps}")
        for name, value in (("epochs", epochs), ("steps", steps)):
            if value is not None:
                check_count(name, value)
        if settings is not None and not isinstance(settings, Mapping):
            raise TypeError(f"settings must be a mapping; got {settings!r}")
        if not isinstance(backbone, str | nn.Module):
            raise TypeError(f"backbone must be a name or a torch.nn.Module; got {backbone!r}")
        own = None if isinstance(backbone, str) else copy.deepcopy(backbone)
        given: dict[str, Any] = {"seed": seed, "memory": {"per_class": memory}}
        if isinstance(backbone, str):
            given["model"] = {"name": backbone}
        changes = merge(parse_variant(method)[1], dict(settings or {}))
        if own is not None and (unused := sorted(changes.keys() & {"model", "regularizer"})):
            raise ValueError(f"settings {unused} are for a backbone given by name; got a network")
        if steps is not None:
            given["training"] = {"steps": int(steps)}
        all_changes = merge(given, changes)
        fixed = "steps" in all_changes.get("training", {})
        if fixed and epochs is not None:
            raise ValueError(f"give epochs or training.steps, not both; got epochs={epochs}")
        self.epochs = None if fixed else 30 if epochs is None else int(epochs)
        self.config = IncrementalConfig().updated(all_changes)
        try_head(self.config)
        self._state = new_state(self.config, own)
        self._labels: list[Label] = []
        self.reports: list[TaskReport] = []

    # -- learning ---------------------------------------------------------------------------------

    def learn(
        self,
        data: Any,
        target: Any = None,
        *,
        classes: Sequence[Label] | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Learn the classes of some data and keep exemplars of them.

        Args:
            data: (N, ...) inputs: numbers for a network's one argument, a tuple of tensors for
                several, a mapping of names to tensors for keywords; or with their labels: a
                :class:`lastlayer.data.Split`, a data set or a ``DataLoader`` of (inputs, label)
                pairs, or of mappings that hold the labels, such as a tokenized text's.
            target: (N,) labels, whole numbers or strings; None if ``data`` holds them.
            classes: the classes of this task in the order in which they are to be kept: a label
                outside is refused, and so is a class without an example. None for those of the
                labels, sorted. Those learned before may come again: their examples join in.
            progress: called with the step and the newest record.

        Returns:
            The learner itself. If anything is wrong it is as it was before.

        Raises:
            TypeError: if labels are neither whole numbers nor strings, or a network of one's own
                returns something that has no features.
            ValueError: if there is no example, a label is outside ``classes``, or an input is not
                finite or of another form than before.
            FloatingPointError: if the loss is not finite.
        """
        inputs, given = self._labelled(data, target)
        labels = self._labels_after(given, None if classes is None else as_labels(classes))
        rows = {label: row for row, label in enumerate(labels)}
        split = Labelled(inputs, torch.tensor([rows[label] for label in given]))
        self._state, report = learn_task(
            self._state,
            split,
            len(labels) - len(self._labels),
            steps=self._steps(len(split)),
            progress=progress,
        )
        self._labels = labels
        self.reports.append(report)
        return self

    def _labelled(self, data: Any, target: Any) -> tuple[Inputs, list[Label]]:
        state = self._state
        return labelled_examples(data, target, state.blank, keep_integers=state.takes_integers)

    def _labels_after(self, given: list[Label], classes: list[Label] | None) -> list[Label]:
        """Return all labels after a task, in order of arrival."""
        found = set(given)
        if classes is None:
            classes = sorted(found, key=lambda label: (isinstance(label, str), label))
        elif len(set(classes)) < len(classes):
            raise ValueError(f"classes must name each class once; got {classes}")
        outside = sorted(map(repr, found - set(classes)))
        if outside:
            raise ValueError(f"labels {', '.join(outside)} are not among the task's classes")
        empty = [label for label in classes if label not in found]
        if empty:
            raise ValueError(f"classes {empty} have no example in this task")
        return [*self._labels, *(label for label in classes if label not in self._labels)]

    def _steps(self, num_examples: int) -> int:
        if self.epochs is None:
            return self.config.task_steps(len(self._state.sizes))
        batch = self.config.training.batch_size
        return self.epochs * math.ceil((num_examples + len(self._state.memory)) / batch)

    # -- what it knows ----------------------------------------------------------------------------

    @property
    def classes(self) -> list[Label]:
        """The classes seen, in order of arrival."""
        return list(self._labels)

    @property
    def memory(self) -> RehearsalMemory:
        """The exemplars; their labels are places in :attr:`classes`."""
        return self._state.memory

    @property
    def model(self) -> Classifier:
        """The trained network, before any bias correction; a row per class of :attr:`classes`."""
        return self._state.trained

    def predict_log_prob(self, inputs: Any, *, predictor: Predictor | None = None) -> Tensor:
        """Return (N, K) log-probabilities of the :attr:`classes`.

        Args:
            inputs: of the form of those learned.
            predictor: ``"classifier"`` or ``"nearest-mean"``; the method's own if None.

        Raises:
            ValueError: if nothing was learned yet, an input does not fit, the predictor is unknown,
                or a class has no exemplar whose mean could be taken.
        """
        if predictor is not None:
            check_choice("predictor", predictor, PREDICTORS)
        examples = as_inputs(inputs, self._state.blank, keep_integers=self._state.takes_integers)
        return self._state.log_prob(self._state.trained.features_of(examples), predictor)

    def predict(self, inputs: Any, *, predictor: Predictor | None = None) -> Tensor | list[Label]:
        """Return the N predicted labels: an int64 tensor, or a list if a label is a string.

        Args:
            inputs: see :meth:`predict_log_prob`.
            predictor: see there.
        """
        rows = self.predict_log_prob(inputs, predictor=predictor).argmax(dim=-1)
        if any(isinstance(label, str) for label in self._labels):
            return [self._labels[row] for row in rows.tolist()]
        return torch.tensor(self._labels)[rows]

    def score(self, inputs: Any, target: Any = None) -> float:
        """Return the accuracy, among all classes seen, on examples given as for :meth:`learn`.

        An example of a class that was not learned counts as wrong.
        """
        inputs, given = self._labelled(inputs, target)
        rows = self.predict_log_prob(inputs).argmax(dim=-1).tolist()
        right: int = sum(self._labels[row] == label for row, label in zip(rows, given, strict=True))
        return right / len(given)

    # -- files ------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write the learner, with its memory, to a folder; return the folder.

        Raises:
            ValueError: if nothing was learned yet, or the folder is a run's, which holds a learner
                of its own.
        """
        if (Path(path) / TASKS_FOLDER).is_dir():
            raise ValueError(f"{path} holds a run over tasks; save the learner to another folder")
        save_state(self._state, Path(path), self._labels, epochs=self.epochs)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, *, backbone: nn.Module | None = None) -> Self:
        """Read a learner that was saved, or the one that ``lastlayer learn`` left in a run.

        Args:
            path: the folder, or the run's.
            backbone: the network it was built with, if that was not given by name.

        Returns:
            A learner that predicts, and goes on learning, as the saved one would.

        Raises:
            FileNotFoundError: if there is none, or the run is not finished.
            ValueError: if a file is damaged, the memory is of other classes than the model, or
                ``backbone`` is missing or not needed.
        """
        folder = Path(path)
        if (folder / TASKS_FOLDER).is_dir():
            run = IncrementalRun(folder)
            run.summary()  # refuses a run that is not finished
            folder = run.learner
        state, labels, epochs = load_state(folder, backbone=backbone)
        learner = cls.__new__(cls)
        learner.config, learner._state, learner._labels = state.config, state, labels
        learner.epochs, learner.reports = epochs, []
        return learner
