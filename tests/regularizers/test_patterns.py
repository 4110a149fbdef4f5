"""Patterns of module names, against a regular expression and the names by hand."""

from __future__ import annotations

import itertools
import re
from fnmatch import fnmatchcase

import pytest
from torch import nn

from lastlayer._patterns import matching_names
from lastlayer.experiments import Recipe
from lastlayer.models import build
from lastlayer.regularizers import insert

NAMES = [
    "",
    *(".".join(p) for n in (1, 2, 3) for p in itertools.product(("a", "ab", "b1"), repeat=n)),
]


@pytest.mark.parametrize(
    ("pattern", "expression"),
    [
        ("a.*", r"a\.[^.]*"),
        ("*", r"[^.]+"),
        ("*.b[12]", r"[^.]+\.b[12]"),
        ("a?", r"a[^.]"),
        ("a.**", r"a\..+"),
        ("**.b1", r"(.+\.)?b1"),
        ("a.**.b1", r"a\.(.+\.)?b1"),
        ("**", r".+"),
        ("**.a*", r"(.+\.)?a[^.]*"),
        ("", r""),
    ],
)
def test_a_star_keeps_within_a_name_and_two_cross_the_dots(pattern, expression):
    expected = [name for name in NAMES if re.fullmatch(expression, name)]
    assert matching_names(pattern, NAMES) == expected
    assert expected


def test_two_stars_beside_other_characters_are_refused():
    with pytest.raises(ValueError, match=r"\*\* stands alone between dots.*got 'conv\*\*'"):
        matching_names("conv**", NAMES)


def _attention_block(width: int) -> nn.Module:
    block = nn.Module()
    block.norm1, block.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
    block.attn = nn.ModuleDict(
        {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
    )
    block.mlp = nn.ModuleDict({"fc1": nn.Linear(width, width), "fc2": nn.Linear(width, width)})
    return block


def test_blocks_star_means_the_blocks_and_not_what_is_in_them():
    network = nn.Module()
    network.blocks = nn.Sequential(*(_attention_block(4) for _ in range(12)))
    names = [place.name for place in insert(network, "drop-path", where="blocks.*").places]
    assert names == [f"blocks.{i}" for i in range(12)]


@pytest.mark.parametrize(
    ("recipe", "model", "size"),
    [
        ("disout-cifar10-resnet56", "preact-resnet56", 32),
        ("disout-cifar100-resnet56", "preact-resnet56", 32),
        ("disout-cifar10-fc-cnn", "fc-cnn", 32),
        ("disout-cifar10-small", "fc-cnn", 32),
    ],
)
def test_the_recipes_patterns_mean_what_fnmatch_made_of_them(recipe, model, size):
    network = build(model, (3, size, size))
    names = [name for name, _ in network.named_modules()]
    for place in Recipe.load(recipe).config["regularizer"]["places"]:
        patterns = [place["where"]] if isinstance(place["where"], str) else place["where"]
        for pattern in patterns:
            expected = [name for name in names if fnmatchcase(name, pattern)]
            assert expected
            assert matching_names(pattern, names) == expected


def test_the_imagenet_recipes_patterns_mean_what_fnmatch_made_of_them():
    """On the names of torchvision's ResNet-50, written out."""
    blocks = {1: 3, 2: 4, 3: 6, 4: 3}
    parts = [f"{kind}{i}" for i in (1, 2, 3) for kind in ("conv", "bn")] + ["relu"]
    names = ["", "conv1", "bn1", "layer3", "layer4", "avgpool", "fc"]
    for stage, count in blocks.items():
        for block in range(count):
            inside = parts + (["downsample", "downsample.0", "downsample.1"] if block == 0 else [])
            names += [f"layer{stage}.{block}"] + [f"layer{stage}.{block}.{part}" for part in inside]
    for place in Recipe.load("disout-imagenet-resnet50").config["regularizer"]["places"]:
        patterns = [place["where"]] if isinstance(place["where"], str) else place["where"]
        for pattern in patterns:
            expected = [name for name in names if fnmatchcase(name, pattern)]
            assert expected
            assert matching_names(pattern, names) == expected
