"""The rehearsal memory: some examples of the classes seen so far."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lastlayer._checks import check_choice, check_class_indices, check_labels, check_whole
from lastlayer._inputs import Inputs, form, map_inputs, num_examples, take
from lastlayer.incremental.exemplar_choice import SELECTIONS, Candidates
from lastlayer.incremental.memory_file import Label, read_memory, write_memory


class RehearsalMemory:
    r"""Examples of the classes seen so far, to be learned again beside the new ones.

    After each task :meth:`update` chooses exemplars of its classes:

    - ``"herding"``: those whose mean is near the class's mean of features, in the order of
      :func:`~lastlayer.functional.incremental.herding_order`;
    - ``"random"``: the first in a random order of the class, which is fixed by the seed, the class
      and how many of its examples came before, not by the batches in which they came;
    - ``"reservoir"``: a classical reservoir over the examples as they come, one for each class with
      ``per_class``, else one over all of them, which keeps frequent classes' examples more often.

    With a total budget every seen class gets ``total // number of seen classes``, and old classes
    keep the front of their selection; the remainder stays unused, and below one example a class
    nothing is kept. (A reservoir over all examples uses its whole budget.) A class with
    fewer examples than that keeps them all. Seen is a class that had an example.

    A class seen again is chosen anew from what was kept and the new examples together: by herding
    toward the mean of these, for the rest is gone; ``"random"`` and ``"reservoir"`` come out as
    if all its examples had come at once.

    Labels are the rows of the head, in the order in which the classes arrived. Exemplars are held
    on the CPU, by class and in the order of selection; those of a reservoir over all examples, in
    the order of its places.

    Args:
        per_class: exemplars for each class, at least 0; 0 is learning without memory.
        total: exemplars in all, at least 0. Give this or ``per_class``; for a memory of everything
            see :meth:`unlimited`.
        selection: ``"herding"``, ``"random"`` or ``"reservoir"``.
        seed: fixes the random choices, at least 0.

    Raises:
        ValueError: if an argument is out of range, or not exactly one budget is given.

    Example:
        >>> memory = RehearsalMemory(total=4, selection="random")
        >>> memory.update(torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 1, 1]))
        >>> memory.update(torch.randn(3, 3), torch.tensor([2, 2, 3]))
        >>> memory.target
        tensor([0, 1, 2, 3])
        >>> memory.counts(5)
        tensor([1, 1, 1, 1, 0])

    Source: Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017;
    the reservoir: Vitter, "Random Sampling with a Reservoir", ACM Transactions on Mathematical
    Software 1985.
    """

    def __init__(
        self,
        *,
        per_class: int | None = None,
        total: int | None = None,
        selection: str = "herding",
        seed: int = 0,
    ) -> None:
        if (per_class is None) == (total is None):
            raise ValueError(
                "per_class or total must be given, and not both (RehearsalMemory.unlimited() keeps "
                f"everything); got per_class={per_class!r} and total={total!r}"
            )
        for name, size in (("per_class", per_class), ("total", total)):
            if size is not None:
                check_whole(name, size, 0)
        check_choice("selection", selection, SELECTIONS)
        check_whole("seed", seed, 0)
        self.per_class = None if per_class is None else int(per_class)
        self.total = None if total is None else int(total)
        self.selection, self.seed = selection, int(seed)
        self._inputs: Inputs | None = None
        self._target = torch.empty(0, dtype=torch.int64)
        self._arrival = torch.empty(0, dtype=torch.int64)
        self._seen: dict[int, int] = {}

    @classmethod
    def unlimited(cls) -> RehearsalMemory:
        """Return a memory that keeps every example, for joint training on all tasks so far."""
        memory = cls(per_class=0)
        memory.per_class = None
        return memory

    # -- what is held -----------------------------------------------------------------------------

    @property
    def inputs(self) -> Inputs:
        """A copy of the exemplars' inputs, m rows; of shape (0,) before any example came."""
        return torch.empty(0) if self._inputs is None else map_inputs(torch.clone, self._inputs)

    @property
    def target(self) -> Tensor:
        """A copy of the exemplars' (m,) int64 labels."""
        return self._target.clone()

    @property
    def arrival(self) -> Tensor:
        """(m,) int64: as which example of its class, from 0, each exemplar came; a copy."""
        return self._arrival.clone()

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes seen so far, in ascending order; of some there may be no exemplar."""
        return tuple(sorted(self._seen))

    @property
    def num_seen(self) -> dict[int, int]:
        """How many examples of each class came, kept or not."""
        return {label: self._seen[label] for label in self.classes}

    def counts(self, num_classes: int) -> Tensor:
        """Return (num_classes,) int64, how many exemplars each class has.

        Raises:
            ValueError: if an exemplar's label is not below ``num_classes``.
        """
        check_whole("num_classes", num_classes, 1)
        check_class_indices(self._target, num_classes)
        return torch.bincount(self._target, minlength=num_classes)

    def __len__(self) -> int:
        return len(self._target)

    def __repr__(self) -> str:
        """Return the arguments and what is held."""
        held = f"{len(self)} examples of {len(self._seen)} classes"
        if self.per_class is None and self.total is None:
            return f"RehearsalMemory.unlimited(): {held}"
        budget = f"total={self.total}" if self.per_class is None else f"per_class={self.per_class}"
        return f"RehearsalMemory({budget}, selection={self.selection!r}, seed={self.seed}): {held}"

    # -- a task -----------------------------------------------------------------------------------

    def update(
        self,
        inputs: Inputs,
        target: Tensor,
        features: Tensor | None = None,
        classes: Iterable[int] | None = None,
        *,
        memory_features: Tensor | None = None,
    ) -> None:
        """Take up a task's examples; if something does not fit the memory stays as it was.

        Args:
            inputs: N rows of a tensor, of every tensor of a tuple, or of a mapping of names to
                tensors; of one form over all tasks. No example at all changes nothing.
            target: (N,) int64 labels of at least 0.
            features: (N, D) features by which herding chooses; not needed otherwise.
            classes: the task's classes; a label outside is refused. None for any.
            memory_features: (m, D) features of ``inputs`` of this memory by the same network, which
                herding needs for a class that is seen again.

        Raises:
            TypeError: if a dtype does not fit.
            ValueError: if a shape or a label does not fit, or features are missing.
        """
        self._check_task(inputs, target, classes)
        if not len(target):
            return
        inputs, target = map_inputs(lambda part: part.detach().cpu(), inputs), target.cpu()
        candidates = Candidates(
            self._target, self._arrival, target, self._seen, features, memory_features
        )
        seen = candidates.num_seen()
        if self.total is not None and self.selection == "reservoir":
            chosen = candidates.choose_of_all(self.total, self.seed)
        else:
            quota = self.per_class if self.total is None else self.total // len(seen)
            chosen = candidates.choose_by_class(quota, self.selection, self.seed)
        if self._inputs is None:
            self._inputs = take(inputs, chosen)
        else:
            gather = partial(_gather, index=chosen)
            self._inputs = map_inputs(gather, self._inputs, inputs)
        self._target = torch.cat((self._target, target))[chosen]
        self._arrival = torch.cat((self._arrival, candidates.new_arrival()))[chosen]
        self._seen = seen

    def _check_task(self, inputs: Inputs, target: Tensor, classes: Iterable[int] | None) -> None:
        check_labels("target", target, num_examples(inputs))
        if target.dtype != torch.int64:
            raise TypeError(f"target must hold int64 class indices; got dtype {target.dtype}")
        given = set(target.tolist())
        allowed = given if classes is None else {int(label) for label in classes}
        outside = sorted(given - allowed) or sorted(label for label in given if label < 0)
        if outside:
            wanted = "at least 0" if classes is None else f"among classes {sorted(allowed)}"
            raise ValueError(f"target must hold labels {wanted}; got {outside[0]}")
        held = self._inputs
        if held is not None and given and form(held) != form(inputs):
            raise ValueError(f"inputs must be {form(held)} each, as those held; got {form(inputs)}")

    # -- files ------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, class_order: Sequence[Label]) -> None:
        """Write the memory to one safetensors file, whole or not at all.

        Args:
            path: the file.
            class_order: the classes' own labels in order of arrival, whole numbers or strings, one
                for each row of the head: what the labels here are indices of.

        Raises:
            ValueError: if a label has no place in ``class_order``, or it names a class twice.
        """
        write_memory(
            Path(path),
            self.inputs,
            {"target": self._target, "arrival": self._arrival},
            {
                "per_class": self.per_class,
                "total": self.total,
                "selection": self.selection,
                "seed": self.seed,
                "num_seen": {str(label): count for label, count in self.num_seen.items()},
            },
            class_order,
        )

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, class_order: Sequence[Label] | None = None
    ) -> RehearsalMemory:
        """Read a memory that :meth:`save` wrote; it goes on to the same bits.

        Args:
            path: the file.
            class_order: what the file's order of classes must be; None for any.

        Raises:
            FileNotFoundError: if there is no file.
            ValueError: if the file is truncated, corrupt or of another kind, or its classes came in
                another order.
        """
        inputs, tensors, state = read_memory(Path(path), class_order)
        if state["per_class"] is None and state["total"] is None:
            memory = cls.unlimited()
        else:
            memory = cls(
                per_class=state["per_class"],
                total=state["total"],
                selection=state["selection"],
                seed=state["seed"],
            )
        memory._seen = {int(label): count for label, count in state["num_seen"].items()}
        memory._inputs = inputs if memory._seen else None
        memory._target, memory._arrival = tensors["target"], tensors["arrival"]
        return memory


def _gather(held: Tensor, new: Tensor, index: Tensor) -> Tensor:
    """Return rows of two tensors by an index into both, without joining them first."""
    rows = new.new_empty((len(index), *new.shape[1:]))
    old = index < len(held)
    rows[old] = held[index[old]]
    rows[~old] = new[index[~old] - len(held)]
    return rows
