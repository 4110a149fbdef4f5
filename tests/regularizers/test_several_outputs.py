"""Modules that give or take several values: the first tensor is changed, the rest is as it was."""

from __future__ import annotations

import copy
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lastlayer.regularizers import insert

Pair = namedtuple("Pair", ["loss", "hidden"])


@dataclass
class Output:
    loss: torch.Tensor
    hidden: torch.Tensor
    cache: list[int]


class ModelOutput(OrderedDict):
    """Read by key and by attribute, as transformers' outputs are."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)


class Layer(nn.Module):
    def __init__(self, wrap) -> None:
        super().__init__()
        self.wrap = wrap
        self.linear = nn.Linear(4, 4)

    def forward(self, hidden, mask=None):
        return self.wrap(self.linear(hidden))


LOSS, IDS = torch.tensor(2.0), torch.ones(3, 5, dtype=torch.int64)
FORMS = {
    "tuple": (lambda h: (h, IDS, None), lambda o: o[0]),
    "tuple behind ids": (lambda h: (IDS, h), lambda o: o[1]),
    "list": (lambda h: [h, LOSS], lambda o: o[0]),
    "nested": (lambda h: (None, (h, LOSS)), lambda o: o[1][0]),
    "named tuple": (lambda h: Pair(LOSS, h), lambda o: o.hidden),
    "dict": (lambda h: {"loss": LOSS, "hidden": h, "ids": IDS}, lambda o: o["hidden"]),
    "model output": (lambda h: ModelOutput(loss=LOSS, hidden=h), lambda o: o.hidden),
    "data class": (lambda h: Output(LOSS, h, [1, 2]), lambda o: o.hidden),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_first_tensor_is_changed_as_by_a_hook_of_ones_own(form):
    torch.manual_seed(0)
    wrap, hidden = FORMS[form]
    layer = Layer(wrap)
    twin = copy.deepcopy(layer)
    twin.linear.register_forward_hook(
        lambda m, i, o: nn.functional.dropout1d(o.transpose(1, 2), 0.5).transpose(1, 2)
    )
    insert(layer, "spatial-dropout", where="", p=0.5, channel_dim=-1)
    x = torch.randn(3, 5, 4)
    plain = layer.eval()(x)
    out = layer.train()(x)
    assert type(out) is type(plain)
    for ours in (hidden(out), hidden(twin(x))):  # the same two values a channel, in either
        kept = ours.abs().sum(1) > 0
        torch.testing.assert_close(ours, 2 * hidden(plain) * kept.unsqueeze(1))
        assert 0 < int(kept.sum()) < 12
    rest = [item for item in _flat(out) if isinstance(item, torch.Tensor) and item.dim() < 2]
    assert all(item is LOSS for item in rest)
    assert not any(item is IDS for item in _flat(plain)) or any(i is IDS for i in _flat(out))


def _flat(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, Output):
        value = [value.loss, value.hidden, value.cache]
    if not isinstance(value, tuple | list):
        return [value]
    return [item for part in value for item in _flat(part)]


def test_attention_keeps_its_weights():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    x = torch.randn(3, 5, 4)
    plain, weights = attention(x, x, x)
    insert(attention, "drop-path", where="", p=1.0)
    out, theirs = attention(x, x, x)
    assert torch.equal(out, torch.zeros_like(plain))
    assert torch.equal(theirs, weights)


def test_a_recurrent_layer_keeps_its_state():
    torch.manual_seed(0)
    layer, x = nn.LSTM(4, 6, batch_first=True), torch.randn(3, 5, 4)
    _, (h, c) = layer(x)
    insert(layer, "spatial-dropout", where="", p=1.0)
    out, (ours, cell) = layer(x)
    assert bool((out == 0).all())
    assert torch.equal(ours, h)
    assert torch.equal(cell, c)


@pytest.mark.parametrize("by_name", [False, True])
def test_before_a_layer_the_first_tensor_of_its_arguments_is_changed(by_name):
    layer = Layer(lambda h: h)
    insert(layer, "dropout", where="", position="before", p=1.0)
    mask, x = torch.ones(3, 5, dtype=torch.bool), torch.randn(3, 5, 4)
    out = layer(mask=mask, hidden=x) if by_name else layer(x, mask)
    torch.testing.assert_close(out, layer.linear.bias.expand(3, 5, 4))


def test_a_module_that_gives_no_tensor_is_named():
    layer = Layer(lambda h: None)
    insert(layer, "dropout", where="")
    with pytest.raises(TypeError, match=r"behind 'the network' \(Layer\) gives no floating-point"):
        layer(torch.ones(2, 4))
    layer = Layer(lambda h: (None, IDS))
    with pytest.raises(TypeError, match="has no floating-point tensor after it"):
        insert(layer, "dropout", where="", example=torch.ones(2, 4))


def test_a_network_of_tuples_compiles_in_one_graph():
    torch._dynamo.reset()
    network = nn.Sequential(Layer(lambda h: (h, None)))
    insert(network, "spatial-dropout", where="0", p=0.5, channel_dim=-1)
    out, _ = torch.compile(network, backend="eager", fullgraph=True)(torch.randn(3, 5, 4))
    assert bool((out == 0).all(1).any())
