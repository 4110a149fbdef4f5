"""Tasks whose mutual information is known: what estimators of it are held against."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lastlayer._checks import (
    check_class_indices,
    check_count,
    check_inside,
    check_probability,
    check_whole,
)
from lastlayer.data.gaussian_mixture import GaussianClasses, Sample
from lastlayer.functional.information import mutual_information

Array = npt.NDArray[np.float64]

_FAR = 10.0  # standard deviations beyond which nothing is left
_NODES = 100  # of a Gauss-Legendre rule on every bin


class InformationTask(ABC):
    """A joint distribution that can be sampled and whose mutual information is known."""

    @abstractmethod
    def sample(self, n: int, seed: int) -> Sample:
        """Draw ``n`` pairs; the same seed gives the same pairs."""

    @property
    @abstractmethod
    def mutual_information(self) -> float:
        """I(X; Y) in nats, exact or by quadrature to 1e-9."""


def seeded(seed: int) -> torch.Generator:
    """Return a generator of the CPU's numbers."""
    return torch.Generator().manual_seed(seed)


class BivariateNormal(InformationTask):
    r"""Standard normal x and y of correlation :math:`\rho`, each of them cut into bins if wanted.

    .. math:: I = -\tfrac12 \log (1 - \rho^2)

    for both uncut; by quadrature otherwise. Bins are equally likely, so that two of them are the
    sign. A cut variable comes as the int64 index of its bin.

    Args:
        correlation: :math:`\rho` in (-1, 1).
        label_bins: number of bins of y, at least 2; None leaves it continuous.
        input_bins: number of bins of x, at least 2; None leaves it continuous.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> round(BivariateNormal(0.8).mutual_information, 6)
        0.510826
        >>> round(BivariateNormal(0.8, label_bins=2).mutual_information, 5)
        0.26658
    """

    def __init__(
        self,
        correlation: float,
        *,
        label_bins: int | None = None,
        input_bins: int | None = None,
    ) -> None:
        check_inside("correlation", correlation, -1.0, 1.0)
        for name, bins in (("label_bins", label_bins), ("input_bins", input_bins)):
            if bins is not None and bins < 2:
                raise ValueError(f"{name} must be at least 2, or None; got {bins}")
        self.correlation = correlation
        self.label_bins, self.input_bins = label_bins, input_bins

    def sample(self, n: int, seed: int) -> Sample:
        """Draw n pairs: (n, 1) float32 where continuous, (n,) int64 where cut."""
        check_count("n", n)
        first, second = torch.randn(2, n, generator=seeded(seed), dtype=torch.float64)
        residual = math.sqrt(1 - self.correlation**2)
        y = self.correlation * first + residual * second
        return Sample(_cut(first, self.input_bins), _cut(y, self.label_bins))

    @cached_property
    def mutual_information(self) -> float:
        """I(X; Y) in nats."""
        if self.label_bins is None and self.input_bins is None:
            return -0.5 * math.log1p(-(self.correlation**2))
        if self.label_bins is None or self.input_bins is None:
            return self._of_one_cut(self.label_bins or self.input_bins or 0)
        edges = np.clip(_edges(self.input_bins), -_FAR, _FAR)
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        half = np.diff(edges)[:, None] / 2
        x = edges[:-1, None] + half * (nodes + 1)
        density = np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi) * half * weights
        joint = (density[..., None] * self._bin_probabilities(x, self.label_bins)).sum(axis=1)
        return float(mutual_information(torch.from_numpy(joint)))

    def _of_one_cut(self, bins: int) -> float:
        """Return log(bins) - H(bin | the continuous one); either may be the continuous one."""
        from scipy.integrate import quad

        def remaining_entropy(x: float) -> float:
            p = self._bin_probabilities(np.array(x), bins)
            p = p[p > 0]
            return float(-(p * np.log(p)).sum() * math.exp(-0.5 * x * x))

        value, _ = quad(remaining_entropy, -_FAR, _FAR, epsabs=1e-11, epsrel=1e-11, limit=500)
        return math.log(bins) - float(value) / math.sqrt(2 * math.pi)

    def _bin_probabilities(self, x: Array, bins: int) -> Array:
        """Return the probabilities of y's bins at x, of shape (*x.shape, bins)."""
        from scipy.special import ndtr

        residual = math.sqrt(1 - self.correlation**2)
        centered = (_edges(bins) - self.correlation * x[..., None]) / residual
        probabilities: Array = np.diff(ndtr(centered), axis=-1)
        return probabilities


def _edges(bins: int) -> Array:
    """Return the bins + 1 ends of equally likely bins, the outer ones infinite."""
    from scipy.special import ndtri

    edges: Array = ndtri(np.linspace(0.0, 1.0, bins + 1))
    return edges


def _cut(values: Tensor, bins: int | None) -> Tensor:
    if bins is None:
        return values.float().unsqueeze(-1)
    return torch.bucketize(values, torch.from_numpy(_edges(bins)[1:-1]))


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


class UniformMixture(InformationTask):
    r"""Labels y < m, equally likely, and inputs uniform on an interval that overlaps the next.

    .. math:: x \mid y \sim U(y, y + 2), \qquad I = \log m - \frac{m - 1}{m} \log 2

    Args:
        num_classes: m >= 1.

    Raises:
        ValueError: if ``num_classes`` is below 1.

    Example:
        >>> round(UniformMixture(5).mutual_information, 6)
        1.05492
    """

    def __init__(self, num_classes: int = 5) -> None:
        check_count("num_classes", num_classes)
        self.num_classes = num_classes

    def sample(self, n: int, seed: int) -> Sample:
        """Draw (n, 1) float32 inputs and (n,) labels."""
        check_count("n", n)
        generator = seeded(seed)
        y = torch.randint(self.num_classes, (n,), generator=generator)
        x = y + 2 * torch.rand(n, generator=generator, dtype=torch.float64)
        return Sample(x.float().unsqueeze(-1), y)

    @property
    def mutual_information(self) -> float:
        """I(X; Y) in nats."""
        m = self.num_classes
        return math.log(m) - (m - 1) / m * math.log(2)


def two_gaussians(mean: float, *, share: float = 0.5) -> GaussianClasses:
    r"""Two classes, :math:`x \mid y = \pm 1 \sim N(\pm\mu, 1)`.

    Args:
        mean: :math:`\mu`.
        share: probability of the class at :math:`+\mu`, label 1.

    Returns:
        The task.

    Example:
        >>> round(two_gaussians(1.0, share=0.9).mutual_information, 5)
        0.14202
    """
    return GaussianClasses((-mean, mean), prior=(1 - share, share))


def scale_mixture(scale: float = 3.0) -> GaussianClasses:
    r"""Two balanced classes of equal mean, :math:`N(0, 1)` and :math:`N(0, s^2)`.

    Nothing linear in x tells them apart: information without correlation.

    Args:
        scale: s > 0.

    Returns:
        The task.

    Example:
        >>> round(scale_mixture().mutual_information, 6)
        0.186494
    """
    return GaussianClasses((0.0, 0.0), scales=(1.0, scale))
