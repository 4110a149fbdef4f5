"""DropBlock and Disout as modules: identity, reproducibility, precision, compilation, state."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lastlayer.functional.blocks.disout import disout, next_layer_scale
from lastlayer.functional.blocks.released import disout_released
from lastlayer.regularizers import Disout, DropBlock

KINDS = [DropBlock, Disout]


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def awkward() -> torch.Tensor:
    x = torch.randn(2, 3, 8, 8, generator=generator())
    x[0, 0, 0, :4] = torch.tensor([-0.0, float("inf"), float("nan"), -float("inf")])
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_rate_zero_and_evaluation_return_the_input_and_draw_nothing(kind):
    x = awkward()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert kind(0.0)(x) is x
    assert kind(0.5).eval()(x) is x
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_gives_one_output(kind):
    x = torch.randn(4, 3, 8, 8)
    one = kind(0.2, block_size=3, generator=generator(1))(x)
    assert torch.equal(one, kind(0.2, block_size=3, generator=generator(1))(x))
    assert not torch.equal(one, kind(0.2, block_size=3, generator=generator(2))(x))


@pytest.mark.parametrize("kind", KINDS)
def test_the_input_is_not_changed(kind):
    x = torch.randn(4, 3, 8, 8)
    before = x.clone()
    kind(0.5, block_size=3)(x)
    assert torch.equal(x, before)


def test_disout_is_shaped_by_the_layer_it_follows():
    convolution = nn.Conv2d(3, 5, 3)
    layer = Disout(0.3, block_size=3, alpha=4.0, generator=generator(1)).follow(convolution)
    x = torch.randn(4, 3, 8, 8)
    source = generator(1)
    scale = next_layer_scale(convolution.weight, 3, generator=source)
    expected = disout(x, 0.3, block_size=3, alpha=4.0, scale=scale, generator=source)
    assert torch.equal(layer(x), expected)
    assert layer.next_layer is convolution
    assert not list(layer.parameters())
    assert layer.follow(None).next_layer is None


def test_disout_in_released_form_is_the_released_function():
    convolution = nn.Conv2d(3, 5, 3)
    layer = Disout(0.3, block_size=4, alpha=4.0, released=True).follow(convolution)
    x = torch.randn(4, 3, 8, 8)
    torch.manual_seed(0)
    found = layer(x)
    torch.manual_seed(0)
    expected = disout_released(x, 0.3, block_size=4, alpha=4.0, next_weight=convolution.weight)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision_keep_the_dtype(kind, dtype):
    convolution = nn.Conv2d(3, 3, 3, padding=1)
    layer = kind(0.3, block_size=3)
    with torch.autocast("cpu", dtype=dtype):
        out = layer(convolution(torch.randn(2, 3, 8, 8)))
    assert out.dtype == dtype
    layer.to(dtype)
    assert layer.p == 0.3
    assert float(layer._rate) == pytest.approx(0.3, rel=1e-6)
    assert layer(torch.randn(2, 3, 8, 8, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_travels_with_the_state(kind):
    layer = kind(0.1)
    layer.p = 1 / 3
    other = kind(0.5)
    other.load_state_dict(layer.state_dict())
    assert other.p == 1 / 3
    assert copy.deepcopy(layer).p == 1 / 3
    assert all(isinstance(value, torch.Tensor) for value in layer.state_dict().values())


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_in_one_graph_for_all_rates(kind):
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    layer = kind(0.1, block_size=3)
    compiled = torch.compile(layer, fullgraph=True, backend=counter)
    x = torch.ones(16, 4, 8, 8)
    for p in (0.1, 0.0, 0.6):
        layer.p = p
        share = float((compiled(x) == 0).float().mean())
        assert share == pytest.approx(p, abs=0.12)
        assert (share == 0) == (p == 0)
    assert counter.frame_count == 1
    assert torch.equal(torch.compile(layer.eval(), fullgraph=True, backend=counter)(x), x)


def test_compiled_disout_behind_its_layer_trains():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity(), nn.Conv2d(4, 2, 3))
    network[1] = Disout(0.2, block_size=3).follow(network[2])
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    compiled(torch.randn(2, 3, 8, 8)).sum().backward()
    assert network[0].weight.grad is not None


def test_the_released_form_needs_plain_blocks():
    with pytest.raises(ValueError, match="released=True"):
        Disout(released=True, share_channels=True)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (DropBlock, {"p": -0.1}, "p must lie in"),
        (DropBlock, {"block_size": 0}, "block_size must be a whole number"),
        (DropBlock, {"sampler": "fast"}, "sampler must be one of"),
        (Disout, {"alpha": -1.0}, "alpha must be"),
    ],
)
def test_bad_arguments_are_named_at_construction(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


def test_a_layer_without_weight_cannot_be_followed():
    with pytest.raises(TypeError, match="one weight for one input; got ReLU"):
        Disout().follow(nn.ReLU())


def test_under_checkpointing_the_recomputed_mask_is_the_same():
    from torch.utils.checkpoint import checkpoint

    layer = Disout(0.3, block_size=3)
    x = torch.randn(4, 3, 8, 8, requires_grad=True)
    torch.manual_seed(3)
    out = checkpoint(layer, x, use_reentrant=False)
    out.sum().backward()
    torch.manual_seed(3)
    plain = layer(x.detach().requires_grad_())
    assert torch.equal(out, plain)
    kept = (x.grad != 0).double()
    torch.testing.assert_close(x.grad.double(), kept / kept.mean())
