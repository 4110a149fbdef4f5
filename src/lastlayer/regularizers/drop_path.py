"""Stochastic depth: a residual branch is dropped per example."""

from __future__ import annotations

import torch

from lastlayer.regularizers.unit_dropout import UnitDropout


class DropPath(UnitDropout):
    r"""Set all features of an example to 0 with probability p, divide the others' by 1 - p.

    At the end of a residual branch, before the addition, this is stochastic depth; its authors
    scale at test instead, which is the same up to the branch's scale. The mathematics is
    :func:`lastlayer.functional.feature_noise.unit_dropout`.

    Args:
        p: probability of an example's branch to be dropped, in [0, 1]; usually rising linearly
            with depth.
        generator: as :class:`lastlayer.regularizers.Regularizer` has it.

    Raises:
        ValueError: if ``p`` is no probability.

    Example:
        >>> layer = DropPath(0.5, generator=torch.Generator().manual_seed(0))
        >>> layer(torch.ones(3, 2))
        tensor([[0., 0.],
                [2., 2.],
                [0., 0.]])

    Source: Huang et al., "Deep Networks with Stochastic Depth", arXiv 1603.09382.
    """

    unit = "example"

    def __init__(self, p: float = 0.1, *, generator: torch.Generator | None = None) -> None:
        super().__init__(p, generator=generator)
