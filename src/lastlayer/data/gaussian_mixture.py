"""The five-Gaussian task: normal classes whose information about their label is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lastlayer._checks import check_count, check_last_dim, check_positive, check_prior, check_whole
from lastlayer.data.sources import SOURCES, Examples, Raw

#: Means of the five classes, and how often each occurs where they are not balanced.
FIVE_MEANS = (0.0, 2.0, -2.0, 4.0, -4.0)
UNBALANCED_COUNTS = (5_000, 10_000, 15_000, 20_000, 25_000)
TEST_FRACTION = 0.2


class Sample(NamedTuple):
    """Independent pairs.

    Attributes:
        x: observations, (n, d) float32, or (n,) int64 symbols.
        y: what they tell something about: (n,) int64 labels, or (n, 1) float32 values.
    """

    x: Tensor
    y: Tensor


class GaussianClasses:
    r"""Labels y and normal inputs, :math:`x \mid y \sim N(m_y \mathbf 1_d, s_y^2 I_d)`.

    Only the projection of x on the direction of ones tells labels of equal scale apart, hence

    .. math:: I(X; Y) = \sum_k \pi_k \int N(t; \sqrt d\, m_k, s_k^2)
        \log \frac{N(t; \sqrt d\, m_k, s_k^2)}{\sum_j \pi_j N(t; \sqrt d\, m_j, s_j^2)}\, dt

    by quadrature.

    Args:
        means: the K numbers :math:`m_y`.
        prior: the K label probabilities; equal ones if None.
        scales: the K standard deviations :math:`s_y > 0`; 1 if None. Different ones need d = 1.
        dim: d >= 1.

    Raises:
        ValueError: if a length, a probability, a scale or the dimension does not fit.

    Example:
        >>> task = GaussianClasses(means=(-1.0, 1.0))
        >>> round(task.mutual_information, 6)
        0.336831
        >>> task.sample(3, seed=0).x.shape
        torch.Size([3, 1])
    """

    def __init__(
        self,
        means: Sequence[float],
        *,
        prior: Sequence[float] | None = None,
        scales: Sequence[float] | None = None,
        dim: int = 1,
    ) -> None:
        check_count("dim", dim)
        num_classes = len(means)
        shares = [1 / num_classes] * num_classes if prior is None else prior
        self.means = torch.tensor(means, dtype=torch.float64)
        self.prior = torch.tensor(shares, dtype=torch.float64)
        self.scales = torch.tensor([1.0] * num_classes if scales is None else scales).double()
        self.dim = dim
        check_prior("prior", self.prior, num_classes)
        check_last_dim("scales", self.scales, num_classes)
        for scale in self.scales.tolist():
            check_positive("every scale", scale)
        if dim > 1 and len(set(self.scales.tolist())) > 1:
            raise ValueError(
                f"dim must be 1 for classes of different scales, whose inputs' length tells them "
                f"apart as well; got {dim}"
            )

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return len(self.means)

    def sample(self, n: int, seed: int) -> Sample:
        """Draw (n, d) float32 inputs and (n,) labels."""
        check_count("n", n)
        generator = torch.Generator().manual_seed(seed)
        y = torch.multinomial(self.prior, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        x = self.means[y].unsqueeze(-1) + self.scales[y].unsqueeze(-1) * noise
        return Sample(x.float(), y)

    def log_likelihood(self, x: Tensor) -> Tensor:
        r"""Return :math:`\log p(x \mid y)` of every class: the oracle's logits.

        Args:
            x: (n, d) inputs.

        Returns:
            (n, K) float64.
        """
        check_last_dim("x", x, self.dim)
        offset = x.double().unsqueeze(-2) - self.means.unsqueeze(-1)
        distance = (offset / self.scales.unsqueeze(-1)).square().sum(dim=-1)
        return -0.5 * distance - self.dim * (self.scales.log() + 0.5 * math.log(2 * math.pi))

    @cached_property
    def mutual_information(self) -> float:
        """I(X; Y) in nats."""
        from scipy.integrate import quad_vec

        centers = math.sqrt(self.dim) * self.means.numpy()
        scales, prior = self.scales.numpy(), self.prior.numpy()
        occurring = prior > 0
        centers, scales, prior = centers[occurring], scales[occurring], prior[occurring]
        log_prior = np.log(prior)

        def information_at(u: float) -> float:
            """Return the integrand at u standard deviations from every center."""
            points = centers + scales * u
            standard = (points[:, None] - centers) / scales
            log_density = -0.5 * standard**2 - np.log(scales)
            mixture = np.logaddexp.reduce(log_density + log_prior, axis=1)
            pointwise = np.diagonal(log_density) - mixture
            weight = math.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
            return float(weight * (prior @ pointwise))

        value, _ = quad_vec(information_at, -12.0, 12.0, epsabs=1e-12, epsrel=1e-12, limit=2000)
        return float(value)


def gaussian_mixture(dim: int = 1, *, balanced: bool = True) -> GaussianClasses:
    r"""Five classes, :math:`x \mid y \sim N(m_y \mathbf 1_d, I_d)`, :math:`m = (0, 2, -2, 4, -4)`.

    Args:
        dim: d >= 1; 1, 2, 5 and 10 in the paper.
        balanced: equal label probabilities, or those of the counts 5, 10, 15, 20 and 25 thousand.

    Returns:
        The task.

    Example:
        >>> round(gaussian_mixture(2, balanced=False).mutual_information, 6)
        1.239283

    Source: Qin, Kim and Gedeon, "Rethinking softmax with cross-entropy", arXiv 1911.10688 (its
    released code).
    """
    total = sum(UNBALANCED_COUNTS)
    prior = None if balanced else [count / total for count in UNBALANCED_COUNTS]
    return GaussianClasses(FIVE_MEANS, prior=prior, dim=dim)


@SOURCES.register(
    "gaussian-mixture", description="five normal classes in d dimensions; information known"
)
def gaussian_mixture_source(
    data_dir: Path | None = None,
    *,
    d: int = 1,
    balanced: bool = True,
    n: int = 50_000,
    sample_seed: int = 0,
) -> Raw:
    """Draw the five-Gaussian task; the notes say how much its inputs tell about the labels.

    Args:
        data_dir: not used.
        d: number of dimensions, at least 1.
        balanced: equal label probabilities, or 1 : 2 : 3 : 4 : 5.
        n: number of training examples, at least 5; a fifth as many test examples come on top.
        sample_seed: fixes the draw, whatever the seed of the run.

    Returns:
        Training and test examples.
    """
    check_whole("n", n, len(FIVE_MEANS))
    task = gaussian_mixture(d, balanced=balanced)
    everything = Examples(*task.sample(n + round(TEST_FRACTION * n), sample_seed))
    return Raw(
        train=Examples(everything.inputs[:n], everything.target[:n]),
        test=Examples(everything.inputs[n:], everything.target[n:]),
        class_names=tuple(f"mean {mean:g}" for mean in FIVE_MEANS),
        kind="vector",
        notes=(f"I(X; Y) = {task.mutual_information:.6f} nats, by quadrature.",),
    )
