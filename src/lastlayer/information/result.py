"""What an estimate of information is: a value, its error, and what there is to know about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from lastlayer._checks import check_inside


@dataclass(frozen=True)
class InformationEstimate:
    """An estimate of the mutual information of input and label.

    Attributes:
        value: nats; not clipped, so that it may be negative.
        standard_error: nats; NaN from a single example or where the value is infinite.
        n: number of examples.
        kind: how it was estimated.
        notes: what the reader should know, one sentence each.

    Example:
        >>> estimate = InformationEstimate(1.0, 0.01, n=5000, kind="pc-softmax")
        >>> print(estimate)
        1.0000 ± 0.0100 nats (1.4427 bits), pc-softmax, n = 5000
        >>> [round(end, 4) for end in estimate.interval()]
        [0.9804, 1.0196]
    """

    value: float
    standard_error: float
    n: int
    kind: str
    notes: tuple[str, ...] = ()

    @property
    def bits(self) -> float:
        """The value in bits."""
        return self.value / math.log(2)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the normal interval of the value, in nats.

        It speaks of the draw of the examples: the bound that is estimated may itself lie below the
        mutual information by any amount.

        Args:
            confidence: coverage in (0, 1).

        Returns:
            Its lower and upper end; infinite where there is no standard error.

        Raises:
            ValueError: if ``confidence`` is outside (0, 1).
        """
        check_inside("confidence", confidence, 0.0, 1.0)
        if math.isnan(self.standard_error):
            return -math.inf, math.inf
        half = NormalDist().inv_cdf((1 + confidence) / 2) * self.standard_error
        return self.value - half, self.value + half

    def __str__(self) -> str:
        return (
            f"{self.value:.4f} ± {self.standard_error:.4f} nats ({self.bits:.4f} bits), "
            f"{self.kind}, n = {self.n}"
        )
