"""Tasks with known information: values against closed forms, samples against the values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from information_tasks import (
    BivariateNormal,
    FiniteJoint,
    UniformMixture,
    erasure_channel,
    flip_labels,
    scale_mixture,
    symmetric_channel,
    two_gaussians,
)
from scipy.special import ndtr
from scipy.stats import chisquare, kstest, multivariate_normal, norm

from lastlayer.data import load
from lastlayer.data.gaussian_mixture import GaussianClasses, gaussian_mixture
from lastlayer.functional import information as fi

FIVE_GAUSSIANS = {  # d: balanced, unbalanced
    1: (1.031420, 1.022377),
    2: (1.300347, 1.239283),
    5: (1.554377, 1.444910),
    10: (1.605841, 1.486812),
}


def trapezoid_information(means, scales, prior) -> float:
    """The integral over a line, for classes of normal density."""
    t = np.linspace(-60, 60, 600_001)
    density = np.array(
        [p * norm.pdf(t, m, s) for m, s, p in zip(means, scales, prior, strict=True)]
    )
    mixture = density.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = density * np.log(density / mixture / np.array(prior)[:, None])
    return float(np.nan_to_num(terms).sum() * (t[1] - t[0]))


@pytest.mark.parametrize("dim", FIVE_GAUSSIANS)
@pytest.mark.parametrize("balanced", [True, False])
def test_five_gaussians_have_the_tabulated_information(dim, balanced):
    task = gaussian_mixture(dim, balanced=balanced)
    assert task.mutual_information == pytest.approx(
        FIVE_GAUSSIANS[dim][0 if balanced else 1], abs=1e-6
    )
    expected = trapezoid_information(
        math.sqrt(dim) * task.means.numpy(), task.scales.numpy(), task.prior.numpy()
    )
    assert task.mutual_information == pytest.approx(expected, abs=1e-9)
    assert task.mutual_information < float(fi.entropy(task.prior))


@pytest.mark.parametrize(
    ("task", "value"),
    [
        (two_gaussians(0.5), 0.111421),
        (two_gaussians(1.0), 0.336831),
        (two_gaussians(2.0), 0.632720),
        (two_gaussians(1.0, share=0.9), 0.142020),
        (two_gaussians(1.0, share=0.1), 0.142020),
        (scale_mixture(), 0.186494),
        (symmetric_channel(2, 0.11), 0.346632),
        (symmetric_channel(4, 0.2), 0.666169),
        (symmetric_channel(10, 0.3), 1.032553),
        (erasure_channel(2, 0.3), 0.485203),
        (erasure_channel(5, 0.25), 1.207078),
        (UniformMixture(5), 1.054920),
        (BivariateNormal(0.3), 0.047155),
        (BivariateNormal(0.5), 0.143841),
        (BivariateNormal(0.8), 0.510826),
        (BivariateNormal(0.8, label_bins=2, input_bins=512), 0.266580),
        (BivariateNormal(0.5, label_bins=4, input_bins=512), 0.121394),
        (BivariateNormal(0.8, label_bins=4, input_bins=512), 0.407119),
        (BivariateNormal(0.3, label_bins=64, input_bins=64), 0.046774),
        (BivariateNormal(0.5, label_bins=64, input_bins=64), 0.142589),
        (BivariateNormal(0.8, label_bins=64, input_bins=64), 0.505145),
    ],
)
def test_tasks_have_the_tabulated_information(task, value):
    assert task.mutual_information == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("num_classes", [2, 4, 10])
@pytest.mark.parametrize("error", [0.0, 0.11, 0.3, 1.0])
def test_channels_have_their_closed_forms(num_classes, error):
    log_k = math.log(num_classes)
    noise = 0.0
    if error < 1:
        noise += (1 - error) * math.log(1 - error)
    if error > 0:
        noise += error * math.log(error / (num_classes - 1))
    symmetric = symmetric_channel(num_classes, error)
    assert symmetric.mutual_information == pytest.approx(log_k + noise, abs=1e-12)
    erased = erasure_channel(num_classes, error)
    assert erased.mutual_information == pytest.approx((1 - error) * log_k, abs=1e-12)
    sigma = 1 - error * num_classes / (num_classes - 1)
    assert float(fi.chi_square_information(symmetric.joint)) == pytest.approx(
        (num_classes - 1) * sigma**2, abs=1e-12
    )
    assert float(fi.chi_square_information(erased.joint)) == pytest.approx(
        (num_classes - 1) * (1 - error), abs=1e-12
    )


def test_independent_symbols_have_no_information_and_certain_ones_all():
    assert symmetric_channel(4, 0.75).mutual_information == pytest.approx(0.0, abs=1e-12)
    assert symmetric_channel(4, 0.0).mutual_information == pytest.approx(math.log(4))
    assert BivariateNormal(0.0, label_bins=3).mutual_information == pytest.approx(0.0, abs=1e-9)
    assert UniformMixture(1).mutual_information == 0.0


@pytest.mark.parametrize("m", [1, 2, 5, 9])
def test_uniform_mixture_is_an_integral_over_unit_cells(m):
    density = np.zeros((m + 1, m))  # cell, label
    for label in range(m):
        density[label : label + 2, label] = 0.5 / m
    expected = float(fi.mutual_information(torch.from_numpy(density)))
    assert UniformMixture(m).mutual_information == pytest.approx(expected, abs=1e-14)


def test_sign_and_bins_lose_information_and_more_bins_lose_less():
    values = [BivariateNormal(0.8, label_bins=k).mutual_information for k in (2, 4, 16, 64)]
    values.append(BivariateNormal(0.8).mutual_information)
    assert values == sorted(values)
    both = BivariateNormal(0.8, label_bins=4, input_bins=16).mutual_information
    assert both < BivariateNormal(0.8, label_bins=4).mutual_information
    assert BivariateNormal(0.8, input_bins=4).mutual_information == pytest.approx(
        BivariateNormal(0.8, label_bins=4).mutual_information, abs=1e-12
    )
    negative = BivariateNormal(-0.8, label_bins=4).mutual_information
    assert negative == pytest.approx(
        BivariateNormal(0.8, label_bins=4).mutual_information, abs=1e-10
    )


def test_quadrant_probabilities_give_the_information_of_two_signs():
    joint = BivariateNormal(0.6, label_bins=2, input_bins=2)
    same = multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]]).cdf([0, 0])
    table = torch.tensor([[same, 0.5 - same], [0.5 - same, same]], dtype=torch.float64)
    assert joint.mutual_information == pytest.approx(float(fi.mutual_information(table)), abs=1e-7)


# --- samples -----------------------------------------------------------------------------------

TASKS = {
    "gaussian mixture": gaussian_mixture(3, balanced=False),
    "two gaussians": two_gaussians(1.0, share=0.9),
    "scales": scale_mixture(),
    "symmetric": symmetric_channel(4, 0.2),
    "erasure": erasure_channel(5, 0.25),
    "finite": FiniteJoint(torch.tensor([[0.5, 0.1], [0.1, 0.3]])),
    "uniform": UniformMixture(5),
    "normal": BivariateNormal(0.8),
    "sign": BivariateNormal(0.8, label_bins=2),
    "bins": BivariateNormal(0.8, label_bins=4, input_bins=3),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_seed_fixes_the_sample_and_another_changes_it(name):
    task = TASKS[name]
    first, again, other = task.sample(50, seed=1), task.sample(50, seed=1), task.sample(50, seed=2)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.y, again.y)
    assert not torch.equal(first.x, other.x)
    assert len(first.x) == len(first.y) == 50
    for part in first:
        assert part.dtype in (torch.int64, torch.float32)
        assert part.dim() == (1 if part.dtype == torch.int64 else 2)
    with pytest.raises(ValueError, match="n must be a whole number"):
        task.sample(0, seed=1)


@pytest.mark.parametrize("name", ["gaussian mixture", "two gaussians", "scales"])
def test_normal_classes_occur_and_spread_as_stated(name):
    task = TASKS[name]
    x, y = task.sample(20_000, seed=3)
    counts = torch.bincount(y, minlength=task.num_classes)
    assert chisquare(counts, 20_000 * task.prior.numpy()).pvalue > 1e-6
    for label in range(task.num_classes):
        for axis in range(task.dim):
            values = x[y == label, axis].numpy()
            law = norm(task.means[label], task.scales[label])
            assert kstest(values, law.cdf).pvalue > 1e-6
    if task.dim > 1:
        noise = (x - task.means[y].unsqueeze(-1)).numpy()
        assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 5 / math.sqrt(20_000)


@pytest.mark.parametrize("name", ["symmetric", "erasure", "finite"])
def test_finite_joints_are_sampled_cell_by_cell(name):
    task = TASKS[name]
    x, y = task.sample(20_000, seed=4)
    rows, columns = task.joint.shape
    counts = torch.bincount(x * columns + y, minlength=rows * columns)
    expected = task.joint.double().flatten()
    expected *= 20_000 / expected.sum()  # which single precision leaves at 1 + 1e-8
    assert int(counts[expected == 0].sum()) == 0
    assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 1e-6


def test_normal_pairs_have_the_stated_correlation_and_margins():
    x, y = (part.squeeze(-1).numpy() for part in TASKS["normal"].sample(20_000, seed=5))
    assert kstest(x, norm.cdf).pvalue > 1e-6
    assert kstest(y, norm.cdf).pvalue > 1e-6
    assert abs(np.corrcoef(x, y)[0, 1] - 0.8) < 5 * (1 - 0.64) / math.sqrt(20_000)
    bins = TASKS["bins"].sample(20_000, seed=5)
    for part, number, values in ((bins.x, 3, x), (bins.y, 4, y)):
        assert np.array_equal(part.numpy(), np.floor(number * ndtr(values)).astype(int))


def test_uniform_inputs_fill_their_interval():
    x, y = TASKS["uniform"].sample(5000, seed=6)
    within = (x.squeeze(-1) - y).numpy() / 2
    assert kstest(within, "uniform").pvalue > 1e-6


# --- the data source ---------------------------------------------------------------------------


def test_source_gives_splits_and_says_how_much_they_know():
    splits = load("gaussian-mixture", options={"d": 2, "balanced": False, "n": 1000})
    assert (len(splits.train), len(splits.test), splits.num_classes) == (1000, 200, 5)
    assert splits.input_shape == (2,)
    assert splits.kind == "vector"
    assert splits.notes == ("I(X; Y) = 1.239283 nats, by quadrature.",)
    again = load("gaussian-mixture", options={"d": 2, "balanced": False, "n": 1000})
    assert torch.equal(splits.train.inputs, again.train.inputs)
    other = load(
        "gaussian-mixture", options={"d": 2, "balanced": False, "n": 1000, "sample_seed": 1}
    )
    assert not torch.equal(splits.train.inputs, other.train.inputs)
    assert not torch.equal(splits.train.inputs[:200], splits.test.inputs)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="dim must be a whole number"):
        load("gaussian-mixture", options={"d": 0})
    with pytest.raises(ValueError, match="n must be a whole number of at least 5"):
        load("gaussian-mixture", options={"n": 4})
    with pytest.raises(ValueError, match="prior must hold probabilities"):
        GaussianClasses((0.0, 1.0), prior=(0.5, 0.6))
    with pytest.raises(ValueError, match="scales must have shape"):
        GaussianClasses((0.0, 1.0), scales=(1.0,))
    with pytest.raises(ValueError, match="every scale must be"):
        GaussianClasses((0.0, 1.0), scales=(1.0, 0.0))
    with pytest.raises(ValueError, match="dim must be 1 for classes of different scales"):
        GaussianClasses((0.0, 1.0), scales=(1.0, 2.0), dim=2)
    with pytest.raises(ValueError, match="correlation must lie in"):
        BivariateNormal(1.0)
    with pytest.raises(ValueError, match="label_bins must be at least 2"):
        BivariateNormal(0.5, label_bins=1)
    with pytest.raises(ValueError, match="error must lie in"):
        symmetric_channel(3, 1.5)
    with pytest.raises(ValueError, match="num_classes must be"):
        erasure_channel(1, 0.5)
    with pytest.raises(ValueError, match="target must lie in"):
        flip_labels(torch.tensor([3]), 3, 0.1, seed=0)
