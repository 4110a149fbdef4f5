"""Compiled heads and losses take batches of any size, the last one of an epoch too."""

from __future__ import annotations

import copy

import pytest
import torch
from counted_heads import build_head
from torch import nn

from lastlayer import losses as L
from lastlayer.heads import HEADS, ClassDropout, DropMax, SampledSoftmax

D, K = 3, 4
COUNTS = [40, 20, 5, 2]
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
# How many nodes its quadrature visits depends on the data.
ONE_GRAPH = [name for name in NAMES if name != "dropmax-exact"]
LOSSES = {
    "sparsemax": L.SparsemaxLoss(),
    "entmax15": L.Entmax15Loss(),
    "entmax3": L.EntmaxLoss(3.0),
    "balanced-softmax": L.BalancedSoftmaxLoss(COUNTS),
    "class-balanced": L.ClassBalancedLoss(COUNTS),
    "ldam": L.LDAMLoss(COUNTS),
    "pc-softmax": L.PCSoftmaxLoss.from_counts(torch.tensor(COUNTS)),
    "class-dropout": L.ClassDropoutLoss(0.5),
    "sampled": L.SampledSoftmaxLoss(2),
    "sampled-learned": L.SampledSoftmaxLoss(2, "learned", K),
}
# torch's compiler itself instantiates every autograd function that it traces.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def batches(width: int):
    generator = torch.Generator().manual_seed(0)
    for rows in (7, 4, 2):
        target = torch.randint(0, K, (rows,), generator=generator)
        yield (
            torch.randn(rows, width, generator=generator),
            target.index_fill(0, torch.tensor(0), -100),
        )


def assert_same_in_every_batch(module: nn.Module, width: int, loss, *, backend: str, **options):
    twin = copy.deepcopy(module)  # some count labels
    compiled = torch.compile(twin, backend=backend, dynamic=True, **options)
    for inputs, target in batches(width):
        found = []
        for function in (module, compiled):
            torch.manual_seed(1)
            leaf = inputs.clone().requires_grad_()
            value = loss(function(leaf, target))
            found.append((value.detach(), torch.autograd.grad(value, leaf)[0]))
        for expected, own in zip(*found, strict=True):
            torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_training_heads_compile_once_for_batches_of_any_size(name):
    torch.manual_seed(0)
    head = build_head(name, D, K)
    assert_same_in_every_batch(
        head, D, lambda out: out.loss, backend="eager", fullgraph=name in ONE_GRAPH
    )


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_compile_once_for_batches_of_any_size(loss):
    assert_same_in_every_batch(loss.train(), K, lambda out: out, backend="eager", fullgraph=True)


@pytest.mark.parametrize("kind", [DropMax, SampledSoftmax, ClassDropout])
def test_gradients_of_heads_that_draw_pass_ahead_of_time_autograd(kind):
    torch.manual_seed(0)
    assert_same_in_every_batch(
        kind(D, K), D, lambda out: out.loss, backend="aot_eager", fullgraph=True
    )


def test_labels_are_counted_in_compiled_code_too():
    head = SampledSoftmax(D, K, proposal="learned")
    compiled = torch.compile(head, backend="eager", dynamic=True, fullgraph=True)
    seen = torch.ones(K, dtype=torch.int64)
    for inputs, target in batches(D):
        compiled(inputs, target).loss.backward()
        seen += torch.bincount(target[target >= 0], minlength=K)
    assert torch.equal(head.label_count, seen)
