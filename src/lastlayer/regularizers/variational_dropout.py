"""Variational dropout: Gaussian noise whose variance is learned per channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lastlayer._checks import check_choice
from lastlayer.functional.feature_noise import (
    KL_APPROXIMATIONS,
    log_uniform_kl,
    variational_dropout,
)
from lastlayer.functional.numerics import at_least_float32
from lastlayer.regularizers.adaptive import AdaptiveRegularizer


class VariationalDropout(AdaptiveRegularizer):
    r"""Multiply by :math:`N(1, \alpha_c)` with a learned :math:`\alpha_c` per channel.

    .. math:: \text{penalty} = \frac1N \sum_c \mathrm{KL}(\alpha_c), \qquad
        p_c = \frac{\alpha_c}{1 + \alpha_c}

    The mathematics is :func:`lastlayer.functional.feature_noise.variational_dropout` and
    :func:`lastlayer.functional.feature_noise.gaussian`.

    Args:
        num_features: number of channels C.
        num_examples: number of training examples N.
        p: initial rate :math:`\alpha / (1 + \alpha)`: in (0, 0.5] with ``"kingma"``, else in
            (0, 1).
        approximation: of the divergence: ``"kingma"``, which holds :math:`\alpha` at 1 or below, or
            ``"molchanov"``, without a bound.
        unit: what one number is drawn for: a ``"channel"`` of an example, as for noise on the
            weights, or every ``"element"``, or an ``"example"``.
        channel_dim: 1 for features ``(N, C, ...)``, -1 for channels last, ``(N, ..., C)``.
        generator: as :class:`lastlayer.regularizers.Regularizer` has it.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> layer = VariationalDropout(num_features=3, num_examples=100, p=0.5)
        >>> layer.log_alpha.detach()
        tensor([0., 0., 0.])
        >>> layer(torch.ones(2, 3)).shape
        torch.Size([2, 3])

    Source: Kingma, Salimans, Welling, arXiv 1506.02557; Molchanov, Ashukha, Vetrov, arXiv
    1701.05369.
    """

    def __init__(
        self,
        num_features: int,
        num_examples: int,
        *,
        p: float = 0.2,
        approximation: str = "kingma",
        unit: str = "channel",
        channel_dim: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        check_choice("approximation", approximation, KL_APPROXIMATIONS)
        super().__init__(
            num_features,
            num_examples,
            p=p,
            unit=unit,
            channel_dim=channel_dim,
            generator=generator,
        )
        if approximation == "kingma" and p > 0.5:
            raise ValueError(
                f'p must lie in (0, 0.5] with approximation="kingma" (alpha <= 1); got {p!r}'
            )
        self.approximation = approximation
        self.log_alpha = nn.Parameter(torch.empty(num_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return to the initial rate."""
        with torch.no_grad():
            self.log_alpha.fill_(self.initial_logit)

    def learned_rate(self) -> Tensor:
        r"""Return :math:`\alpha_c / (1 + \alpha_c)`, ``(C,)``."""
        return torch.sigmoid(self._bounded())

    def divergence(self) -> Tensor:
        """Return the sum of the channels' divergences, ``()``, in nats."""
        return log_uniform_kl(self._bounded(), approximation=self.approximation).sum()

    def _regularize(self, features: Tensor) -> Tensor:
        return variational_dropout(
            features,
            self._bounded(),
            unit=self.unit,
            channel_dim=self.channel_dim,
            generator=self.generator,
        )

    def _bounded(self) -> Tensor:
        log_alpha = at_least_float32(self.log_alpha)
        if self.approximation == "molchanov":
            return log_alpha
        # A clamp whose gradient passes: a parameter beyond the bound is not stuck there.
        return log_alpha - log_alpha.detach().clamp_min(0.0)
