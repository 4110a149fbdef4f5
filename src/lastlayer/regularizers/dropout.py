"""Noise of a given rate: elements, channels or examples set to 0, or multiplied by a normal."""

from __future__ import annotations

import torch
from torch import Tensor

from lastlayer._checks import check_channel_dim
from lastlayer.functional.feature_noise import gaussian_dropout, unit_dropout, unit_shape
from lastlayer.regularizers.base import Regularizer


class UnitDropout(Regularizer):
    """Base of dropout by element, channel or example: ``unit`` says which."""

    channel_dim: int = 1

    def check_dims(self, dims: int) -> None:
        """Raise ``ValueError`` unless features of so many dimensions are taken."""
        unit_shape(torch.empty((0,) * dims), self.unit)

    def _regularize(self, features: Tensor) -> Tensor:
        return unit_dropout(
            features,
            self.rate,
            unit=self.unit,
            channel_dim=self.channel_dim,
            generator=self.generator,
        )


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


class GaussianDropout(Regularizer):
    r"""Multiply every element by :math:`N(1, p / (1 - p))`.

    The mathematics is :func:`lastlayer.functional.feature_noise.gaussian_dropout`.

    Args:
        p: rate of the dropout with the same mean and variance, in [0, 1).
        generator: as :class:`lastlayer.regularizers.Regularizer` has it.

    Raises:
        ValueError: if ``p`` is out of range.

    Example:
        >>> layer = GaussianDropout(0.2, generator=torch.Generator().manual_seed(0))
        >>> layer(torch.ones(3))
        tensor([ 1.7705,  0.8533, -0.0894])

    Source: Srivastava et al., "Dropout", JMLR 15, 2014, section 10.
    """

    def __init__(self, p: float = 0.5, *, generator: torch.Generator | None = None) -> None:
        super().__init__(p, generator=generator)

    def _check_rate(self, value: float) -> None:
        if not 0.0 <= value < 1.0:
            raise ValueError(f"p must lie in [0, 1), for the variance p / (1 - p); got {value!r}")

    def _regularize(self, features: Tensor) -> Tensor:
        return gaussian_dropout(features, self.rate, generator=self.generator)
