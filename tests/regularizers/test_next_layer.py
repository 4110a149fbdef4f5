"""The weights that shape the noise, counted through autograd; and the layer that is found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lastlayer.functional.blocks import next_layer_scale
from lastlayer.regularizers import Disout, insert

LAYERS = {
    "convolution": (nn.Conv2d(4, 6, 3), (4, 7, 7)),
    "pointwise": (nn.Conv2d(4, 6, 1), (4, 7, 7)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (4, 7, 7)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), (4, 7, 7)),
    "in one dimension": (nn.Conv1d(4, 6, 3), (4, 9)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3), (4, 7, 7)),
    "transposed, as many in as out": (nn.ConvTranspose2d(4, 4, 3), (4, 7, 7)),
    "transposed, with a stride": (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 5, 5)),
    "transposed, grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2), (4, 7, 7)),
    "transposed, depthwise": (nn.ConvTranspose2d(4, 4, 3, groups=4), (4, 7, 7)),
    "transposed, in one dimension": (nn.ConvTranspose1d(4, 2, 4), (4, 9)),
    "linear": (nn.Linear(4, 6), (4,)),
}


def positive(layer: nn.Module) -> nn.Module:
    """Give a layer distinct weights above 0, so that outputs out of reach are never the largest."""
    source = torch.Generator().manual_seed(2)
    for parameter in layer.parameters():
        parameter.data.uniform_(0.1, 1.0, generator=source)
    return layer


def counted(layer: nn.Module, shape: tuple[int, ...], channel: int, cell: tuple[int, ...]) -> float:
    """Mean over the window of the largest derivative of an output by one value of the map."""
    features = torch.zeros(1, *shape, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x)[0], features)
    by_output = jacobian[(..., 0, channel, *cell)]
    largest = by_output.flatten(1).amax(0) if by_output.dim() > 1 else by_output.amax(0, True)
    reached = largest[largest > 0]
    return float(reached.mean()) * (0.1 if len(reached) == 1 else 1.0)


@pytest.fixture
def all_signs_positive(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.ones(shape))


@pytest.mark.parametrize("name", LAYERS)
def test_the_scale_of_a_channel_is_what_one_of_its_values_does_to_the_layer(
    name, all_signs_positive
):
    layer, shape = LAYERS[name]
    positive(layer)
    transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d)
    found = next_layer_scale(layer.weight, 4, transposed=transposed)
    cell = tuple(size // 2 for size in shape[1:])
    expected = [counted(layer, shape, channel, cell) for channel in range(4)]
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("channel_dim", [1, -1])
def test_behind_a_flattened_map_every_cell_is_a_position(channel_dim, all_signs_positive):
    layer = positive(nn.Linear(4 * 6, 5))
    shape = (4, 2, 3) if channel_dim == 1 else (2, 3, 4)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: layer(x.flatten(1))[0], torch.zeros(1, *shape)
    )
    largest = jacobian[:, 0].amax(0).movedim(0 if channel_dim == 1 else -1, 0).flatten(1)
    found = next_layer_scale(layer.weight, 4, channel_dim=channel_dim)
    torch.testing.assert_close(found, largest.mean(1))


@pytest.mark.parametrize("layer", [LAYERS["transposed, grouped"][0], LAYERS["grouped"][0]])
def test_disout_reads_the_layer_that_it_follows_by_its_kind(layer, monkeypatch):
    """Its noise on all-distorted maps has the channels' scales, with signs for each call."""
    positive(layer)
    x = torch.randn(64, 4, 7, 7, generator=torch.Generator().manual_seed(0))
    out = Disout(1.0, block_size=1, alpha=1.0).follow(layer)(x)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.ones(shape))
    weight, transposed = layer.weight, isinstance(layer, nn.ConvTranspose2d)
    largest = next_layer_scale(weight, 4, transposed=transposed)
    ratio = out.std((0, 2, 3)) / x.std()
    assert bool((ratio < 1.05 * largest).all())  # signs only take away
    assert not torch.allclose(ratio, torch.full((4,), 0.01), atol=5e-3)


def test_a_layer_of_another_width_is_refused_at_the_call_and_not_read_as_grouped():
    layer = Disout(0.5, block_size=1).follow(nn.Conv2d(4, 8, 1))
    with pytest.raises(ValueError, match="the next layer, Conv2d, takes 4 channels; the features"):
        layer(torch.randn(2, 8, 3, 3))


def found(network: nn.Module, where: str, **options) -> str | None:
    (place,) = insert(network, "disout", where=where, **options).places
    return place.next_name


def test_a_transposed_convolution_is_not_skipped():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 5, 3), nn.Conv2d(4, 2, 1))
    assert found(network, "0") == "1"


def test_a_convolution_of_half_the_channels_is_not_read_as_grouped():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(8, 2, 1))
    assert found(network, "0") == "2"


def test_a_layer_used_twice_follows_at_its_second_place():
    shared = nn.Conv2d(4, 4, 3)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), shared, nn.Conv2d(4, 4, 1), shared)
    assert found(network, "2") == "3"
    (place,) = insert(network, "dropout", where="[13]").places
    assert place.name == "1"  # one module, one regularizer


