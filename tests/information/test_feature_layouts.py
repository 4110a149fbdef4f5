"""Where the features of a layer's output are: tokens, channels-last maps, names, branches."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import lastlayer
from lastlayer.functional.dependence import h_score
from lastlayer.heads import HEADS, takes_class_counts
from lastlayer.information import LayerScores, feature_report

N, SIDE, WIDTH = 240, 6, 5
TARGET = torch.arange(N) % 3


def images(channels: int = 2) -> torch.Tensor:
    noise = torch.randn(N, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return noise + 0.5 * TARGET[:, None, None, None]


class Permute(nn.Module):
    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(self.dims)


class Tokens(nn.Module):
    """A vision transformer's layout: (N, T, D) with T = 18."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, WIDTH, 2)
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 1, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 7), nn.GELU(), nn.Linear(7, WIDTH))
        self.drop = nn.Dropout()
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        x = x + self.attention(x, x, x)[0]
        return self.head(self.drop(self.mlp(x)).mean(1))


class ChannelsFirstNorm(nn.LayerNorm):
    """As ConvNeXt has it: a layer norm of maps (N, C, H, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvBlock(nn.Module):
    """As ConvNeXt has it: maps in and out, with their channels last between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 8), nn.GELU(), nn.Linear(8, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mlp(self.norm(self.conv(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class LastBlock(nn.Module):
    """As Swin has it: (N, H, W, C) in and out, tokens between."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mlp(self.norm(x).flatten(1, 2)).reshape(x.shape)


def maps_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, WIDTH, 3, padding=1), ChannelsFirstNorm(WIDTH), nn.ReLU(), ConvBlock(),
        nn.AvgPool2d(2), Permute(0, 2, 3, 1), LastBlock(), nn.Flatten(), nn.Linear(45, 3),
    )  # fmt: skip


def outputs(model: nn.Module, names: list[str], x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the modules return, first element of a tuple."""
    found = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda m, i, o, name=name: found.update(
                {name: (o[0] if isinstance(o, tuple) else o).double()}
            )
        )
    with torch.no_grad():
        model.eval()(x)
    return found


@pytest.mark.parametrize(
    ("build", "dims"),
    [
        (
            Tokens,
            {"patches": 1, "norm": 2, "attention": 2, "mlp.0": 2, "mlp.1": 2, "mlp": 2, "drop": 2},
        ),
        (
            maps_network,
            {"0": 1, "1": 1, "2": 1, "3.conv": 1, "3.norm": 3, "3.mlp.1": 3, "3": 1, "4": 1,
             "5": 3, "6.norm": 3, "6.mlp": 2, "6": 3},
        ),
    ],
    ids=["tokens", "maps"],
)  # fmt: skip
def test_a_layer_is_scored_by_the_dimension_that_holds_its_features(build, dims):
    torch.manual_seed(0)
    # Double, for a layer norm's features sum to 0, and rounding would count as a direction.
    model, x = build().double(), images().double()
    report = feature_report(model, TARGET, inputs=x, layers=list(dims), batch_size=100)
    assert report.scores.keys() == dims.keys()
    assert not report.left_out
    for name, output in outputs(model, list(dims), x).items():
        over = [dim for dim in range(1, output.dim()) if dim != dims[name]]
        score = report.scores[name]
        assert score.num_features == output.shape[dims[name]]
        assert score.value == pytest.approx(float(h_score(output.mean(over), TARGET)), abs=1e-6)


def test_where_the_layout_is_unclear_the_layer_is_refused_until_it_is_given():
    """A square of as many cells as channels, in a module that says nothing."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, SIDE, 3, padding=1)
    model = nn.Sequential(convolution, Permute(0, 1, 3, 2), nn.Flatten(), nn.Linear(216, 3))
    with pytest.raises(ValueError, match=r"1 returns shape \(240, 6, 6, 6\); give channel_dim"):
        feature_report(model, TARGET, inputs=images(), layers="1")
    report = feature_report(model, TARGET, inputs=images(), layers=["0", "1"], channel_dim=-1)
    maps = outputs(model, ["0", "1"], images())
    for name, over in (("0", (2, 3)), ("1", (1, 2))):  # the convolution tells its own
        expected = float(h_score(maps[name].mean(over), TARGET))
        assert report.scores[name].value == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match=r"channel_dim must be a dimension .* got 4"):
        feature_report(model, TARGET, inputs=images(), layers="1", channel_dim=4)


def test_given_features_of_more_dimensions_need_theirs():
    tokens = images().flatten(2)
    for dim, features in ((1, 2), (-1, 36), (2, 36)):
        report = feature_report({"x": tokens}, TARGET, channel_dim=dim)
        assert report.scores["x"].num_features == features
    with pytest.raises(ValueError, match=r"x has shape \(240, 2, 36\); give channel_dim"):
        feature_report({"x": tokens}, TARGET)
    with pytest.raises(ValueError, match=r"channel_dim must be a dimension .* got 0"):
        feature_report({"x": tokens}, TARGET, channel_dim=0)


@pytest.mark.parametrize("name", HEADS.names())
def test_the_layers_of_every_attached_head_are_scored_or_said_to_be_left_out(name):
    counts = {"class_counts": [80] * 3} if takes_class_counts(name) else {}
    network = nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.ReLU(), nn.Linear(4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a head says when it is attached
        model = lastlayer.attach(network, name, layer="3", **counts)
    report = feature_report(model, TARGET, inputs=images())
    linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert report.scores.keys() | report.left_out.keys() == linear
    assert "backbone.1" in report.scores
    for missing in report.left_out:
        assert f"{missing} is left out: it did not run" in str(report)
        with pytest.raises(ValueError, match=f"{missing} did not run"):
            feature_report(model, TARGET, inputs=images(), layers=missing)


class Texts(nn.Module):
    """A text model's layout: keywords in, a position's embedding of one row, a shared layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(9, 4), nn.Embedding(8, 4)
        self.shared, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, *, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1])[None])
        x = self.shared(self.shared(x)) * mask[..., None]
        return {"logits": self.head(x.sum(1))}


def test_inputs_by_name_reach_their_arguments_and_what_has_no_row_an_example_is_left_out():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, (N, 8), generator=generator) + 3 * TARGET[:, None]
    inputs = {"mask": torch.ones(N, 8, dtype=torch.int64), "ids": ids}
    model = Texts()
    report = feature_report(model, TARGET, inputs=inputs, batch_size=50)
    assert list(report.scores) == ["words", "head"]
    assert report.left_out == {
        "places": "returns shape (1, 8, 4) for 50 examples",
        "shared": "runs more than once per batch; name another layer",
    }
    words = model.words.weight.detach().double()[ids].mean(1)
    expected = float(h_score(words, TARGET))
    assert report.scores["words"].value == pytest.approx(expected, abs=1e-8)
    with LayerScores(model, "words") as scores:
        scores.update(inputs, TARGET)
    assert scores.report().scores["words"].value == pytest.approx(expected, abs=1e-8)
    with LayerScores(model, "") as scores, pytest.raises(ValueError, match="returns dict, not a"):
        scores.update(inputs, TARGET)
