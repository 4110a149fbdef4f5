"""Regularizers put into networks by name: where, shaped by what, and out again."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from lastlayer.regularizers import Disout, insert, inserted


class Block(nn.Module):
    """A residual block with a shortcut, registered as torchvision's."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + self.downsample(x))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1 = nn.Sequential(Block(4, 4), Block(4, 4))
        self.layer2 = nn.Sequential(Block(4, 8), Block(8, 8))
        self.fc1 = nn.Linear(8, 6)
        self.fc2 = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer2(self.layer1(self.conv(x))).mean((2, 3))
        return self.fc2(self.fc1(x).relu())


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network()


def where(insertion) -> dict[str, str | None]:
    return {place.name: place.next_name for place in insertion.places}


def test_a_container_stands_for_its_convolutions_off_the_shortcut(network):
    found = where(insert(network, "disout", where="layer2", p=0.1, block_size=3))
    assert found == {
        "layer2.0.conv1": "layer2.0.conv2",
        "layer2.0.conv2": "layer2.1.conv1",
        "layer2.1.conv1": "layer2.1.conv2",
        "layer2.1.conv2": None,
    }


def test_patterns_name_modules_in_the_order_of_the_network(network):
    insertion = insert(network, "disout", where=["layer2.*.bn1", "layer1.?.conv2", "fc1"])
    assert where(insertion) == {
        "layer1.0.conv2": "layer1.1.conv1",
        "layer1.1.conv2": "layer2.0.conv1",
        "layer2.0.bn1": "layer2.0.conv2",
        "layer2.1.bn1": "layer2.1.conv2",
        "fc1": "fc2",
    }


def test_the_shortcuts_own_place_is_shaped_by_the_next_block(network):
    expected = {
        "layer1.0.downsample.1": "layer1.1.conv1",
        "layer2.0.downsample.1": "layer2.1.conv1",
    }
    for pattern in ("layer*.0.downsample.1", "layer*.0.downsample"):
        insertion = insert(network, "disout", where=pattern)
        assert where(insertion) == expected
        insertion.remove()


def test_before_a_layer_the_layer_itself_shapes_the_noise(network):
    insertion = insert(network, "disout", where="layer1.*.conv2", position="before")
    assert where(insertion) == {n: n for n in ("layer1.0.conv2", "layer1.1.conv2")}
    for place in insertion.places:
        assert place.regularizer.next_layer is network.get_submodule(place.name)


def test_a_layer_of_other_width_is_passed_over():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(5, 7, 1), nn.Conv2d(4, 2, 1))
    assert where(insert(network, "disout", where="0")) == {"0": "2"}


def test_it_acts_in_training_alone_and_at_its_place(network):
    x = torch.randn(2, 3, 8, 8)
    seen = {}
    network.layer1[0].bn1.register_forward_pre_hook(lambda m, i: seen.update(bn=i[0]))
    plain = network.eval()(x)
    insert(network, "drop-block", where="layer1.0.conv1", p=1.0, block_size=3)
    assert torch.equal(network.eval()(x), plain)
    network.train()(x)
    assert bool((seen["bn"] == 0).all())


def test_before_acts_on_the_first_input(network):
    insert(network, "drop-block", where="fc2", position="before", p=1.0)
    out = network.train()(torch.randn(4, 3, 8, 8))
    torch.testing.assert_close(out, network.fc2.bias.expand(4, -1))


def test_the_network_itself_is_the_empty_name(network):
    insert(network, "drop-block", where="", position="before", p=1.0, block_size=1)
    network.eval()
    network.regularizer.train()
    one, other = network(torch.randn(1, 3, 8, 8)), network(torch.randn(1, 3, 8, 8))
    assert torch.equal(one, other)


def test_removal_leaves_nothing(network):
    before = (list(network.state_dict()), str(network))
    insertion = insert(network, "disout", where="layer2")
    assert len(list(inserted(network))) == 4
    insertion.remove()
    insertion.remove()
    assert (list(network.state_dict()), str(network)) == before
    assert not list(inserted(network))
    assert all(not module._forward_hooks for module in network.modules())


def test_two_regularizers_at_one_place_act_in_turn(network):
    first = insert(network, "drop-block", where="conv", p=1.0)
    second = insert(network, "disout", where="conv", p=0.5)
    assert [name for name, _ in inserted(network)] == ["conv.regularizer", "conv.regularizer2"]
    first.remove()
    second.remove()
    assert not list(inserted(network))


