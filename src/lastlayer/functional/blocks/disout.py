"""Feature-map distortion (Disout): blocks replaced by noise shaped by the next layer's weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lastlayer._checks import can_look, check_at_least, check_channel_dim
from lastlayer.functional.blocks.replace import replace_blocks
from lastlayer.functional.numerics import drawn_by

#: The noise's scale where no next layer is known.
DEFAULT_SCALE = 0.01
#: What a layer without a spatial window multiplies its scale by.
_POINTWISE = 0.1


def disout(
    features: Tensor,
    p: float | Tensor,
    *,
    block_size: int | Sequence[int] = 6,
    alpha: float = 1.0,
    scale: Tensor | None = None,
    share_channels: bool = False,
    channel_dim: int = 1,
    generator: torch.Generator | None = None,
    sampler: str = "auto",
) -> Tensor:
    r"""Distort random blocks of a feature map.

    .. math::
        y = \frac{1}{\kappa} \bigl( M \odot x + (1 - M) \odot \delta \bigr), \qquad
        \delta_c = \alpha \, a_c \, s \, Z, \quad Z \sim \mathcal{N}(0, 1)

    with s the standard deviation of the whole batch, M and :math:`\kappa` as in
    :func:`~lastlayer.functional.blocks.replace_blocks`. Nothing of the noise, s and :math:`\kappa`
    carries gradient.

    Args:
        features: (N, C, *spatial), no to three spatial axes, any float dtype and memory format.
        p: expected share of distorted cells (the paper's ``dist_prob``), in [0, 1].
        block_size: edge of the blocks, at least 1, clipped to the map.
        alpha: strength of the distortion, at least 0; with 0 this is DropBlock.
        scale: a, (C,), from :func:`next_layer_scale`; None for 0.01 in every channel.
        share_channels: whether a block goes through all channels.
        channel_dim: 1 for features (N, C, *spatial), -1 for (N, *spatial, C), channels last or
            tokens.
        generator: source of places and noise, on the features' device; None for torch's default.
        sampler: as in :func:`~lastlayer.functional.blocks.replace_blocks`.

    Returns:
        As ``features``.

    Raises:
        TypeError: if the features are not floating point.
        ValueError: if another argument does not fit.

    Example:
        >>> features = torch.randn(2, 8, 14, 14)
        >>> disout(features, 0.1, block_size=7, alpha=5.0).shape
        torch.Size([2, 8, 14, 14])

    References:
        Tang et al., "Beyond Dropout: Feature Map Distortion to Regularize Deep Neural Networks",
        AAAI 2020.
    """
    check_at_least("alpha", alpha, 0.0)
    if scale is None:
        scale = torch.full((1,), DEFAULT_SCALE, device=features.device)
    spread = scale.detach().float().abs() * (alpha * finite_std(features))
    return replace_blocks(
        features,
        p,
        block_size=block_size,
        spread=spread,
        share_channels=share_channels,
        channel_dim=channel_dim,
        generator=generator,
        sampler=sampler,
    )


def drop_block(
    features: Tensor,
    p: float | Tensor,
    *,
    block_size: int | Sequence[int] = 7,
    share_channels: bool = False,
    channel_dim: int = 1,
    generator: torch.Generator | None = None,
    sampler: str = "auto",
) -> Tensor:
    r"""Set random blocks of a feature map to zero.

    .. math:: y = M \odot x / \kappa

    M and :math:`\kappa` as in :func:`~lastlayer.functional.blocks.replace_blocks`: the share p is
    reached at every map size, where the published seed rate drops less.

    Args:
        features: (N, C, *spatial), no to three spatial axes, any float dtype and memory format.
        p: expected share of dropped cells, in [0, 1].
        block_size: edge of the blocks, at least 1, clipped to the map.
        share_channels: whether a block goes through all channels.
        channel_dim: 1 for features (N, C, *spatial), -1 for (N, *spatial, C), channels last or
            tokens.
        generator: source of the places, on the features' device; None for torch's default.
        sampler: as in :func:`~lastlayer.functional.blocks.replace_blocks`.

    Returns:
        As ``features``.

    Raises:
        TypeError: if the features are not floating point.
        ValueError: if another argument does not fit.

    Example:
        >>> drop_block(torch.randn(2, 8, 14, 14), 0.1).shape
        torch.Size([2, 8, 14, 14])

    References:
        Ghiasi, Lin, Le, "DropBlock: A regularization method for convolutional networks",
        NeurIPS 2018.
    """
    return replace_blocks(
        features,
        p,
        block_size=block_size,
        share_channels=share_channels,
        channel_dim=channel_dim,
        generator=generator,
        sampler=sampler,
    )


def next_layer_scale(
    weight: Tensor,
    num_channels: int,
    *,
    transposed: bool = False,
    channel_dim: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Return the noise's scale for every channel from the weights of the layer behind.

    .. math::
        K_{cu} = \max_o W_{ocu}, \qquad a_c = \frac{1}{|u|} \sum_u S_{cu} K_{cu}, \qquad
        S_{cu} = \pm 1 \text{ with equal probability}

    over the positions u of the layer's window; for one position a is multiplied by 0.1. In a
    grouped convolution a channel's maximum goes over the outputs of its group. A linear layer has
    one position, or, behind a flattened map, as many as the map has cells.

    Args:
        weight: (out, in / groups, *window) of a convolution, (in, out / groups, *window) of a
            transposed one, or (out, in) of a linear layer.
        num_channels: C, channels of the features in front of it.
        transposed: whether it is a transposed convolution.
        channel_dim: 1 or -1, where the features have their channels: a flattened map runs channel
            by channel in the first case, cell by cell in the second.
        generator: source of the signs, on the weight's device; None for torch's default.

    Returns:
        (C,) in the weight's dtype, without gradient; fresh signs in every call.

    Raises:
        ValueError: if such a layer cannot take C channels.

    Example:
        >>> next_layer_scale(torch.full((4, 3, 1, 1), 2.0), 3).abs()
        tensor([0.2000, 0.2000, 0.2000])

    References:
        Tang et al., AAAI 2020, as in the released code.
    """
    check_channel_dim(channel_dim)
    check_next_weight(weight, num_channels, transposed=transposed)
    largest = _largest_by_channel(weight.detach(), num_channels, transposed, channel_dim)
    noise = torch.rand(
        largest.shape, dtype=torch.float32, device=weight.device, **drawn_by(generator)
    )
    signed = torch.where(noise < 0.5, -largest, largest)
    return signed.mean(dim=1) * (_POINTWISE if largest.shape[1] == 1 else 1.0)


def check_next_weight(weight: Tensor, num_channels: int, *, transposed: bool = False) -> None:
    """Raise ``ValueError`` unless a layer of such a weight can take ``num_channels`` channels."""
    if weight.dim() < 2 or weight.numel() == 0:
        raise ValueError(
            f"the next layer's weight must have shape (out, in, ...); got {tuple(weight.shape)}"
        )
    outputs, inputs = weight.shape[:2]
    if transposed:
        takes = outputs == num_channels  # the first dimension is that of the inputs
    elif weight.dim() == 2:
        takes = inputs % num_channels == 0
    else:
        takes = num_channels % inputs == 0 and outputs % (num_channels // inputs) == 0
    if not takes:
        raise ValueError(
            f"a layer with weight {tuple(weight.shape)} cannot follow features of "
            f"{num_channels} channels"
        )


def _largest_by_channel(
    weight: Tensor, num_channels: int, transposed: bool, channel_dim: int
) -> Tensor:
    """Return K as (C, positions)."""
    if transposed:
        return weight.amax(dim=1).reshape(num_channels, -1)
    if weight.dim() == 2:
        by_input = weight.amax(dim=0)
        if channel_dim == -1:
            return by_input.reshape(-1, num_channels).T
        return by_input.reshape(num_channels, -1)
    groups = num_channels // weight.shape[1]
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    return by_group.amax(dim=1).reshape(num_channels, -1)


@torch.no_grad()
def finite_std(features: Tensor) -> Tensor:
    """Return the 0-d standard deviation over all finite entries, 0 if there are fewer than two.

    Sixteen-bit types are summed in float32.
    """
    values = features.detach()
    values = values if values.dtype == torch.float64 else values.float()
    if can_look(values):
        fast = _std_in_one_pass(values)
        if fast is not None:
            return fast
    finite = values.isfinite()
    count = finite.sum()
    mean = torch.where(finite, values, 0.0).sum() / count.clamp(min=1)
    centered = torch.where(finite, values - mean, 0.0)
    # The last term is what the rounding of the mean has added.
    squares = centered.square().sum() - centered.sum().square() / count.clamp(min=1)
    return (squares / (count - 1).clamp(min=1)).clamp(min=0).sqrt()


def _std_in_one_pass(values: Tensor) -> Tensor | None:
    """Return the standard deviation from sum and dot product, or None where they do not hold it."""
    count = values.numel()
    flat = _as_stored(values)
    if count < 2 or flat is None:
        return None
    mean = flat.sum() / count
    variance = (flat.dot(flat) - count * mean * mean) / (count - 1)
    # Where the mean is large, the difference has lost digits; NaN and infinity fail here too.
    held = bool(variance * 100 > mean * mean) and bool(torch.isfinite(variance))
    return variance.sqrt() if held else None


def _as_stored(values: Tensor) -> Tensor | None:
    """Return all entries in the order of memory, or None if they have gaps."""
    layout = torch.empty_like(values, device="meta").stride()
    return values.as_strided((values.numel(),), (1,)) if layout == values.stride() else None
