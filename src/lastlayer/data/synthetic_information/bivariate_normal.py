"""Two normal variables of known correlation, as they are or cut into equally likely bins."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lastlayer._checks import check_count, check_inside
from lastlayer.data.synthetic_information.task import InformationTask, Sample, seeded
from lastlayer.functional.information import mutual_information

Array = npt.NDArray[np.float64]

_FAR = 10.0  # standard deviations beyond which nothing is left
_NODES = 100  # of a Gauss-Legendre rule on every bin


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
        centred = (_edges(bins) - self.correlation * x[..., None]) / residual
        probabilities: Array = np.diff(ndtr(centred), axis=-1)
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
