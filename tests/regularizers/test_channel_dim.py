"""Channels first, channels last, tokens: the same values, the right dimension, or a refusal."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lastlayer.functional.feature_noise import (
    concrete_dropout,
    cutout,
    gaussian_dropout,
    unit_dropout,
    unit_shape,
    variational_dropout,
)
from lastlayer.regularizers import Disout, DropBlock, SpatialDropout, build_regularizer, insert

SHAPES = [(6, 5, 4, 3), (6, 5, 7), (6, 5)]
OPTIONS = {
    "spatial-dropout": {"p": 0.5},
    "drop-block": {"p": 0.4, "block_size": 2},
    "disout": {"p": 0.4, "block_size": 2},
    "variational-dropout": {"num_features": 5, "num_examples": 9, "p": 0.5},
    "concrete-dropout": {"num_features": 5, "num_examples": 9, "p": 0.5},
}


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=generator())


def last(tensor: torch.Tensor) -> torch.Tensor:
    """(N, C, ...) to (N, ..., C), laid out anew."""
    return tensor.movedim(1, -1).contiguous()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("unit", ["element", "channel", "example"])
def test_with_given_noise_the_two_layouts_give_the_same_values(shape, unit):
    x = features(shape)
    noise = torch.rand(unit_shape(x, unit), generator=generator())
    here, there = {"noise": noise}, {"noise": last(noise), "channel_dim": -1}
    log_alpha = torch.linspace(-1, 1, 5)
    for call in (
        lambda x, **o: unit_dropout(x, 0.4, unit=unit, **o),
        lambda x, **o: gaussian_dropout(x, 0.4, unit=unit, **o),
        lambda x, **o: variational_dropout(x, log_alpha, unit=unit, **o),
        lambda x, **o: concrete_dropout(x, torch.tensor(0.3), unit=unit, **o),
    ):
        assert torch.equal(call(last(x), **there), last(call(x, **here)))


def test_cutout_erases_the_same_pixels_in_both_layouts():
    images, fill = features((6, 3, 8, 9)), torch.tensor([0.1, 0.2, 0.3])
    noise = torch.rand(6, 2, 3, generator=generator())
    options = {"num_squares": 2, "fill": fill, "noise": noise}
    found = cutout(last(images), 4, channel_dim=-1, **options)
    assert torch.equal(found, last(cutout(images, 4, **options)))


@pytest.mark.parametrize("sampler", ["sparse", "dense"])
@pytest.mark.parametrize("kind", [DropBlock, Disout])
def test_blocks_of_both_layouts_in_one_memory_are_the_same(kind, sampler):
    """A channels-last tensor and its view with channels first are drawn for alike."""
    x = features((6, 4, 5, 3))
    options = {"p": 0.4, "block_size": 2, "sampler": sampler}
    out = kind(**options, channel_dim=-1, generator=generator())(x)
    view = kind(**options, generator=generator())(x.movedim(-1, 1))
    assert torch.equal(out, view.movedim(1, -1))
    assert out.stride() == x.stride()


@pytest.mark.parametrize("channel_dim", [1, -1])
@pytest.mark.parametrize("shape", SHAPES)
def test_spatial_dropout_zeroes_channels_whole_and_nothing_else(shape, channel_dim):
    x = torch.ones(200, *shape[1:])
    out = SpatialDropout(0.5, channel_dim=channel_dim, generator=generator())(x)
    by_channel = out.movedim(channel_dim, 1).reshape(200, x.shape[channel_dim], -1)
    assert torch.equal(by_channel.amin(-1), by_channel.amax(-1))
    share = float((by_channel[..., 0] == 0).double().mean())
    count = 200 * x.shape[channel_dim]
    assert abs(share - 0.5) < 5 * (0.25 / count) ** 0.5


def test_shared_blocks_of_tokens_cover_whole_runs_of_tokens():
    x = torch.ones(50, 12, 4)
    out = DropBlock(0.3, block_size=3, share_channels=True, channel_dim=-1, generator=generator())(
        x
    )
    dropped = out == 0
    assert torch.equal(dropped.all(-1), dropped.any(-1))
    runs = ["".join("01"[int(cell)] for cell in row) for row in dropped[..., 0]]
    lengths = {len(run) for row in runs for run in row.split("0") if run}
    assert min(lengths) == 3


@pytest.mark.parametrize("name", OPTIONS)
def test_channel_dim_is_1_or_minus_1(name):
    with pytest.raises(ValueError, match=r"channel_dim must be 1, channels first.*got 2"):
        build_regularizer(name, channel_dim=2, **OPTIONS[name])
    assert "channel_dim=-1" in repr(build_regularizer(name, channel_dim=-1, **OPTIONS[name]))


class Swin(nn.Module):
    """A block of torchvision's or timm's Swin: maps (N, H, W, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ConvNext(nn.Module):
    """A block of ConvNeXt: channels last inside, first outside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner: torch.Tensor = self.mlp(self.norm(self.dwconv(x).permute(0, 2, 3, 1)))
        return x + inner.permute(0, 3, 1, 2)


class LayerNorm2d(nn.LayerNorm):
    """As torchvision's and timm's: a LayerNorm over the channels of (N, C, H, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Hybrid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 2, stride=2), LayerNorm2d(6))
        self.convnext = ConvNext(6)
        self.swin = Swin(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.swin(self.convnext(self.stem(x)).permute(0, 2, 3, 1))
        return self.head(x.mean((1, 2)))


IMAGES = torch.randn(3, 3, 8, 10, generator=generator())


@pytest.mark.parametrize(
    ("where", "channel_dim"),
    [
        ("stem.0", 1),
        ("stem.1", 1),
        ("convnext.dwconv", 1),
        ("convnext.norm", -1),
        ("convnext.mlp.1", -1),
        ("swin", -1),
        ("swin.attn", -1),
        ("swin.mlp.*", -1),
    ],
)
def test_the_layers_say_where_the_channels_are(where, channel_dim):
    network = Hybrid()
    kept = network.state_dict()
    insertion = insert(network, "spatial-dropout", where=where, p=0.5)
    assert {place.regularizer.channel_dim for place in insertion.places} == {channel_dim}
    for place in insertion.places:
        seen = {}
        place.regularizer.register_forward_hook(lambda m, i, o, seen=seen: seen.update(o=o, i=i[0]))
        network.train()(IMAGES)
        # Counted by hand: zero wherever the input is not, for whole channels at once.
        dropped = ((seen["o"] == 0) & (seen["i"] != 0)).movedim(channel_dim, 1).flatten(2)
        nonzero = (seen["i"] != 0).movedim(channel_dim, 1).flatten(2)
        assert bool(dropped.any())
        assert torch.equal(dropped.any(-1), (dropped | ~nonzero).all(-1) & nonzero.any(-1))
    assert set(kept) <= set(network.state_dict())


def test_where_layers_disagree_it_is_refused_and_an_example_or_the_argument_decides():
    network, maps = ConvNext(6), features((3, 6, 4, 5))
    with pytest.raises(ValueError, match=r"not clear where the channels are behind 'the network'"):
        insert(network, "spatial-dropout", where="")
    assert not hasattr(network, "regularizer")
    by_hand = insert(network, "disout", where="", channel_dim=1)
    shown = insert(network, "disout", where="", example=maps)
    assert by_hand.places[0].regularizer.channel_dim == 1
    assert shown.places[0].regularizer.channel_dim == 1
    assert shown.places[0].shape == (3, 6, 4, 5)


def test_without_a_notion_of_channels_none_is_asked_for_and_none_is_taken():
    network = ConvNext(6)
    insert(network, "drop-path", where="")
    with pytest.raises(ValueError, match="channel_dim: 'drop-path' has no notion of channels"):
        insert(network, "drop-path", where="", channel_dim=1)


class PatchEmbed(nn.Module):
    """As of a ViT: a convolution whose map leaves as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, 6, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = PatchEmbed()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embed(x)


def test_a_map_of_other_dimensions_than_its_convolutions_is_refused():
    """The root alone stands for itself: its convolution has four dimensions, its tokens three."""
    network = Embedder()
    insertion = insert(network, "spatial-dropout", where="", p=0.5)
    with pytest.raises(
        ValueError, match=r"4 dimensions were expected.*\(3, 20, 6\): give channel_dim"
    ):
        network(IMAGES)
    insertion.remove()
    insert(network, "spatial-dropout", where="", p=0.5, channel_dim=-1)
    assert network(IMAGES).shape == (3, 20, 6)