def test_weights_keep_their_names_and_rates_travel_with_the_state(network):
    names = set(network.state_dict())
    insert(network, "disout", where="layer2", p=0.25)
    added = set(network.state_dict()) - names
    assert names <= set(network.state_dict())
    assert {name.rpartition(".")[2] for name in added} == {"_extra_state"}
    other = Network()
    insert(other, "disout", where="layer2", p=0.5)
    other.load_state_dict(network.state_dict())
    assert {r.p for _, r in inserted(other)} == {0.25}


def test_a_copy_is_shaped_by_its_own_layers(network):
    insert(network, "disout", where="layer1.0.conv1")
    for twin in (copy.deepcopy(network), _pickled(network)):
        ((_, regularizer),) = inserted(twin)
        assert isinstance(regularizer, Disout)
        assert regularizer.next_layer is twin.layer1[0].conv2
        assert regularizer.next_layer is not network.layer1[0].conv2
        twin.train()(torch.randn(2, 3, 8, 8)).sum().backward()


def _pickled(network: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(network, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def test_the_plan_prints_places_and_what_shapes_them(network):
    text = str(insert(network, "disout", where="layer2", p=0.1, block_size=3, alpha=2.0))
    lines = text.splitlines()
    assert len(lines) == 5
    assert "layer2.0.conv1" in lines[1]
    assert "p=0.1, block_size=3, alpha=2" in lines[1]
    assert lines[1].endswith("layer2.0.conv2")
    assert lines[4].endswith("-")


def test_weight_updates_are_seen_at_the_next_call(network):
    insert(network, "disout", where="layer1.0.conv1", p=0.9, block_size=1, alpha=5.0)
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        network.layer1[0].conv2.weight.zero_()
        zeroed = network.layer1[0].conv1.train()(x)
        assert float((zeroed == 0).float().mean()) > 0.5
        network.layer1[0].conv2.weight.fill_(1.0)
        assert float((network.layer1[0].conv1(x) == 0).float().mean()) < 0.1


def test_adaptive_regularizers_learn_how_many_channels_they_follow(network):
    insertion = insert(network, "variational-dropout", where="layer2.*.conv1", num_examples=100)
    assert [place.regularizer.num_features for place in insertion.places] == [8, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"where": "layer9"}, r"no module of Network is called 'layer9'; it has conv, layer1"),
        ({"where": "layer1", "position": "inside"}, "position must be one of"),
        ({"where": "layer1", "nonsense": 1}, "nonsense"),
        ({"where": "layer1", "p": 2.0}, "p must lie in"),
    ],
)
def test_bad_arguments_are_named_and_leave_the_network_alone(network, arguments, message):
    with pytest.raises(ValueError, match=message):
        insert(network, "disout", **arguments)
    assert not list(inserted(network))


def test_an_unknown_regularizer_is_named(network):
    with pytest.raises(ValueError, match=r"unknown regularizer 'disuot'. Did you mean 'disout'"):
        insert(network, "disuot", where="conv")


def test_a_network_with_insertions_compiles_in_one_graph(network):
    insert(network, "disout", where="layer2", p=0.3, block_size=3)
    compiled = torch.compile(network.train(), fullgraph=True, backend="eager")
    compiled(torch.randn(2, 3, 8, 8)).sum().backward()
    assert network.conv.weight.grad is not None


@pytest.mark.parametrize("block", ["basic", "preact"])
def test_the_last_stage_of_our_residual_networks(block):
    from lastlayer.models import build

    name = "preact-resnet20" if block == "preact" else "resnet20"
    found = where(insert(build(name, (3, 8, 8)), "disout", where="layer3.*.conv[12]"))
    assert len(found) == 6
    assert found["layer3.0.conv1"] == "layer3.0.conv2"
    assert found["layer3.1.conv2"] == "layer3.2.conv1"
    assert found["layer3.2.conv2"] is None


@pytest.mark.parametrize("position", ["after", "before"])
def test_in_a_sequence_it_acts_once_and_at_its_end(position):
    network = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Linear(4, 2))
    calls = []
    for where_, after, before in (("", "1", "0.0"), ("0", "0.1", "0.0")):
        insertion = insert(network, "dropout", where=where_, position=position, p=1.0)
        (place,) = insertion.places
        assert place.name == (after if position == "after" else before)
        place.regularizer.register_forward_hook(lambda m, i, o: calls.append(o.shape))
        network.train()(torch.randn(5, 3))
        assert len(calls) == 1
        calls.clear()
        insertion.remove()


@pytest.mark.parametrize("container", [nn.Sequential(), nn.ModuleList([nn.ReLU()])])
def test_a_list_of_modules_is_refused(container):
    with pytest.raises(ValueError, match="computes nothing itself"):
        insert(nn.ModuleDict({"a": container}), "dropout", where="a")
