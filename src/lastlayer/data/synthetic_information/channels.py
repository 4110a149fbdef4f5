"""Finite joints: noisy channels between a label and the symbol that is seen of it."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_class_indices, check_count, check_probability, check_whole
from lastlayer.data.synthetic_information.task import InformationTask, Sample, seeded
from lastlayer.functional.information import mutual_information


class FiniteJoint(InformationTask):
    """Symbols and labels of a finite joint distribution.

    Args:
        joint: (X, Y) probabilities of sum 1.

    Raises:
        TypeError: if ``joint`` is not floating point.
        ValueError: if ``joint`` is no table of probabilities.

    Example:
        >>> FiniteJoint(torch.tensor([[0.5, 0.0], [0.0, 0.5]])).sample(2, seed=0).y.shape
        torch.Size([2])
    """

    def __init__(self, joint: Tensor) -> None:
        self._information = float(mutual_information(joint.double()))
        self.joint = joint.double()

    def sample(self, n: int, seed: int) -> Sample:
        """Draw (n,) symbols and (n,) labels, both int64."""
        check_count("n", n)
        cells = torch.multinomial(self.joint.flatten(), n, replacement=True, generator=seeded(seed))
        return Sample(cells // self.joint.shape[1], cells % self.joint.shape[1])

    def log_likelihood(self) -> Tensor:
        r"""Return the (X, Y) table of :math:`\log p(x \mid y)`: the oracle's logits by symbol."""
        return (self.joint / self.joint.sum(dim=0)).log()

    @property
    def mutual_information(self) -> float:
        """I(X; Y) in nats."""
        return self._information


def symmetric_channel(num_classes: int, error: float) -> FiniteJoint:
    r"""Uniform labels, seen as a wrong one with probability e, each wrong one alike.

    .. math:: I = \log K + (1 - e) \log (1 - e) + e \log \frac{e}{K - 1}

    Args:
        num_classes: K >= 2.
        error: e in [0, 1].

    Returns:
        The task.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> round(symmetric_channel(2, 0.11).mutual_information, 6)
        0.346632
    """
    check_whole("num_classes", num_classes, 2)
    check_probability("error", error)
    table = torch.full((num_classes, num_classes), error / (num_classes - 1), dtype=torch.float64)
    return FiniteJoint(table.fill_diagonal_(1 - error) / num_classes)


def erasure_channel(num_classes: int, erasure: float) -> FiniteJoint:
    r"""Uniform labels, seen as they are or, with probability e, not at all (symbol K).

    .. math:: I = (1 - e) \log K

    Args:
        num_classes: K >= 2.
        erasure: e in [0, 1].

    Returns:
        The task; it has K + 1 symbols.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> round(erasure_channel(2, 0.3).mutual_information, 6)
        0.485203
    """
    check_whole("num_classes", num_classes, 2)
    check_probability("erasure", erasure)
    seen = (1 - erasure) * torch.eye(num_classes, dtype=torch.float64)
    lost = torch.full((1, num_classes), erasure, dtype=torch.float64)
    return FiniteJoint(torch.cat((seen, lost)) / num_classes)


def flip_labels(target: Tensor, num_classes: int, error: float, seed: int) -> Tensor:
    """Pass labels through a symmetric channel: label noise of a known amount.

    Args:
        target: int64 class indices in [0, K), any shape.
        num_classes: K >= 2.
        error: probability of a wrong label, in [0, 1]; every wrong one is as likely.
        seed: fixes the noise.

    Returns:
        Labels of the same shape.

    Raises:
        TypeError: if ``target`` is not int64.
        ValueError: if a label or an argument is out of range.

    Example:
        >>> flip_labels(torch.tensor([0, 1, 1]), 2, error=1.0, seed=0)
        tensor([1, 0, 0])
    """
    check_whole("num_classes", num_classes, 2)
    check_probability("error", error)
    check_class_indices(target, num_classes)
    generator = seeded(seed)
    wrong = torch.rand(target.shape, generator=generator, dtype=torch.float64) < error
    shift = torch.randint(1, num_classes, target.shape, generator=generator)
    return torch.where(wrong, (target + shift) % num_classes, target)
