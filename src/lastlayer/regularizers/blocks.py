"""Regularizers that act on random blocks: DropBlock and Disout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer._checks import check_at_least, check_channel_dim, check_choice, is_whole
from lastlayer.functional.blocks import (
    SAMPLERS,
    block_grid,
    check_block_size,
    check_next_weight,
    disout,
    disout_released,
    drop_block,
    next_layer_scale,
)
from lastlayer.regularizers.base import Regularizer

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class DropBlock(Regularizer):
    r"""Random blocks of a feature map set to zero, see :func:`lastlayer.functional.drop_block`.

    .. math:: y = M \odot x / \kappa

    Args:
        p: expected share of dropped cells, in [0, 1]; reached at every map size.
        block_size: edge of the blocks, at least 1, clipped to the map.
        share_channels: whether a block goes through all channels; else each has its own.
        channel_dim: 1 for features (N, C, *spatial), -1 for (N, *spatial, C), channels last or
            tokens.
        generator: source of the places; None for torch's default.
        sampler: ``"auto"``, ``"sparse"`` (fast on the CPU) or ``"dense"`` (accelerators).

    Shape:
        ``(N, C, *spatial)``, or ``(N, *spatial, C)``, with no to three spatial axes, in any memory
        format; output alike.

    Raises:
        ValueError: if an argument does not fit.

    Example:
        >>> layer = DropBlock(0.1, block_size=7)
        >>> layer(torch.randn(2, 8, 14, 14)).shape
        torch.Size([2, 8, 14, 14])

    References:
        Ghiasi, Lin, Le, "DropBlock: A regularization method for convolutional networks",
        NeurIPS 2018.
    """

    unit = "block"

    def __init__(
        self,
        p: float = 0.1,
        *,
        block_size: int | Sequence[int] = 7,
        share_channels: bool = False,
        channel_dim: int = 1,
        generator: torch.Generator | None = None,
        sampler: str = "auto",
    ) -> None:
        super().__init__(p, generator=generator)
        check_block_size(block_size)
        check_choice("sampler", sampler, SAMPLERS)
        self.block_size = block_size
        check_channel_dim(channel_dim)
        self.share_channels, self.sampler = share_channels, sampler
        self.channel_dim = channel_dim

    def check_dims(self, dims: int) -> None:
        """Raise ``ValueError`` unless features of so many dimensions are taken."""
        if not 2 <= dims <= 5:
            raise ValueError(
                f"{type(self).__name__} takes features (N, C, *spatial) of 2 to 5 dimensions; "
                f"got {dims}"
            )
        block_grid((1,) * dims, self.block_size)

    def _regularize(self, features: Tensor) -> Tensor:
        return drop_block(features, self.rate, **self._blocks())

    def _blocks(self) -> dict[str, Any]:
        return {
            "block_size": self.block_size,
            "share_channels": self.share_channels,
            "channel_dim": self.channel_dim,
            "generator": self.generator,
            "sampler": self.sampler,
        }

    def extra_repr(self) -> str:
        """Name rate and block."""
        shared = ", share_channels=True" if self.share_channels else ""
        layout = ", channel_dim=-1" if self.channel_dim == -1 else ""
        return f"{super().extra_repr()}, block_size={self.block_size}{shared}{layout}"


class Disout(DropBlock):
    r"""Random blocks of a feature map distorted, see :func:`lastlayer.functional.disout`.

    .. math::
        y = \frac{1}{\kappa} \bigl( M \odot x + (1 - M) \odot \alpha \, a_c \, s \, Z \bigr),
        \quad Z \sim \mathcal{N}(0, 1)

    a comes from the weights of the layer that takes the features next, as they are at that moment;
    name it by :meth:`follow`, or let :func:`lastlayer.regularizers.insert` find it. Without one, a
    is 0.01.

    Args:
        p: expected share of distorted cells, in [0, 1] (the paper's ``dist_prob``).
        block_size: edge of the blocks, at least 1, clipped to the map.
        alpha: strength of the distortion, at least 0.
        share_channels: whether a block goes through all channels; else each has its own.
        channel_dim: 1 for features (N, C, *spatial), -1 for (N, *spatial, C), channels last or
            tokens.
        released: compute what the released layer computes, bit by bit, its shifted even blocks and
            lower rate included; for four-dimensional features only.
        generator: source of all random numbers; None for torch's default.
        sampler: ``"auto"``, ``"sparse"`` (fast on the CPU) or ``"dense"`` (accelerators).

    Shape:
        ``(N, C, *spatial)``, or ``(N, *spatial, C)``, with no to three spatial axes, in any memory
        format; output alike.

    Raises:
        ValueError: if an argument does not fit.

    Example:
        >>> convolution = torch.nn.Conv2d(8, 16, 3)
        >>> layer = Disout(0.1, block_size=6, alpha=5.0).follow(convolution)
        >>> convolution(layer(torch.randn(2, 8, 14, 14))).shape
        torch.Size([2, 16, 12, 12])

    References:
        Tang et al., "Beyond Dropout: Feature Map Distortion to Regularize Deep Neural Networks",
        AAAI 2020.
    """

    def __init__(
        self,
        p: float = 0.09,
        *,
        block_size: int | Sequence[int] = 6,
        alpha: float = 5.0,
        share_channels: bool = False,
        channel_dim: int = 1,
        released: bool = False,
        generator: torch.Generator | None = None,
        sampler: str = "auto",
    ) -> None:
        super().__init__(
            p,
            block_size=block_size,
            share_channels=share_channels,
            channel_dim=channel_dim,
            generator=generator,
            sampler=sampler,
        )
        check_at_least("alpha", alpha, 0.0)
        if released and (share_channels or channel_dim != 1 or not is_whole(block_size)):
            raise ValueError(
                "released=True needs one block_size, no shared channels and channel_dim=1"
            )
        self.alpha, self.released = alpha, released
        # In a tuple, so that the layer is not taken for a part of this one.
        self._next: tuple[nn.Module, ...] = ()

    def follow(self, layer: nn.Module | None) -> Disout:
        """Name the layer that takes the features next; None for none.

        Args:
            layer: a convolution, transposed or not, a linear layer or ``nn.MultiheadAttention``
                without ``kdim`` and ``vdim``, kept by reference.

        Returns:
            This module.

        Raises:
            TypeError: if the layer has no weight, or several.
            ValueError: with ``released=True``, if it is not a convolution of images.
        """
        if layer is not None:
            weight = weight_of(layer)
            if not isinstance(weight, Tensor):
                attention = isinstance(layer, nn.MultiheadAttention)
                why = ", whose kdim or vdim makes separate projections" if attention else ""
                raise TypeError(
                    "the next layer must have one weight for one input; "
                    f"got {type(layer).__name__}{why}"
                )
            if self.released and weight.dim() != 4:
                raise ValueError(
                    "with released=True the next layer must be a convolution of images; "
                    f"got {type(layer).__name__}"
                )
        self._next = () if layer is None else (layer,)
        return self

    @property
    def next_layer(self) -> nn.Module | None:
        """The layer whose weights shape the noise, if one is known."""
        return self._next[0] if self._next else None

    def check_dims(self, dims: int) -> None:
        """Raise ``ValueError`` unless features of so many dimensions are taken."""
        if self.released and dims != 4:
            raise ValueError(f"released=True takes features (N, C, H, W); got {dims} dimensions")
        super().check_dims(dims)

    def _regularize(self, features: Tensor) -> Tensor:
        if self.released:
            return self._as_released(features)
        scale = None
        layer = self.next_layer
        if layer is not None:
            channels = features.shape[self.channel_dim]
            check_takes(layer, channels)
            scale = next_layer_scale(
                weight_of(layer),
                channels,
                transposed=isinstance(layer, TRANSPOSED),
                channel_dim=self.channel_dim,
                generator=self.generator,
            )
        return disout(features, self.rate, alpha=self.alpha, scale=scale, **self._blocks())

    def _as_released(self, features: Tensor) -> Tensor:
        layer = self.next_layer
        weight = None if layer is None else weight_of(layer)
        if weight is not None and isinstance(layer, TRANSPOSED):
            weight = weight.transpose(0, 1)  # outputs first, as the released layer reads it
        return disout_released(
            features,
            self.p,
            block_size=self.block_size,  # type: ignore[arg-type]
            alpha=self.alpha,
            next_weight=weight,
            generator=self.generator,
        )

    def extra_repr(self) -> str:
        """Name rate, block, strength and what shapes the noise."""
        source = type(self._next[0]).__name__ if self._next else "no layer"
        released = ", released=True" if self.released else ""
        return f"{super().extra_repr()}, alpha={self.alpha:g}, shaped by {source}{released}"


def check_takes(layer: nn.Module, channels: int) -> None:
    """Raise ``ValueError`` unless a layer can take features of so many channels."""
    inputs = getattr(layer, "in_channels", channels)
    if inputs != channels:
        raise ValueError(
            f"the next layer, {type(layer).__name__}, takes {inputs} channels; "
            f"the features have {channels}"
        )
    check_next_weight(weight_of(layer), channels, transposed=isinstance(layer, TRANSPOSED))


def weight_of(layer: nn.Module) -> Any:
    """Return the weight that meets a layer's input; None if it has none, or several."""
    if isinstance(layer, nn.Bilinear):  # its weight meets two inputs at once
        return None
    attention = isinstance(layer, nn.MultiheadAttention)
    return getattr(layer, "in_proj_weight" if attention else "weight", None)
