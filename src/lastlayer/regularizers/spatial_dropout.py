"""Dropout of whole channels."""

from __future__ import annotations

import torch

from lastlayer._checks import check_channel_dim
from lastlayer.regularizers.unit_dropout import UnitDropout


class SpatialDropout(UnitDropout):
    r"""Set whole channels of an example to 0 with probability p, divide the others by 1 - p.

    The mathematics is :func:`lastlayer.functional.feature_noise.unit_dropout`.

    Args:
        p: probability of a channel to be dropped, in [0, 1].
        channel_dim: 1 for channels first: ``(N, C)``, ``(N, C, L)``, ``(N, C, H, W)`` and so on;
            -1 for channels last ``(N, H, W, C)`` and tokens ``(N, T, C)``.
        generator: as :class:`lastlayer.regularizers.Regularizer` has it.

    Raises:
        ValueError: if ``p`` is no probability or ``channel_dim`` neither 1 nor -1.

    Example:
        >>> layer = SpatialDropout(0.5, generator=torch.Generator().manual_seed(0))
        >>> layer(torch.ones(1, 4, 2))
        tensor([[[0., 0.],
                 [2., 2.],
                 [0., 0.],
                 [0., 0.]]])

    Source: Tompson et al., "Efficient Object Localization Using Convolutional Networks", arXiv
    1411.4280.
    """

    unit = "channel"

    def __init__(
        self, p: float = 0.1, *, channel_dim: int = 1, generator: torch.Generator | None = None
    ) -> None:
        check_channel_dim(channel_dim)
        super().__init__(p, generator=generator)
        self.channel_dim = channel_dim

    def extra_repr(self) -> str:
        """Name rate and layout."""
        return f"{super().extra_repr()}{', channel_dim=-1' if self.channel_dim == -1 else ''}"
