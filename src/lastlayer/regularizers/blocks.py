"""Regularisers that act on random blocks: DropBlock and Disout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lastlayer._checks import check_at_least, check_choice
from lastlayer.functional.blocks import (
    SAMPLERS,
    check_block_size,
    disout,
    disout_released,
    drop_block,
    next_layer_scale,
)
from lastlayer.regularizers.base import Regularizer


class DropBlock(Regularizer):
    r"""Random blocks of a feature map set to zero, see :func:`lastlayer.functional.drop_block`.

    .. math:: y = M \odot x / \kappa

    Args:
        p: expected share of dropped cells, in [0, 1]; reached at every map size.
        block_size: edge of the blocks, at least 1, clipped to the map.
        share_channels: whether a block goes through all channels; else each has its own.
        generator: source of the places; None for torch's default.
        sampler: ``"auto"``, ``"sparse"`` (fast on the CPU) or ``"dense"`` (accelerators).

    Shape:
        ``(N, C, *spatial)`` with no to three spatial axes, in any memory format; output alike.

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

    def __init__(
        self,
        p: float = 0.1,
        *,
        block_size: int | Sequence[int] = 7,
        share_channels: bool = False,
        generator: torch.Generator | None = None,
        sampler: str = "auto",
    ) -> None:
        super().__init__(p, generator=generator)
        check_block_size(block_size)
        check_choice("sampler", sampler, SAMPLERS)
        self.block_size = block_size
        self.share_channels, self.sampler = share_channels, sampler

    def _regularize(self, features: Tensor) -> Tensor:
        return drop_block(features, self.rate, **self._blocks())

    def _blocks(self) -> dict[str, Any]:
        return {
            "block_size": self.block_size,
            "share_channels": self.share_channels,
            "generator": self.generator,
            "sampler": self.sampler,
        }

    def extra_repr(self) -> str:
        """Name rate and block."""
        shared = ", share_channels=True" if self.share_channels else ""
        return f"{super().extra_repr()}, block_size={self.block_size}{shared}"


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
        released: compute what the released layer computes, bit by bit, its shifted even blocks and
            lower rate included; for four-dimensional features only.
        generator: source of all random numbers; None for torch's default.
        sampler: ``"auto"``, ``"sparse"`` (fast on the CPU) or ``"dense"`` (accelerators).

    Shape:
        ``(N, C, *spatial)`` with no to three spatial axes, in any memory format; output alike.

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
        released: bool = False,
        generator: torch.Generator | None = None,
        sampler: str = "auto",
    ) -> None:
        super().__init__(
            p,
            block_size=block_size,
            share_channels=share_channels,
            generator=generator,
            sampler=sampler,
        )
        check_at_least("alpha", alpha, 0.0)
        if released and (share_channels or not isinstance(block_size, int)):
            raise ValueError("released=True needs one block_size and no shared channels")
        self.alpha, self.released = alpha, released
        # In a tuple, so that the layer is not taken for a part of this one.
        self._next: tuple[nn.Module, ...] = ()

    def follow(self, layer: nn.Module | None) -> Disout:
        """Name the layer that takes the features next; None for none.

        Args:
            layer: a convolution or linear layer, kept by reference.

        Returns:
            This module.

        Raises:
            TypeError: if the layer has no weight.
        """
        if layer is not None and not isinstance(getattr(layer, "weight", None), Tensor):
            raise TypeError(f"the next layer must have a weight; got {type(layer).__name__}")
        self._next = () if layer is None else (layer,)
        return self

    @property
    def next_layer(self) -> nn.Module | None:
        """The layer whose weights shape the noise, if one is known."""
        return self._next[0] if self._next else None

    def _regularize(self, features: Tensor) -> Tensor:
        weight: Any = self._next[0].weight if self._next else None
        if self.released:
            return disout_released(
                features,
                self.p,
                block_size=self.block_size,  # type: ignore[arg-type]
                alpha=self.alpha,
                next_weight=weight,
                generator=self.generator,
            )
        scale = None
        if weight is not None:
            scale = next_layer_scale(weight, features.shape[1], generator=self.generator)
        return disout(features, self.rate, alpha=self.alpha, scale=scale, **self._blocks())

    def extra_repr(self) -> str:
        """Name rate, block, strength and what shapes the noise."""
        source = type(self._next[0]).__name__ if self._next else "no layer"
        released = ", released=True" if self.released else ""
        return f"{super().extra_repr()}, alpha={self.alpha:g}, shaped by {source}{released}"
