"""Dropout of single elements."""

from __future__ import annotations

import torch

from lastlayer.regularizers.unit_dropout import UnitDropout


class Dropout(UnitDropout):
    r"""Set elements to 0 with probability p and divide the others by 1 - p.

    The mathematics is :func:`lastlayer.functional.feature_noise.unit_dropout`. Unlike
    ``torch.nn.Dropout`` it takes a generator, keeps a schedule's rate in checkpoints, and an
    infinite or NaN entry that is dropped is 0.

    Args:
        p: probability of an element to be dropped, in [0, 1].
        generator: as :class:`lastlayer.regularizers.Regularizer` has it.

    Raises:
        ValueError: if ``p`` is no probability.

    Example:
        >>> layer = Dropout(0.5, generator=torch.Generator().manual_seed(0))
        >>> layer(torch.ones(8))
        tensor([0., 2., 0., 0., 0., 2., 0., 2.])

    Source: Srivastava et al., JMLR 15, 2014.
    """

    unit = "element"

    def __init__(self, p: float = 0.5, *, generator: torch.Generator | None = None) -> None:
        super().__init__(p, generator=generator)