def test_weights_shared_between_layers_are_read_as_they_are():
    first, second = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
    second.weight = first.weight
    network = nn.Sequential(first, nn.ReLU(), second)
    (place,) = insert(network, "disout", where="0").places
    assert place.next_name == "2"
    assert place.regularizer.next_layer.weight is first.weight


def test_a_gate_between_two_convolutions_is_passed_over():
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())
    network = nn.ModuleDict(
        {"conv1": nn.Conv2d(3, 4, 3), "gate": gate, "conv2": nn.Conv2d(4, 4, 3)}
    )
    assert found(network, "conv1") == "conv2"


def test_the_way_down_between_stages_is_no_shortcut():
    """As in ConvNeXt: the stage holds its reduction beside a list of blocks."""

    def stage(inputs: int, outputs: int) -> nn.ModuleDict:
        block = nn.Sequential(nn.Sequential(nn.Conv2d(outputs, outputs, 3)), nn.GELU())
        return nn.ModuleDict(
            {"downsample": nn.Conv2d(inputs, outputs, 2), "blocks": nn.Sequential(block)}
        )

    network = nn.Sequential(stage(3, 4), stage(4, 8))
    assert found(network, "0.blocks.0.0.0") == "1.downsample"


def test_between_convolutions_the_linear_layer_of_a_block_follows():
    """As in ConvNeXt, whose depthwise convolution is read by a linear layer."""
    network = nn.ModuleDict(
        {"dw": nn.Conv2d(4, 4, 3, groups=4), "fc": nn.Linear(4, 8), "dw2": nn.Conv2d(4, 4, 3)}
    )
    assert found(network, "dw") == "fc"


def test_attention_is_read_by_its_input_projection():
    network = nn.Sequential(nn.Linear(3, 4), nn.MultiheadAttention(4, 2, batch_first=True))
    insertion = insert(network, "disout", where="0", p=1.0, block_size=1)
    (place,) = insertion.places
    assert place.next_name == "1"
    insertion.remove()  # free to be called by hand
    out = place.regularizer(torch.randn(2, 5, 4))
    assert out.shape == (2, 5, 4)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.MultiheadAttention(4, 2, kdim=3, vdim=3), "MultiheadAttention, whose kdim or vdim"),
        (nn.Bilinear(4, 4, 2), "got Bilinear"),
        (nn.GRU(4, 2), "got GRU"),
    ],
)
def test_a_layer_without_one_weight_for_its_input_is_refused_with_the_reason(layer, message):
    with pytest.raises(TypeError, match=f"one weight for one input; .*{message}"):
        Disout().follow(layer)


@pytest.mark.parametrize(
    "layer", [nn.LSTM(6, 6, batch_first=True), nn.GRUCell(6, 6), nn.Bilinear(6, 6, 6)]
)
def test_the_search_does_not_pass_over_a_layer_that_it_cannot_read(layer):
    network = nn.Sequential(nn.Linear(3, 6), layer, nn.Linear(6, 6))
    assert found(network, "0") is None
    assert found(network, "1", position="before", channel_dim=-1) is None
    assert found(network, "1", channel_dim=-1) == "2"


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"proj_size": 2}])
def test_the_channels_behind_recurrence_are_its_own(options):
    lstm = nn.LSTM(3, 5, batch_first=True, **options)
    width = lstm(torch.zeros(1, 2, 3))[0].shape[-1]
    network = nn.Sequential(nn.Linear(3, 3), lstm)
    (place,) = insert(network, "concrete-dropout", where="1", num_examples=9).places
    assert place.regularizer.num_features == width
    network(torch.zeros(1, 2, 3))


def test_the_unused_child_of_attention_is_refused():
    network = nn.Sequential(nn.MultiheadAttention(4, 2, batch_first=True))
    with pytest.raises(ValueError, match=r"'0.out_proj' is never called.*name '0'"):
        insert(network, "dropout", where="**.out_proj")


def test_a_lazy_layer_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyConv2d(4, 3))
    with pytest.raises(ValueError, match="'1' is lazy: run the network once"):
        insert(network, "disout", where="0")


class Backwards(nn.Module):
    """Three convolutions that run in another order than that of their registration."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.middle, self.first = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.first(x)))


@pytest.mark.parametrize(
    ("position", "after"),
    [
        ("after", {"first": "middle", "middle": "last", "last": None}),
        ("before", {"first": "first", "middle": "middle", "last": "last"}),
    ],
)
def test_with_an_example_the_next_layer_is_the_next_to_run(position, after):
    network = Backwards()
    example = torch.randn(2, 4, 5, 5)
    plan = insert(network, "disout", where="*", position=position, block_size=1, example=example)
    assert {place.name: place.next_name for place in plan.places} == after
    if position == "after":
        plan.remove()
        (place,) = insert(network, "disout", where="last", block_size=1).places
        assert place.next_name == "middle"  # all that registration tells


def test_with_an_example_a_layer_that_runs_again_follows_itself():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(self.a(x)))

    example = torch.randn(2, 4, 5, 5)
    (place,) = insert(Twice(), "disout", where="a", block_size=1, example=example).places
    assert place.next_name == "a"
