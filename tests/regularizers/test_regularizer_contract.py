"""What every regularizer promises, each by its name in the catalog."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from lastlayer.regularizers import (
    REGULARIZERS,
    Regularizer,
    Standout,
    build_regularizer,
)
from lastlayer.regularizers.adaptive import AdaptiveRegularizer

ADAPTIVE = {"num_features": 3, "num_examples": 50}
OPTIONS = {
    "dropout": {"p": 0.4},
    "spatial-dropout": {"p": 0.4},
    "drop-path": {"p": 0.4},
    "drop-block": {"p": 0.4, "block_size": 2, "sampler": "dense"},
    "disout": {"p": 0.4, "block_size": 2, "sampler": "dense"},
    "cutout": {"length": 3, "p": 0.8},
    "gaussian-dropout": {"p": 0.4},
    "variational-dropout": {"p": 0.4, **ADAPTIVE},
    "concrete-dropout": {"p": 0.4, **ADAPTIVE},
    "standout": {"p": 0.4},
}
SCHEDULED = [name for name, options in OPTIONS.items() if "num_features" not in options]
SHAPE = (8, 3, 6, 5)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(name: str, **options) -> Regularizer:
    return build_regularizer(name, **{**OPTIONS[name], **options})


def features(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(SHAPE, generator=generator()).to(dtype)


def test_every_regularizer_of_ours_is_tested_here():
    assert set(OPTIONS) == set(REGULARIZERS.names())
    assert all(REGULARIZERS.describe().values())


@pytest.mark.parametrize("name", OPTIONS)
def test_training_changes_the_features_and_repeats_with_its_generator(name):
    first, second = (build(name, generator=generator())(features()) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, features())
    assert not torch.equal(first, build(name, generator=generator(4))(features()))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_generator_of_its_own_leaves_torchs_default_alone(name):
    layer = build(name, generator=generator())
    before = torch.get_rng_state()
    layer(features())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "standout"])
def test_evaluation_returns_the_input_itself_and_draws_nothing(name):
    layer, x = build(name).eval(), features()
    before = torch.get_rng_state()
    assert layer(x) is x
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SCHEDULED)
def test_rate_zero_returns_the_input_itself_and_draws_nothing(name, training):
    layer, x = build(name, p=0.0).train(training), features()
    before = torch.get_rng_state()
    assert layer(x) is x
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OPTIONS)
def test_dtype_is_kept_in_modules_of_any_dtype(name, dtype, training):
    layer = build(name).to(dtype).train(training)
    x = features(dtype).requires_grad_()
    out = layer(x)
    assert out.dtype == dtype
    assert torch.autograd.grad(out.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("name", OPTIONS)
def test_float32_parameters_serve_half_precision_features_as_under_autocast(name):
    layer = build(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(features(torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_memory_format_is_kept(name, training):
    x = features().to(memory_format=torch.channels_last)
    assert build(name).train(training)(x).stride() == x.stride()


@pytest.mark.parametrize("name", OPTIONS)
def test_a_bad_example_spoils_no_other(name):
    x = features()
    x[1] = math.nan
    out = build(name, generator=generator())(x)
    clean = build(name, generator=generator())(features())
    others = [0, *range(2, 8)]
    # Disout's noise follows the spread of the whole batch, of what is finite in it.
    loose = {"rtol": 0.02, "atol": 1e-3} if name == "disout" else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(out[others], clean[others], **loose)


@pytest.mark.parametrize("name", OPTIONS)
def test_integers_are_refused(name):
    with pytest.raises(TypeError, match="features must have a floating-point dtype"):
        build(name)(torch.ones(SHAPE, dtype=torch.int64))


@pytest.mark.parametrize("name", OPTIONS)
def test_an_empty_batch_goes_through(name):
    assert build(name)(torch.ones(0, 3, 6, 5)).shape == (0, 3, 6, 5)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_checkpoint_holds_the_rate_and_the_parameters(name):
    layer = build(name)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.sub_(0.25)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = build(name, p=0.3)
    assert other.p != layer.p
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.p == layer.p
    torch.manual_seed(0)
    expected = layer(features())
    torch.manual_seed(0)
    assert torch.equal(other(features()), expected)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_copy_is_independent_and_goes_on_where_its_original_was(name):
    layer = build(name, generator=generator())
    layer(features())
    other = copy.deepcopy(layer)
    assert torch.equal(layer(features()), other(features()))
    assert other.generator is not layer.generator
    if name in SCHEDULED:
        other.p = 0.2
    else:
        with torch.no_grad():
            next(other.parameters()).zero_().sub_(3.0)
    assert layer.p == pytest.approx(OPTIONS[name]["p"], abs=1e-6)
    assert layer.p != other.p


@pytest.mark.parametrize("name", OPTIONS)
def test_a_whole_module_can_be_pickled(name):
    file = io.BytesIO()
    torch.save(build(name, generator=generator()), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    expected = build(name, generator=generator())(features())
    assert torch.equal(loaded(features()), expected)


@pytest.mark.parametrize("name", OPTIONS)
def test_half_precision_does_not_round_a_scheduled_rate(name):
    layer = build(name).half()
    if isinstance(layer, AdaptiveRegularizer):
        assert layer.initial_p == OPTIONS[name]["p"]
    else:
        assert layer.p == OPTIONS[name]["p"]
        assert layer._rate.dtype == torch.float32


@pytest.mark.parametrize("name", OPTIONS)
def test_compiled_training_is_one_graph_and_gives_the_eager_values(name):
    torch._dynamo.reset()
    layer, x = build(name), features().requires_grad_()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    results = []
    for call in (layer, compiled):
        torch.manual_seed(0)
        out = call(x)
        results.append((out, *torch.autograd.grad(out.square().sum(), x)))
    for eager, graph in zip(*results, strict=True):
        torch.testing.assert_close(graph, eager)


@pytest.mark.parametrize("name", SCHEDULED)
def test_another_rate_does_not_compile_anew_and_is_obeyed(name):
    torch._dynamo.reset()
    layer, x = build(name), features()
    counter = CompileCounter()
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    rates = [0.4, 0.1, 0.0, 0.9] + ([] if name == "gaussian-dropout" else [1.0])
    for p in rates:
        layer.p = p
        torch.manual_seed(0)
        out = compiled(x)
        torch.manual_seed(0)
        torch.testing.assert_close(out, layer(x))
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", SCHEDULED)
def test_compiled_gradients_are_finite_at_both_ends_of_the_rate(name):
    torch._dynamo.reset()
    layer, x = build(name), features().requires_grad_()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for p in [0.0] + ([] if name == "gaussian-dropout" else [1.0]):
        layer.p = p
        gradient = torch.autograd.grad(compiled(x).sum(), x)[0]
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["variational-dropout", "concrete-dropout"])
def test_learning_does_not_compile_anew(name):
    torch._dynamo.reset()
    layer = build(name)
    counter = CompileCounter()
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    for step in range(3):
        with torch.no_grad():
            next(layer.parameters()).fill_(-float(step))
        compiled(features())
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", OPTIONS)
def test_an_evaluated_regularizer_exports_with_a_dynamic_batch(name):
    network = nn.Sequential(build(name), nn.ReLU()).eval()
    program = torch.export.export(
        network, (features(),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    for x in (features()[:2], features()):
        torch.testing.assert_close(program.module()(x), network(x))


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_rate_out_of_range_is_refused(name, p):
    with pytest.raises(ValueError, match=r"p must lie in"):
        build(name, p=p)


@pytest.mark.parametrize("name", SCHEDULED)
def test_a_schedule_may_set_the_rate_but_not_out_of_range(name):
    layer = build(name)
    layer.p = 0.25
    assert layer.p == layer.rate == 0.25
    with pytest.raises(ValueError, match="p must lie in"):
        layer.p = 2.0
    assert layer.p == 0.25


@pytest.mark.parametrize("name", SCHEDULED)
def test_a_regularizer_that_learns_nothing_has_no_penalty(name):
    layer = build(name)
    assert layer.penalty().item() == 0.0
    assert not list(layer.parameters())


@pytest.mark.parametrize("name", OPTIONS)
def test_its_text_names_the_rate(name):
    assert "p=0." in repr(build(name))


def test_a_wrong_name_or_option_is_named():
    with pytest.raises(ValueError, match=r"unknown regularizer 'dropot'. Did you mean 'dropout'"):
        build_regularizer("dropot")
    with pytest.raises(
        ValueError, match=r"'dropout' does not take the options \{'block_size': 3\}"
    ):
        build_regularizer("dropout", block_size=3)


def test_standout_alone_is_not_the_identity_in_evaluation():
    x = features()
    out = Standout(0.4).eval()(x)
    assert not torch.equal(out, x)


@pytest.mark.parametrize("shape", [(0, 3, 6, 5), (4, 3, 0, 6), (4, 3, 5, 0), (0, 3, 0, 0)])
@pytest.mark.parametrize("name", OPTIONS)
def test_empty_maps_pass_with_a_gradient_as_torchs_dropout_lets_them(name, shape):
    samplers = ["auto", "sparse", "dense"] if name in ("drop-block", "disout") else [None]
    for sampler in samplers:
        layer = build(name, **({} if sampler is None else {"sampler": sampler}))
        for x in (torch.empty(shape), torch.empty(shape).to(memory_format=torch.channels_last)):
            x.requires_grad_()
            out = layer(x)
            assert out.shape == torch.nn.functional.dropout(x, 0.5).shape
            out.sum().backward()
            assert x.grad.shape == x.shape
