r"""Samplers that draw classes more evenly than the data have them.

A class is drawn with probability :math:`\rho_j`, then one of its examples, with replacement:

- ``"class-balanced"``: :math:`\rho_j = 1 / K`,
- ``"square-root"``: :math:`\rho_j \propto \sqrt{n_j}`,
- ``"progressive"``: :math:`\rho_j = (1 - t)\, n_j / n + t / K`, where t goes from 0 to 1 over the
  training.

Together with a loss that corrects the prior they correct twice; see
:class:`lastlayer.functional.PriorCorrection`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from lastlayer._checks import (
    as_label_tensor,
    check_choice,
    check_count,
    check_labels,
    check_probability,
    check_whole,
)
from lastlayer.functional.class_priors import as_class_counts
from lastlayer.functional.meta_sampling import draw_examples, group_by_class
from lastlayer.longtail.counts import class_counts

SAMPLERS = ("class-balanced", "square-root", "progressive")


def sampling_prior(
    class_counts: Tensor | Sequence[int], sampler: str, progress: float = 0.0
) -> Tensor:
    r"""Return the probability with which a sampler draws each class.

    Args:
        class_counts: (K,) examples of each class; a class without any is never drawn.
        sampler: ``"instance"`` (as the data are), or one of :data:`SAMPLERS`.
        progress: t, share of the training that is done, in [0, 1]; for ``"progressive"``.

    Returns:
        (K,) float64 probabilities :math:`\rho`.

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> sampling_prior([90, 10], "square-root").tolist()
        [0.75, 0.25]
        >>> sampling_prior([90, 10], "progressive", 0.5).round(decimals=3).tolist()
        [0.7, 0.3]

    Source: Kang et al., "Decoupling representation and classifier for long-tailed recognition",
    ICLR 2020.
    """
    check_choice("sampler", sampler, ("instance", *SAMPLERS))
    check_probability("progress", progress)
    counts = as_class_counts(class_counts, zero_counts="mask").double().cpu()
    there = (counts > 0).double()
    even, own = there / there.sum(), counts / counts.sum()
    if sampler == "instance":
        return own
    if sampler == "class-balanced":
        return even
    if sampler == "square-root":
        return counts.sqrt() / counts.sqrt().sum()
    return (1.0 - progress) * own + progress * even


class ClassDraw:
    """Draw examples class first, from labels that are sorted once.

    Args:
        labels: (N,) int64 labels, N >= 1, on the device of the draws.
        num_classes: K; the largest label plus 1 if None.

    Example:
        >>> draw = ClassDraw(torch.tensor([0, 0, 0, 1]))
        >>> index = draw(1000, torch.tensor([0.5, 0.5]), torch.Generator().manual_seed(0))
        >>> int((index == 3).sum())
        500
    """

    def __init__(self, labels: Tensor, num_classes: int | None = None) -> None:
        self.counts = class_counts(labels, num_classes)
        self._groups = group_by_class(labels, len(self.counts))

    def __call__(self, size: int, prior: Tensor, generator: torch.Generator) -> Tensor:
        """Return the indices of ``size`` examples drawn with replacement.

        Args:
            size: how many.
            prior: (K,) class probabilities; 0 for classes without an example.
            generator: source of the draw, on the labels' device.

        Returns:
            (size,) int64 indices.
        """
        prior = prior.to(generator.device)
        classes = torch.multinomial(prior, size, replacement=True, generator=generator)
        return self.of_classes(classes, generator)

    def of_classes(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """Return the indices of one example of each given class, drawn within the class.

        Args:
            classes: (B,) int64 classes that have an example.
            generator: source of the draw, on the labels' device.

        Returns:
            (B,) int64 indices.
        """
        return draw_examples(self._groups, classes, generator=generator)


class ClassSampler(Sampler[int]):
    r"""An ordinary torch sampler that draws class first; give it to a ``DataLoader``.

    Every iteration draws a new epoch: iterating moves on to the next one, whether the one before
    was used up, broken off or only peeked at. :meth:`set_epoch` fixes the epoch of the next
    iteration, and later ones count on from it; a loop that calls it before every epoch, as for
    torch's distributed sampler, decides all of them. Only :meth:`load_state_dict` makes an
    iteration begin in the middle.

    The draws of an epoch depend on the seed and the epoch alone, or on the ``generator``. With
    several processes each is given every ``world_size``-th of the same draws, so that together they
    draw what one would.

    Up to the order of random numbers it is torch's ``WeightedRandomSampler`` with the weight
    :math:`\rho_y / n_y` of each example. That one draws among the N examples, of which
    ``torch.multinomial`` takes 2^24 at most; this one draws among the K classes first, for any N.

    Args:
        labels: (N,) integer labels of the data set, N >= 1: a tensor, an array or a list.
        sampler: one of ``"class-balanced"``, ``"square-root"``, ``"progressive"``.
        num_samples: draws per epoch over all processes; N if None. A multiple of ``world_size`` is
            drawn, rounded up, so that every process has the same number.
        epochs: length of the training, which ``"progressive"`` needs: its first epoch has t = 0,
            its last one t = 1, and so have those that follow.
        seed: fixes the draws.
        generator: source of the draws instead, on the CPU; with several processes, in the same
            state in each.
        rank: number of this process.
        world_size: number of processes.

    Attributes:
        epoch: the epoch that the next iteration draws, from 0.

    Raises:
        TypeError: if the labels are not integers.
        ValueError: if an argument is out of range, or both a seed and a generator are given.

    Examples:
        >>> labels = torch.tensor([0] * 90 + [1] * 10)
        >>> sampler = ClassSampler(labels, "class-balanced", num_samples=1000)
        >>> round(float(labels[list(sampler)].float().mean()), 1)
        0.5
        >>> sampler.epoch
        1

    Source: Kang et al., "Decoupling representation and classifier for long-tailed recognition",
    ICLR 2020.
    """

    def __init__(
        self,
        labels: Tensor | Sequence[int],
        sampler: str = "class-balanced",
        *,
        num_samples: int | None = None,
        epochs: int | None = None,
        seed: int = 0,
        generator: torch.Generator | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_choice("sampler", sampler, SAMPLERS)
        check_whole("seed", seed, 0)
        check_count("world_size", world_size)
        check_whole("rank", rank, 0, world_size - 1)
        if seed and generator is not None:
            raise ValueError(f"give seed or generator, not both; got seed={seed} and a generator")
        if num_samples is not None:
            check_count("num_samples", num_samples)
        if sampler == "progressive":
            check_count("epochs", 0 if epochs is None else epochs)
        self.sampler, self.seed, self.generator = sampler, int(seed), generator
        self.epochs = None if epochs is None else int(epochs)
        self.rank, self.world_size = int(rank), int(world_size)
        labels = as_label_tensor("labels", labels).cpu()
        check_labels("labels", labels, labels.numel())
        if not len(labels):
            raise ValueError("labels must hold at least one example; got none")
        self._draw = ClassDraw(labels.long())
        self._checksum = zlib.crc32(labels.long().numpy().tobytes())
        self._per_process = int(-(-(num_samples or len(labels)) // world_size))
        self.epoch = 0
        self._start = 0  # place in the next epoch at which it begins
        self._state = _State(0, 0)

    def __len__(self) -> int:
        return self._per_process

    def __iter__(self) -> Iterator[int]:
        # A generator: torch's loader may ask for an iterator that it never uses.
        epoch, start = self.epoch, self._start
        self.epoch, self._start = epoch + 1, 0
        before = None if self.generator is None else self.generator.get_state()
        drawn = self._draws(epoch)
        for position in range(start, len(drawn)):
            done = position + 1 == len(drawn)
            self._state = _State(epoch + 1, 0) if done else _State(epoch, position + 1, before)
            yield drawn[position]

    def _draws(self, epoch: int) -> list[int]:
        """Return what this process draws in an epoch."""
        generator = self.generator
        if generator is None:
            words = np.random.SeedSequence([self.seed, epoch]).generate_state(2, dtype=np.uint32)
            generator = torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))
        prior = sampling_prior(self._draw.counts, self.sampler, self._progress(epoch))
        drawn = self._draw(self._per_process * self.world_size, prior, generator)
        return drawn[self.rank :: self.world_size].tolist()

    @property
    def progress(self) -> float:
        """Share of the training that is done before the next epoch: t of ``"progressive"``."""
        return self._progress(self.epoch)

    def _progress(self, epoch: int) -> float:
        return 0.0 if self.epochs is None else min(1.0, epoch / max(1, self.epochs - 1))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration draws, from its beginning.

        The epoch of a loaded state is taken up where that was taken; so a loop may set it.
        """
        check_whole("epoch", epoch, 0)
        if epoch == self.epoch and self._start:
            return
        self.epoch, self._start = int(epoch), 0
        self._state = _State(self.epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and how many of its draws were handed out, of the latest iteration.

        With them comes what the draws depend on, so that no other sampler goes on from there. Of a
        generator it holds the state from which these were drawn. A loader hands out ahead of the
        training; at the end of an epoch both agree.
        """
        epoch, position, before = self._state
        state = self._made_of() | {"epoch": epoch, "position": position}
        if self.generator is not None:
            state["generator"] = self.generator.get_state() if before is None else before
        return state

    def _made_of(self) -> dict[str, Any]:
        """Return what the draws depend on beside the epoch and the generator."""
        return {
            "sampler": self.sampler,
            "seed": None if self.generator is not None else self.seed,
            "num_samples": self._per_process * self.world_size,
            "epochs": self.epochs if self.sampler == "progressive" else None,
            "world_size": self.world_size,
            "checksum of the labels": self._checksum,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken, with the next iteration.

        Raises:
            ValueError: if the state is of a sampler that draws otherwise: of other labels or
                arguments, with or without a generator.
        """
        made_of = self._made_of()
        if missing := sorted({"epoch", "position", *made_of} - state_dict.keys()):
            raise ValueError(f"state_dict is not of a ClassSampler: it lacks {', '.join(missing)}")
        before = state_dict.get("generator")
        if (before is None) != (self.generator is None):
            has, wanted = ("a", "none") if before is not None else ("no", "one")
            raise ValueError(f"the state has {has} generator, this sampler {wanted}")
        for name, own in made_of.items():
            if state_dict[name] != own:
                raise ValueError(
                    f"the state is of a sampler with {name} {state_dict[name]!r}; this one has "
                    f"{own!r}"
                )
        if self.generator is not None and before is not None:
            self.generator.set_state(before)
        self.epoch, self._start = int(state_dict["epoch"]), int(state_dict["position"])
        self._state = _State(self.epoch, self._start, before)


class _State(NamedTuple):
    """The epoch, how many of its draws were handed out, and the generator before they were drawn.

    Without a generator's state it is the generator's current one.
    """

    epoch: int
    position: int
    before: Tensor | None = None
