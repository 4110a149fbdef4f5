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

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from lastlayer._checks import check_choice, check_count, check_probability, check_whole
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
    """An ordinary torch sampler that draws class first; give it to a ``DataLoader``.

    The draws of an epoch depend on the seed and the epoch alone. With several processes each is
    given every ``world_size``-th of the same draws, so that together they draw what one would.

    Args:
        labels: (N,) int64 labels of the data set, N >= 1.
        sampler: one of ``"class-balanced"``, ``"square-root"``, ``"progressive"``.
        num_samples: draws per epoch over all processes; N if None. A multiple of ``world_size`` is
            drawn, rounded up, so that every process has the same number.
        epochs: length of the training, which ``"progressive"`` needs: its first epoch has t = 0,
            its last one t = 1.
        seed: fixes the draws.
        rank: number of this process.
        world_size: number of processes.

    Attributes:
        epoch: the current epoch, from 0; ``set_epoch`` sets it, as for torch's distributed sampler.

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> labels = torch.tensor([0] * 90 + [1] * 10)
        >>> sampler = ClassSampler(labels, "class-balanced", num_samples=1000)
        >>> round(float(labels[list(sampler)].float().mean()), 1)
        0.5

    Source: Kang et al., "Decoupling representation and classifier for long-tailed recognition",
    ICLR 2020.
    """

    def __init__(
        self,
        labels: Tensor,
        sampler: str = "class-balanced",
        *,
        num_samples: int | None = None,
        epochs: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_choice("sampler", sampler, SAMPLERS)
        check_whole("seed", seed, 0)
        check_count("world_size", world_size)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in [0, {world_size - 1}]; got {rank}")
        if num_samples is not None:
            check_count("num_samples", num_samples)
        if sampler == "progressive":
            check_count("epochs", 0 if epochs is None else epochs)
        self.sampler, self.epochs, self.seed = sampler, epochs, seed
        self.rank, self.world_size = rank, world_size
        self._draw = ClassDraw(labels)
        self._per_process = -(-(num_samples or len(labels)) // world_size)
        self.epoch = 0
        self._position = 0

    def __len__(self) -> int:
        return self._per_process

    def __iter__(self) -> Iterator[int]:
        start, self._position = self._position, 0
        size = self._per_process * self.world_size
        words = np.random.SeedSequence([self.seed, self.epoch]).generate_state(2, dtype=np.uint32)
        generator = torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))
        prior = sampling_prior(self._draw.counts, self.sampler, self.progress)
        drawn = self._draw(size, prior, generator)[self.rank :: self.world_size].tolist()
        for position in range(start, len(drawn)):
            self._position = position + 1
            yield drawn[position]
        self._position = 0

    @property
    def progress(self) -> float:
        """Share of the training that is done at the current epoch: t of ``"progressive"``."""
        if self.epochs is None:
            return 0.0
        return min(1.0, self.epoch / max(1, self.epochs - 1))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration draws."""
        check_whole("epoch", epoch, 0)
        self.epoch, self._position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and how many of its draws were handed out.

        A loader hands out ahead of the training; at the end of an epoch both agree.
        """
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.epoch, self._position = int(state_dict["epoch"]), int(state_dict["position"])
