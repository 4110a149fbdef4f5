"""The CIFAR ResNets: sizes, names, arithmetic, initialization."""

from __future__ import annotations

import itertools
import math
from fnmatch import fnmatchcase

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from lastlayer.models import CifarResNet, build

NAMES = [f"{kind}resnet{depth}" for kind in ("", "preact-") for depth in (20, 32, 56)]


def counted(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def parameters_by_hand(depth: int, block: str, channels: int, width: int, classes: int) -> int:
    """Weights layer by layer: convolutions, scale and shift of each normalization, classifier."""
    n, widths = (depth - 2) // 6, (width, 2 * width, 4 * width)
    convolutions = 9 * channels * width + 2 * n * 9 * width**2
    normalized = width + n * 2 * width  # the stem and the first stage
    for before, after in itertools.pairwise(widths):
        convolutions += 9 * before * after + (2 * n - 1) * 9 * after**2
        normalized += n * 2 * after
        if block == "preact":
            convolutions += before * after  # the projection
            normalized += before - after  # the first block normalizes what comes in
    if block == "preact":
        normalized += widths[-1] - width  # at the end instead of behind the stem
    return convolutions + 2 * normalized + widths[-1] * classes + classes


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet56", 853_018),
        ("preact-resnet20", 272_282),
        ("preact-resnet32", 466_714),
        ("preact-resnet56", 855_578),
    ],
)
def test_parameters_with_ten_classes_are_the_published_number(name, count):
    backbone = build(name, (3, 32, 32))
    assert backbone.out_features == 64
    assert counted(backbone) + counted(nn.Linear(64, 10)) == count


@pytest.mark.parametrize("block", ["basic", "preact"])
@pytest.mark.parametrize(("depth", "channels", "width"), [(8, 1, 4), (14, 3, 16), (20, 5, 7)])
def test_parameters_are_those_counted_by_hand(block, depth, channels, width):
    backbone = CifarResNet((channels, 8, 8), depth=depth, block=block, width=width)
    total = counted(backbone) + counted(nn.Linear(backbone.out_features, 10))
    assert total == parameters_by_hand(depth, block, channels, width, 10)


@pytest.mark.parametrize("name", NAMES)
def test_modules_are_found_by_stage_block_and_layer(name):
    names = [module_name for module_name, _ in build(name, (3, 8, 8)).named_modules()]
    blocks = (int(name[-2:]) - 2) // 6
    for stage in ("layer1", "layer2", "layer3"):
        for layer in ("conv1", "bn1", "relu1", "conv2", "bn2", "relu2", "shortcut"):
            found = [n for n in names if fnmatchcase(n, f"{stage}.*.{layer}")]
            assert found == [f"{stage}.{number}.{layer}" for number in range(blocks)]


def normalized(x: torch.Tensor, layer: nn.BatchNorm2d) -> torch.Tensor:
    mean, variance, scale, shift = (
        values.view(-1, 1, 1)
        for values in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return (x - mean) / torch.sqrt(variance + 1e-5) * scale + shift


def relu(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(min=0)


def by_hand(network: CifarResNet, x: torch.Tensor, block: str) -> torch.Tensor:
    """The papers' formulas, block by block."""
    x = F.conv2d(x, network.conv1.weight, padding=1)
    if block == "basic":
        x = relu(normalized(x, network.bn1))
    for stage, first_stride in ((network.layer1, 1), (network.layer2, 2), (network.layer3, 2)):
        for number, one in enumerate(stage):
            stride = first_stride if number == 0 else 1
            if block == "preact":
                a = relu(normalized(x, one.bn1))
                h = F.conv2d(a, one.conv1.weight, stride=stride, padding=1)
                h = F.conv2d(relu(normalized(h, one.bn2)), one.conv2.weight, padding=1)
                if stride == 2:
                    x = F.conv2d(a, one.shortcut.weight, stride=2)
                x = x + h
            else:
                h = relu(normalized(F.conv2d(x, one.conv1.weight, None, stride, 1), one.bn1))
                h = normalized(F.conv2d(h, one.conv2.weight, padding=1), one.bn2)
                if stride == 2:
                    taken = x[:, :, ::2, ::2]
                    x = torch.cat([taken, torch.zeros_like(taken)], dim=1)
                x = relu(x + h)
    if block == "preact":
        x = relu(normalized(x, network.bn))
    return x.mean(dim=(2, 3))


@pytest.mark.parametrize("block", ["basic", "preact"])
@pytest.mark.parametrize("size", [(8, 8), (11, 14)])
@torch.no_grad()
def test_features_are_the_papers_formulas(block, size):
    torch.manual_seed(0)
    network = CifarResNet((2, *size), depth=14, block=block, width=5).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                values.uniform_(0.5, 1.5)
            for values in (module.bias, module.running_mean):
                values.uniform_(-0.5, 0.5)
    images = torch.rand(3, 2, *size, dtype=torch.float64)
    expected = by_hand(network, images, block)
    torch.testing.assert_close(network(images), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("block", ["basic", "preact"])
def test_convolutions_are_he_normal_by_fan_out_and_normalizations_begin_neutral(block):
    torch.manual_seed(3)
    network = CifarResNet((3, 8, 8), depth=8, block=block)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            window = math.prod(module.kernel_size)
            law = stats.norm(scale=math.sqrt(2 / (window * module.out_channels)))
            weight = module.weight.detach().double().numpy().ravel()
            assert stats.kstest(weight, law.cdf).pvalue > 1e-6, name
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert bool((module.bias == 0).all())


@pytest.mark.parametrize("block", ["basic", "preact"])
@torch.no_grad()
def test_bf16_stays_bf16_and_near_float64(block):
    torch.manual_seed(4)
    network = CifarResNet((3, 16, 16), depth=14, block=block)
    images = torch.rand(8, 3, 16, 16)
    found = network.bfloat16()(images.bfloat16())
    assert found.dtype == torch.bfloat16
    expected = network.double()(images.bfloat16().double())
    assert F.cosine_similarity(found.double(), expected).min() > 0.999


@pytest.mark.parametrize("block", ["basic", "preact"])
def test_the_network_compiles_whole_and_keeps_channels_last(block):
    network = CifarResNet((3, 8, 8), depth=8, block=block).eval()
    images = torch.rand(2, 3, 8, 8)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), network(images))
    network.to(memory_format=torch.channels_last)
    inside = network.layer2(torch.rand(2, 16, 8, 8).to(memory_format=torch.channels_last))
    assert inside.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("depth", [2, 9, 19, 21, -4])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth):
    with pytest.raises(ValueError, match=rf"depth must be 6n \+ 2 .* got {depth}"):
        CifarResNet((3, 8, 8), depth=depth)


def test_an_unknown_block_is_refused():
    with pytest.raises(ValueError, match="block must be one of 'basic', 'preact'; got 'wide'"):
        CifarResNet((3, 8, 8), depth=8, block="wide")
