"""Dropout of whole channels."""

from __future__ import annotations

import torch

from lastlayer.regularizers.unit_dropout import UnitDropout


class SpatialDropout(UnitDropout):
    r"""Set whole channels of an example to 0 with probability p, divide the others by 1 - p.

    The mathematics is :func:`lastlayer.functional.feature_noise.unit_dropout`. Channels are
    dimension 1, whatever follows: ``(N, C)``, ``(N, C, L)``, ``(N, C, H, W)`` and so on.

    Args:
        p: probability of a channel to be dropped, in [0, 1].
        generator: as :class:`lastlayer.regularizers.Regularizer` has it.

    Raises:
        ValueError: if ``p`` is no probability.

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

    def __init__(self, p: float = 0.1, *, generator: torch.Generator | None = None) -> None:
        super().__init__(p, generator=generator)
