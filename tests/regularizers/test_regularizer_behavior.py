"""What single regularizers do: rates, expectations, published variants."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lastlayer.functional.feature_noise import cutout_probability
from lastlayer.regularizers import (
    Cutout,
    Dropout,
    DropPath,
    GaussianDropout,
    SpatialDropout,
    Standout,
)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("ours", "torchs", "shape"),
    [
        (Dropout, nn.Dropout, (200, 50)),
        (SpatialDropout, nn.Dropout1d, (200, 50, 3)),
        (SpatialDropout, nn.Dropout2d, (200, 50, 2, 2)),
        (SpatialDropout, nn.Dropout3d, (200, 50, 2, 1, 2)),
    ],
)
@pytest.mark.parametrize("p", [0.1, 0.6])
def test_dropout_has_the_law_of_torchs(ours, torchs, shape, p):
    torch.manual_seed(0)
    units = [
        layer(torch.ones(shape)).flatten(2).mean(-1) if len(shape) > 2 else layer(torch.ones(shape))
        for layer in (ours(p), torchs(p))
    ]
    for values in units:  # the same two values
        torch.testing.assert_close(values.unique(), torch.tensor([0.0, 1 / (1 - p)]))
    rates = [(values == 0).double().mean().item() for values in units]
    assert abs(rates[0] - rates[1]) < 5 * math.sqrt(2 * p * (1 - p) / 10_000)


def test_drop_path_drops_whole_examples_at_its_rate():
    out = DropPath(0.3, generator=generator())(torch.ones(20_000, 2, 2))
    of_example = out.flatten(1)
    assert torch.equal(of_example.amin(1), of_example.amax(1))
    dropped = (of_example[:, 0] == 0).double().mean().item()
    assert abs(dropped - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 20_000)


def test_gaussian_dropout_has_no_rate_one():
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\), for the variance"):
        GaussianDropout(1.0)
    layer = GaussianDropout(0.5)
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\)"):
        layer.p = 1.0


def test_cutout_erases_the_pixels_at_their_probability():
    layer = Cutout(4, p=0.5, num_squares=2, generator=generator())
    out = layer(torch.ones(10_000, 1, 8, 8))
    probability = cutout_probability((8, 8), 4, num_squares=2, p=0.5)
    rate = (out[:, 0] == 0).double().mean(0)
    z = (rate - probability) / (probability * (1 - probability) / 10_000).sqrt()
    assert z.abs().max() < 5


def test_cutout_writes_its_fill_and_keeps_it_out_of_checkpoints():
    layer = Cutout(20, fill=[0.25, 0.5, 0.75])
    out = layer(torch.zeros(2, 3, 4, 4))
    assert torch.equal(out[0, :, 0, 0], torch.tensor([0.25, 0.5, 0.75]))
    assert set(layer.state_dict()) == {"_extra_state"}


@pytest.mark.parametrize("option", [{"length": 0}, {"length": 3, "num_squares": 0}])
def test_cutout_refuses_its_sizes_at_construction(option):
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        Cutout(**option)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("alpha", [0.0, 1.0, -2.0])
def test_standout_in_evaluation_is_the_mean_of_training(p, alpha):
    draws = 40_000
    layer = Standout(p, alpha=alpha, generator=generator())
    x = torch.tensor([-2.0, -0.3, 0.7, 1.5])
    mean = layer(x.expand(draws, 4)).double().mean(0)
    keep = layer.keep_probability(x).double()
    expected = layer.eval()(x).double()
    spread = x.abs() * (keep * (1 - keep) / draws).sqrt()
    assert ((mean - expected).abs() < 5 * spread).all()


@pytest.mark.parametrize("p", [0.2, 0.5, 1.0])
def test_standout_keeps_a_unit_at_zero_with_one_minus_p(p):
    keep = Standout(p).keep_probability(torch.zeros(3))
    torch.testing.assert_close(keep, torch.full((3,), 1 - p))


def test_standout_before_relu_is_standout_after_it():
    x = torch.randn(40, 5)
    before = torch.relu(Standout(0.5, generator=generator())(x))
    mask = Standout(0.5, generator=generator())(x) != 0
    assert torch.equal(before, torch.relu(x) * mask)


def test_standout_in_evaluation_has_the_derivative_of_what_it_computes():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Standout(0.3, alpha=1.5).eval(), x)
