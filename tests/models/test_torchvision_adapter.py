"""torchvision's residual networks as backbones, and what is said where there are none."""

from __future__ import annotations

import importlib
import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from scipy import stats
from torch import nn

from lastlayer.models import Backbone, build


@pytest.fixture
def torchvision():
    """The library itself, where it is installed and fits torch."""
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision is not usable here: {error}")


class Block(nn.Module):
    def __init__(self, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(64, 64, 1)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv1(x) + (x if self.downsample is None else self.downsample(x))


class Network(nn.Module):
    """The outline of torchvision's networks."""

    def __init__(self, weights: object, zero_init_residual: bool) -> None:
        super().__init__()
        self.arguments = (weights, zero_init_residual)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.layer1 = nn.Sequential(Block(nn.Conv2d(64, 64, 1)), Block(None))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.avgpool(self.layer1(self.conv1(x))).flatten(1))


@pytest.fixture
def outlines(monkeypatch):
    """Every network built by a torchvision of outlines."""
    built: list[Network] = []

    def resnet18(**arguments):
        built.append(Network(**arguments))
        return built[-1]

    fake = ModuleType("torchvision")
    fake.models = SimpleNamespace(resnet18=resnet18)
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    return built


def test_the_last_layer_is_left_out_and_names_are_kept(outlines):
    backbone = build("resnet18", (3, 20, 12)).eval()
    assert isinstance(backbone, Backbone)
    assert outlines[0].arguments == (None, True)
    assert backbone.out_features == 64
    images = torch.rand(2, 3, 20, 12)
    torch.testing.assert_close(outlines[0].fc(backbone(images)), outlines[0](images))
    names = set(backbone.state_dict()) | {"fc.weight", "fc.bias"}
    assert names == set(outlines[0].state_dict())


def test_every_block_has_a_shortcut_that_can_be_named(outlines):
    blocks = build("resnet18", (3, 8, 8)).layer1
    assert [type(block.downsample) for block in blocks] == [nn.Conv2d, nn.Identity]


def test_other_channels_get_a_first_convolution_of_he_fan_out(outlines):
    torch.manual_seed(0)
    conv = build("resnet18", (5, 8, 8)).conv1
    assert conv.weight.shape == (64, 5, 7, 7)
    assert (conv.stride, conv.padding, conv.bias) == ((2, 2), (3, 3), None)
    law = stats.norm(scale=math.sqrt(2 / (49 * 64)))
    assert stats.kstest(conv.weight.detach().double().numpy().ravel(), law.cdf).pvalue > 1e-6


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_without_torchvision_the_extra_is_named(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=rf"'{name}' needs torchvision: .*lastlayer\[vision\]"):
        build(name, (3, 32, 32))


def test_a_torchvision_of_another_torch_is_named(monkeypatch):
    class Broken(ModuleType):
        def __getattr__(self, name):
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "torchvision", Broken("torchvision"))
    with pytest.raises(ImportError, match=r"does not fit the installed torch .*nms"):
        build("resnet50", (3, 32, 32))


def test_a_vector_is_refused_before_torchvision_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ValueError, match="resnet50 takes images"):
        build("resnet50", (20,))


@pytest.mark.parametrize(
    ("name", "features", "count", "last"),
    [
        ("resnet10", 512, 5_418_792, "bn2"),
        ("resnet18", 512, 11_689_512, "bn2"),
        ("resnet50", 2048, 25_557_032, "bn3"),
        ("resnet152", 2048, 60_192_808, "bn3"),
    ],
)
def test_the_real_networks(torchvision, name, features, count, last):
    backbone = build(name, (3, 32, 32))
    assert backbone.out_features == features
    counted = sum(p.numel() for p in backbone.parameters()) + 1000 * features + 1000
    assert counted == count
    assert backbone(torch.rand(2, 3, 32, 32)).shape == (2, features)
    for stage in (backbone.layer1, backbone.layer4):
        for block in stage:
            assert bool((getattr(block, last).weight == 0).all())
            assert isinstance(block.downsample, nn.Module)
    law = stats.norm(scale=math.sqrt(2 / (49 * 64)))
    weight = backbone.conv1.weight.detach().double().numpy().ravel()
    assert stats.kstest(weight, law.cdf).pvalue > 1e-6


def test_features_of_the_real_network_are_what_its_last_layer_sees(torchvision):
    network = torchvision.models.resnet18(weights=None).eval()
    backbone = build("resnet18", (3, 40, 40)).eval()
    backbone.load_state_dict(
        {name: value for name, value in network.state_dict().items() if not name.startswith("fc.")}
    )
    images = torch.rand(2, 3, 40, 40)
    torch.testing.assert_close(network.fc(backbone(images)), network(images))
