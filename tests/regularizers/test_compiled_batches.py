"""Compiled regularizers, and networks with them, take batches of any size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lastlayer.regularizers import Disout, build_regularizer, insert

ADAPTIVE = {"num_features": 3, "num_examples": 50}
OPTIONS = {
    "dropout": {},
    "spatial-dropout": {},
    "drop-path": {},
    "drop-block": {"block_size": 2},
    "disout": {"block_size": 2},
    "cutout": {"length": 3},
    "gaussian-dropout": {},
    "variational-dropout": ADAPTIVE,
    "concrete-dropout": ADAPTIVE,
    "standout": {},
}
BATCHES = (8, 5, 3)


def batch(size: int, channel_dim: int = 1) -> torch.Tensor:
    features = torch.randn(size, 3, 6, 5, generator=torch.Generator().manual_seed(size))
    return features if channel_dim == 1 else features.movedim(1, -1)


def same_as_eager(layer: nn.Module, compiled, features: torch.Tensor) -> None:
    results = []
    for call in (layer, compiled):
        x = features.clone().requires_grad_()
        torch.manual_seed(0)
        out = call(x)
        results.append((out, *torch.autograd.grad(out.square().sum(), x)))
    for eager, graph in zip(*results, strict=True):
        torch.testing.assert_close(graph, eager)


@pytest.mark.parametrize("channel_dim", [1, -1])
@pytest.mark.parametrize("dynamic", [True, None])
@pytest.mark.parametrize("name", OPTIONS)
def test_three_batch_sizes_in_one_graph_each_give_the_eager_values(name, dynamic, channel_dim):
    torch._dynamo.reset()
    options = {"p": 0.4, **OPTIONS[name]}
    if channel_dim == -1:
        if name in ("dropout", "drop-path", "gaussian-dropout", "standout"):
            return  # no notion of channels: the same program
        options["channel_dim"] = -1
    if name in ("drop-block", "disout"):
        options["sampler"] = "dense"  # what compiled code takes
    layer = build_regularizer(name, **options)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for size in BATCHES:
        same_as_eager(layer, compiled, batch(size, channel_dim))


@pytest.mark.parametrize("released", [False, True])
def test_disout_behind_its_layer_takes_three_batch_sizes(released):
    torch._dynamo.reset()
    layer = Disout(0.4, block_size=3, sampler="dense", released=released)
    layer.follow(nn.Conv2d(3, 4, 3))
    compiled = torch.compile(layer, backend="eager", fullgraph=True, dynamic=True)
    for size in BATCHES:
        same_as_eager(layer, compiled, batch(size))


def test_cutout_with_a_fill_for_each_channel_takes_three_batch_sizes():
    torch._dynamo.reset()
    layer = build_regularizer("cutout", length=3, fill=[0.1, 0.2, 0.3])
    compiled = torch.compile(layer, backend="eager", fullgraph=True, dynamic=True)
    for size in BATCHES:
        same_as_eager(layer, compiled, batch(size))


def test_a_network_with_insertions_takes_three_batch_sizes():
    torch._dynamo.reset()
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    insert(network, "disout", where="0", p=0.3, block_size=2, sampler="dense")
    insert(network, "spatial-dropout", where="2", p=0.3)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in BATCHES:
        same_as_eager(network, compiled, batch(size))


@pytest.mark.parametrize("name", OPTIONS)
def test_under_vmap_every_copy_draws_for_itself(name):
    layer = build_regularizer(name, p=0.5, **OPTIONS[name])
    torch.manual_seed(0)
    out = torch.vmap(layer, randomness="different")(batch(8).expand(4, -1, -1, -1, -1))
    assert out.shape == (4, 8, 3, 6, 5)
    assert not torch.equal(out[0], out[1])
