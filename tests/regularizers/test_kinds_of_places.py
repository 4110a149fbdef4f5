"""Blocks, branches and convolutions; gates and maps of one cell; what is refused at insertion."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lastlayer.models import build
from lastlayer.regularizers import insert


class SEModule(nn.Module):
    """A gate as timm's: its convolutions see the mean over space."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, 2, 1), nn.Conv2d(2, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class PooledGate(nn.Module):
    """A gate as torchvision's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(width, 2, 1), nn.Conv2d(2, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.fc2(self.fc1(self.avgpool(x)).relu()).sigmoid()


class Block(nn.Module):
    def __init__(self, width: int, gate: type[nn.Module] | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.se = None if gate is None else gate(width)
        self.downsample = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return ((out if self.se is None else self.se(out)) + x).relu()


class Network(nn.Module):
    def __init__(self, gate: type[nn.Module] | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.layer1 = nn.Sequential(Block(4, gate), Block(4, gate))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.avgpool(self.layer1(self.conv1(x))).flatten(1))


IMAGES = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def names(network: nn.Module, regularizer: str = "drop-path", **options) -> list[str]:
    insertion = insert(network, regularizer, **options)
    insertion.remove()
    return [place.name for place in insertion.places]


@pytest.mark.parametrize("gate", [SEModule, PooledGate])
def test_a_stage_stands_for_its_convolutions_without_those_of_gates(gate):
    network = Network(gate)
    expected = [f"layer1.{i}.conv{j}" for i in (0, 1) for j in (1, 2)]
    assert names(network, where="layer1") == expected
    assert names(network, where="layer1.*") == expected
    insertion = insert(network, "disout", where="layer1", example=IMAGES)
    assert not any(place.is_one_cell for place in insertion.places)


@pytest.mark.parametrize("gate", [SEModule, PooledGate])
def test_a_gate_that_is_named_stands_for_its_end(gate):
    assert names(Network(gate), where="layer1.*.se") == ["layer1.0.se", "layer1.1.se"]


@pytest.mark.parametrize("gate", [SEModule, PooledGate])
def test_maps_of_one_cell_are_warned_of_and_marked_in_the_plan(gate):
    with pytest.warns(UserWarning, match=r"one cell each after layer1.0.se.fc1, layer1.1.se.fc1"):
        plan = insert(Network(gate), "drop-block", where="**.fc1", example=IMAGES)
    assert str(plan).count("2 x 2 x 1 x 1, one cell") == 2


@pytest.mark.parametrize(("gate", "end"), [(None, "bn2"), (SEModule, "se")])
def test_kinds_of_a_residual_network(gate, end):
    network = Network(gate)
    assert names(network, kind="block") == ["layer1.0", "layer1.1"]
    assert names(network, kind="branch") == [f"layer1.0.{end}", f"layer1.1.{end}"]
    assert names(network, kind="convolution")[0] == "conv1"
    assert len(names(network, kind="convolution")) == 5
    assert names(network, kind="branch", where="layer1.1") == [f"layer1.1.{end}"]


def test_a_branch_is_what_is_added_to_the_identity():
    """With every branch dropped a block is the rectified identity."""
    network = Network(SEModule).train()
    insert(network, "drop-path", kind="branch", p=1.0)
    x = torch.randn(4, 4, 9, 9)
    assert torch.equal(network.layer1(x), x.relu())


@pytest.mark.parametrize(("model", "end"), [("resnet20", "bn2"), ("preact-resnet20", "conv2")])
def test_kinds_of_our_residual_networks(model, end):
    network = build(model, (3, 16, 16))
    blocks = [f"layer{i}.{j}" for i in (1, 2, 3) for j in range(3)]
    assert names(network, kind="block") == blocks
    assert names(network, kind="branch") == [f"{block}.{end}" for block in blocks]
    assert len(names(network, kind="convolution")) == 19
    insert(network.train(), "drop-path", kind="branch", p=1.0)
    x = torch.rand(4, 16, 16, 16)  # at least 0: the plain block rectifies its sum
    assert torch.equal(network.layer1(x), x)


def test_branches_of_torchs_transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    network = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).train()
    assert names(network, kind="block") == ["layers.0", "layers.1"]
    insert(network, "drop-path", kind="branch", p=1.0)
    x = torch.randn(3, 5, 8)
    assert torch.equal(network(x), x)


def test_a_block_without_an_identity_has_no_branch():
    network = nn.Sequential(*(nn.Module() for _ in range(2)))
    for block, skips in zip(network, (True, False), strict=True):
        block.use_res_connect, block.conv = skips, nn.Sequential(nn.Conv2d(2, 2, 1))
    assert names(network, kind="block") == ["0", "1"]
    assert names(network, kind="branch") == ["0.conv.0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "where: a pattern of module names must be given, or a kind"),
        ({"kind": "stage"}, "kind must be one of 'module', 'block', 'branch'"),
        ({"kind": "branch", "position": "before"}, 'position must be "after"'),
        ({"kind": "branch", "where": "fc"}, "no branch is known in what where='fc' means"),
    ],
)
def test_a_wrong_kind_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        insert(Network(None), "drop-path", **options)


@pytest.mark.parametrize(
    ("module", "position", "regularizer", "options", "message"),
    [
        (nn.Conv1d(3, 4, 1), "after", "cutout", {}, "takes images, of 4 dimensions; got 3"),
        (nn.Conv1d(3, 4, 1), "after", "disout", {"released": True}, r"\(N, C, H, W\); got 3"),
        (nn.Conv2d(3, 4, 1), "after", "drop-block", {"block_size": (2, 2, 2)}, "or 2, one per"),
        (nn.LSTM(3, 4), "after", "drop-path", {}, "dimension 0 is positions, not examples"),
        (nn.MultiheadAttention(4, 2), "before", "disout", {}, "dimension 0 is positions"),
        (nn.TransformerEncoderLayer(4, 2, 4), "after", "spatial-dropout", {}, "batch_first=True"),
    ],
)
def test_what_would_fail_in_training_is_refused_at_insertion(
    module, position, regularizer, options, message
):
    network = nn.ModuleDict({"a": module})
    with pytest.raises(ValueError, match=message):
        insert(network, regularizer, where="a", position=position, **options)
    assert not hasattr(module, "regularizer")


def transformers(batch_first: bool) -> nn.ModuleDict:
    encoder = nn.TransformerEncoderLayer(4, 2, 4, batch_first=batch_first)
    decoder = nn.TransformerDecoderLayer(4, 2, 4, batch_first=batch_first)
    return nn.ModuleDict(
        {
            "encoder": nn.TransformerEncoder(encoder, 1, nn.LayerNorm(4), False),
            "decoder": nn.TransformerDecoder(decoder, 1),
            "both": nn.Transformer(4, 2, 1, 1, 4, batch_first=batch_first),
        }
    )


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("regularizer", ["drop-path", "spatial-dropout", "drop-block"])
@pytest.mark.parametrize("where", ["encoder", "encoder.norm", "decoder", "both", "both.encoder"])
def test_a_transformer_of_layers_with_positions_first_is_refused_like_its_layers(
    regularizer, where
):
    with pytest.raises(ValueError, match="dimension 0 is positions, not examples"):
        insert(transformers(False), regularizer, where=where, p=0.5)
    assert names(transformers(True), regularizer, where=where, p=0.5) == [where]


def test_elements_have_no_layout_to_be_wrong():
    assert names(nn.ModuleDict({"a": nn.LSTM(3, 4)}), "dropout", where="a") == ["a"]


def test_indices_are_refused_before_an_embedding():
    with pytest.raises(TypeError, match="there are indices before '0'"):
        insert(nn.Sequential(nn.Embedding(5, 3)), "dropout", where="0", position="before")


@pytest.mark.parametrize(
    ("regularizer", "where", "options", "message"),
    [
        ("cutout", "fc", {}, "Cutout takes images"),
        ("disout", "conv1", {"released": True, "block_size": 20}, "cannot take block_size 20"),
        (
            "variational-dropout",
            "fc",
            {"num_features": 3, "num_examples": 9},
            r"\(N, ..., 3\)|\(N, 3",
        ),
    ],
)
def test_an_example_shows_at_insertion_what_training_would(regularizer, where, options, message):
    network = Network(None)
    with pytest.raises(ValueError, match=message):
        insert(network, regularizer, where=where, example=IMAGES, **options)
    assert network.training


def test_an_example_leaves_modes_statistics_and_random_numbers_as_they_were():
    network = Network(None)
    network.layer1.eval()
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    before = torch.get_rng_state(), generator.get_state()
    insert(network, "dropout", kind="block", example=IMAGES, generator=generator).remove()
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(generator.get_state(), before[1])


def test_windows_are_not_taken_for_examples():
    """As in Swin, whose attention sees windows in the place of examples."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attn(x.reshape(-1, 2, 4)).reshape(x.shape)

    with pytest.raises(ValueError, match="dimension 0 is 9, not the 3 examples, behind 'attn'"):
        insert(Windows(), "drop-path", where="attn", example=torch.randn(3, 6, 4))


def test_a_module_that_the_example_does_not_reach_is_refused():
    network = Network(None)
    network.auxiliary = nn.Conv2d(4, 2, 1)
    with pytest.raises(ValueError, match="'auxiliary' is not called when the network runs"):
        insert(network, "dropout", where="auxiliary", example=IMAGES)


class Projected(nn.Module):
    """A block as torchvision's RegNet: relu(proj(x) + f(x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.f = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
        self.activation = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.proj(x) + self.f(x))


def test_the_projection_around_a_block_is_a_shortcut_and_one_within_attention_is_none():
    stage = nn.Sequential(Projected(4), Projected(4))
    plan = insert(nn.Sequential(stage), "spatial-dropout", where="0")
    assert [place.name for place in plan.places] == ["0.0.f.0", "0.1.f.0"]
    attention = nn.Module()
    attention.qkv, attention.proj = nn.Conv2d(4, 12, 1), nn.Conv2d(4, 4, 1)
    plan = insert(nn.Sequential(attention), "spatial-dropout", where="0")
    assert [place.name for place in plan.places] == ["0.qkv", "0.proj"]
