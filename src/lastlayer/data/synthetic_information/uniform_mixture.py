"""Overlapping uniform inputs of discrete labels."""

from __future__ import annotations

import math

import torch

from lastlayer._checks import check_count
from lastlayer.data.synthetic_information.task import InformationTask, Sample, seeded


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
