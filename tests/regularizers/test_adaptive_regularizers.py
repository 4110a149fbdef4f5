"""Regularizers that learn their rate: penalties, bounds, learning, refusals."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from lastlayer.functional.feature_noise import log_uniform_kl
from lastlayer.regularizers import (
    ConcreteDropout,
    Dropout,
    VariationalDropout,
    total_penalty,
)
from lastlayer.regularizers.adaptive import AdaptiveRegularizer

CLASSES = [VariationalDropout, ConcreteDropout]


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("p", [0.01, 0.3, 0.5])
def test_the_first_rate_is_the_initial_one(cls, p):
    layer = cls(4, 100, p=p)
    assert layer.initial_p == p
    assert layer.p == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_rate_cannot_be_set(cls):
    layer = cls(4, 100, p=0.3)
    with pytest.raises(AttributeError, match=f"{cls.__name__} learns its rate: p cannot be set"):
        layer.p = 0.1
    assert layer.p == pytest.approx(0.3)


@pytest.mark.parametrize("cls", CLASSES)
def test_resetting_returns_to_the_initial_rate(cls):
    layer = cls(4, 100, p=0.3)
    with torch.no_grad():
        next(layer.parameters()).fill_(-5.0)
    assert layer.p < 0.01
    layer.reset_parameters()
    assert layer.p == pytest.approx(0.3)


@pytest.mark.parametrize("approximation", ["kingma", "molchanov"])
def test_the_variational_penalty_is_the_divergence_of_all_channels_per_example(approximation):
    layer = VariationalDropout(3, 50, approximation=approximation).double()
    with torch.no_grad():
        layer.log_alpha.copy_(torch.tensor([-3.0, -1.0, -0.2]))
    expected = log_uniform_kl(layer.log_alpha, approximation=approximation).sum() / 50
    torch.testing.assert_close(layer.penalty(), expected)
    torch.testing.assert_close(layer.eval().penalty(), expected)


def test_the_concrete_penalty_is_weight_and_entropy_per_example():
    linear = nn.Linear(7, 5).double()
    layer = ConcreteDropout(7, 50, p=0.2, layer=linear, length_scale=0.3).double()
    norm = linear.weight.square().sum().item()
    entropy = -0.2 * math.log(0.2) - 0.8 * math.log(0.8)
    expected = (0.3**2 / (2 * 0.8) * norm - 7 * entropy) / 50
    assert layer.penalty().item() == pytest.approx(expected, rel=1e-7)


def test_the_concrete_penalty_teaches_the_weight_and_the_rate():
    linear = nn.Linear(3, 2)
    layer = ConcreteDropout(3, 50, layer=linear)
    layer.penalty().backward()
    assert linear.weight.grad is not None
    assert layer.p_logit.grad is not None


def test_the_next_layer_is_no_submodule_and_is_copied_with_the_network():
    linear = nn.Linear(3, 2)
    network = nn.Sequential(ConcreteDropout(3, 50, layer=linear), linear)
    assert set(network.state_dict()) == {"0.p_logit", "0._extra_state", "1.weight", "1.bias"}
    assert list(network[0].children()) == []
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin[1].weight.fill_(1e6)
    assert twin[0].penalty() > network[0].penalty() + 0.1


def test_the_bound_of_one_holds_and_lets_go_again():
    layer = VariationalDropout(2, 50, p=0.5)
    with torch.no_grad():
        layer.log_alpha.copy_(torch.tensor([3.0, -1.0]))
    assert layer.learned_rate()[0] == 0.5
    torch.manual_seed(0)
    out = layer(torch.ones(20_000, 2))
    assert out[:, 0].var().item() == pytest.approx(1.0, rel=5 * math.sqrt(2 / 20_000))
    gradient = torch.autograd.grad(out.square().mean(), layer.log_alpha)[0]
    assert (gradient > 0).all()  # noise costs: the one beyond the bound is drawn back too


def test_only_the_kingma_form_is_bounded():
    with pytest.raises(ValueError, match=r"p must lie in \(0, 0.5\] with approximation"):
        VariationalDropout(2, 50, p=0.6)
    layer = VariationalDropout(2, 50, p=0.6, approximation="molchanov")
    assert layer.p == pytest.approx(0.6)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_channel_is_perturbed_as_a_whole_unless_told_otherwise(cls):
    x = torch.ones(5, 3, 4, 4)
    whole = cls(3, 50, generator=generator())(x)
    torch.testing.assert_close(whole, whole[..., :1, :1].expand_as(x), rtol=0, atol=0)
    single = cls(3, 50, unit="element", generator=generator())(x)
    assert single.flatten(2).std(-1).max() > 0


@pytest.mark.parametrize("cls", CLASSES)
def test_noise_is_learned_away_where_it_hurts(cls):
    """Regression on a noiseless target: the likelihood outweighs the penalty, the rate falls."""
    torch.manual_seed(0)
    layer = cls(3, 10_000, p=0.3)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    x = torch.randn(256, 3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = 50 * (layer(x) - x).square().sum(1).mean() + layer.penalty()
        loss.backward()
        optimizer.step()
    assert layer.p < 0.1


@pytest.mark.parametrize("cls", CLASSES)
def test_without_a_likelihood_the_penalty_takes_the_rate_to_one_half(cls):
    """The most entropic mask, or the widest noise that the bound allows."""
    layer = cls(3, 1, p=0.2)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        layer.penalty().backward()
        optimizer.step()
    assert layer.p == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("shape", [(4, 2), (3,), (4, 2, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_another_number_of_channels_is_refused(cls, shape, training):
    with pytest.raises(ValueError, match=r"features must have shape \(N, 3, ...\); got"):
        cls(3, 50).train(training)(torch.ones(shape))


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_features": 0}, "num_features must be a whole number of at least 1; got 0"),
        ({"num_examples": 0}, "num_examples must be a whole number of at least 1; got 0"),
        ({"p": 0.0}, r"p must lie in \(0, 1\); got 0.0"),
        ({"p": 1.0}, r"p must lie in \(0, 1\); got 1.0"),
        ({"unit": "pixel"}, "unit must be one of 'element', 'channel', 'example'"),
    ],
)
def test_what_does_not_fit_is_refused_at_construction(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(**{"num_features": 3, "num_examples": 50, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": nn.ReLU()}, "layer must have a weight; got ReLU"),
        ({"temperature": 0.0}, "temperature must be a finite number above 0"),
        ({"length_scale": 0.0}, "length_scale must be a finite number above 0"),
    ],
)
def test_concrete_dropout_refuses_its_own_options_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        ConcreteDropout(3, 50, **options)


def test_an_unknown_approximation_is_refused_at_construction():
    with pytest.raises(ValueError, match="approximation must be one of"):
        VariationalDropout(3, 50, approximation="taylor")


def test_the_total_is_the_sum_over_the_network_each_part_once():
    shared = VariationalDropout(4, 50)
    linear = nn.Linear(4, 2)
    concrete = ConcreteDropout(4, 50, layer=linear)
    network = nn.Sequential(shared, nn.Sequential(Dropout(0.5), shared), concrete, linear)
    torch.testing.assert_close(total_penalty(network), shared.penalty() + concrete.penalty())
    total_penalty(network).backward()
    assert shared.log_alpha.grad is not None
    assert concrete.p_logit.grad is not None


def test_the_total_of_nothing_is_zero():
    assert total_penalty(nn.Linear(2, 2)) == 0
    assert total_penalty(nn.ReLU()) == 0


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_the_loss_with_its_penalty_compiles_into_one_graph():
    torch._dynamo.reset()
    linear = nn.Linear(4, 2)
    network = nn.Sequential(VariationalDropout(4, 50), ConcreteDropout(4, 50, layer=linear), linear)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return network(x).square().mean() + total_penalty(network)

    x, parameters = torch.randn(5, 4), list(network.parameters())
    results = []
    for call in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(0)
        value = call(x)
        results.append((value, *torch.autograd.grad(value, parameters)))
    for eager, graph in zip(*results, strict=True):
        torch.testing.assert_close(graph, eager)


def test_adaptive_is_what_a_schedule_can_ask_for():
    assert isinstance(VariationalDropout(2, 5), AdaptiveRegularizer)
    assert not isinstance(Dropout(0.5), AdaptiveRegularizer)
