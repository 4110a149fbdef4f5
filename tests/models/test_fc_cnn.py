"""The FC-CNN: sizes, names, arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lastlayer.models import FCCNN, build


def test_sizes_are_those_of_the_paper():
    network = build("fc-cnn", (3, 32, 32))
    assert [network.layers[layer].in_features for layer in (10, 12)] == [2304, 2048]
    assert network.out_features == 2048
    convolutions = 75 * 96 + 96 + 25 * 96 * 128 + 128 + 25 * 128 * 256 + 256
    full = 2304 * 2048 + 2048 + 2048 * 2048 + 2048 + 2048 * 10 + 10
    counted = sum(p.numel() for p in network.parameters()) + 2048 * 10 + 10
    assert counted == convolutions + full == 10_071_562


@pytest.mark.parametrize("batch_norm", [False, True])
@torch.no_grad()
def test_features_are_convolution_relu_pooling_and_linear_layers(batch_norm):
    torch.manual_seed(1)
    network = FCCNN((2, 21, 17), channels=(3, 4, 5), hidden=(7, 6, 5), batch_norm=batch_norm)
    network = network.double()
    layers = network.layers
    images = x = torch.randn(4, 2, 21, 17, dtype=torch.float64)
    for number in (1, 2, 3):
        conv = layers.get_submodule(f"conv{number}")
        x = F.conv2d(x, conv.weight, conv.bias, padding=2)
        if batch_norm:
            mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), False, keepdim=True)
            x = (x - mean) / torch.sqrt(variance + 1e-5)
        x = F.relu(x).unfold(2, 3, 2).unfold(3, 3, 2).amax(dim=(-2, -1))
    x = x.flatten(1)
    for number in (1, 2, 3):
        linear = layers.get_submodule(f"fc{number}")
        x = F.relu(x @ linear.weight.T + linear.bias)
    torch.testing.assert_close(network(images), x, rtol=1e-10, atol=1e-12)


def test_a_relu_of_its_own_name_follows_every_fully_connected_layer():
    layers = dict(FCCNN((1, 28, 28), hidden=(5, 4)).layers.named_children())
    names = list(layers)
    assert names[-4:] == ["fc1", "fc_relu1", "fc2", "fc_relu2"]
    assert all(isinstance(layers[name], nn.ReLU) for name in ("fc_relu1", "fc_relu2"))


def test_batch_norm_is_there_only_when_asked_for():
    counts = {
        choice: sum(
            isinstance(m, nn.BatchNorm2d)
            for m in FCCNN((1, 15, 15), hidden=(3,), batch_norm=choice).modules()
        )
        for choice in (False, True)
    }
    assert counts == {False: 0, True: 3}


@torch.no_grad()
def test_bf16_stays_bf16_and_near_float64():
    torch.manual_seed(2)
    network = FCCNN((3, 15, 15), channels=(8, 8, 8), hidden=(16, 16))
    images = torch.rand(8, 3, 15, 15)
    found = network.bfloat16()(images.bfloat16())
    assert found.dtype == torch.bfloat16
    expected = network.double()(images.bfloat16().double())
    assert F.cosine_similarity(found.double(), expected).min() > 0.995
