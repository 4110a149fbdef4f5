"""Cutout, on the images that enter a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lastlayer._checks import check_channel_dim, check_count
from lastlayer.functional.feature_noise import cutout
from lastlayer.regularizers.base import Regularizer


class Cutout(Regularizer):
    r"""Erase squares of the images at random places.

    The mathematics is :func:`lastlayer.functional.feature_noise.cutout`; put it before the first
    layer, after normalization if 0 is to be the mean color.

    Args:
        length: side of a square in pixels; the authors took 16 for CIFAR-10 and 8 for CIFAR-100.
        p: probability of each square to be there, in [0, 1]. It is not the erased fraction.
        num_squares: squares per image.
        fill: what is written: one number, or one per channel.
        channel_dim: 1 for images ``(N, C, H, W)``, -1 for ``(N, H, W, C)``.
        generator: as :class:`lastlayer.regularizers.Regularizer` has it.

    Raises:
        ValueError: if ``length``, ``num_squares``, ``p`` or ``channel_dim`` is out of range.

    Example:
        >>> layer = Cutout(length=2, generator=torch.Generator().manual_seed(0))
        >>> layer(torch.ones(1, 1, 3, 4))[0, 0]
        tensor([[1., 1., 1., 1.],
                [0., 1., 1., 1.],
                [0., 1., 1., 1.]])

    Source: DeVries, Taylor, arXiv 1708.04552.
    """

    fill: Tensor
    unit = "block"

    def __init__(
        self,
        length: int = 16,
        *,
        p: float = 1.0,
        num_squares: int = 1,
        fill: float | Sequence[float] = 0.0,
        channel_dim: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        check_count("length", length)
        check_count("num_squares", num_squares)
        check_channel_dim(channel_dim)
        super().__init__(p, generator=generator)
        self.channel_dim = channel_dim
        self.length = length
        self.num_squares = num_squares
        self.register_buffer("fill", torch.tensor(fill), persistent=False)

    def check_dims(self, dims: int) -> None:
        """Raise ``ValueError`` unless features of so many dimensions are taken."""
        if dims != 4:
            raise ValueError(f"Cutout takes images, of 4 dimensions; got {dims}")

    def _regularize(self, features: Tensor) -> Tensor:
        return cutout(
            features,
            self.length,
            num_squares=self.num_squares,
            p=self.rate,
            fill=self.fill,
            channel_dim=self.channel_dim,
            generator=self.generator,
        )

    def extra_repr(self) -> str:
        """Name the squares and the rate."""
        return f"length={self.length}, num_squares={self.num_squares}, {super().extra_repr()}"
