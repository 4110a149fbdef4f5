"""Gaussian classes whose Bayes answer is known: what each correction does to a linear softmax."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lastlayer.functional import adjust_logits, balanced_softmax_loss, class_balanced_weight
from lastlayer.longtail import exponential_counts

# (exponent in the loss, class weights 1/n, exponent afterwards)
METHODS = {
    "cross entropy": (0.0, False, 0.0),
    "adjusted": (0.0, False, 1.0),
    "adjusted twice": (0.0, False, 2.0),
    "balanced softmax": (1.0, False, 0.0),
    "balanced softmax, adjusted": (1.0, False, 1.0),
    "a quarter": (0.25, False, 0.0),
    "weights 1/n": (0.0, True, 0.0),
    "balanced softmax, weights 1/n": (1.0, True, 0.0),  # what class-balanced batches tend to
}


def fit_all(x: Tensor, y: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """Return every method's (D + 1, K) classifier; those that differ afterwards share a fit."""
    fits = {
        setting: fit(x, y, counts, *setting)
        for setting in {(tau, weighted) for tau, weighted, _ in METHODS.values()}
    }
    classifiers = {}
    for method, (tau, weighted, afterwards) in METHODS.items():
        classifiers[method] = fits[tau, weighted].clone()
        classifiers[method][-1] = adjust_logits(fits[tau, weighted][-1], counts, tau=afterwards)
    return classifiers


def fit(x: Tensor, y: Tensor, counts: Tensor, tau: float, weighted: bool) -> Tensor:
    """Return the (D + 1, K) classifier that minimizes the loss."""
    weight = class_balanced_weight(counts, beta=1.0).double() if weighted else None
    rows = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    w = torch.zeros(rows.shape[1], len(counts), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [w],
        max_iter=50,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = balanced_softmax_loss(rows @ w, y, counts, tau=tau, weight=weight)
        loss.backward()
        return loss

    optimizer.step(closure)
    return w.detach()


# -- two classes ----------------------------------------------------------------------------------


def binary_error(w: Tensor) -> float:
    """The balanced error of a linear classifier of means -(1, 1) and (1, 1), exactly."""
    normal = torch.distributions.Normal(0.0, 1.0)
    direction, offset = w[:2, 1] - w[:2, 0], w[2, 1] - w[2, 0]
    length = direction.norm()
    reach = direction.sum() / length
    missed = normal.cdf(-(reach + offset / length)), normal.cdf(-(reach - offset / length))
    return 50 * float(missed[0] + missed[1])


@pytest.fixture(scope="module")
def binary() -> dict[str, Tensor]:
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        y = (torch.rand(10_000, generator=generator) < 0.05).long()
        x = torch.randn(10_000, 2, generator=generator, dtype=torch.float64) + 2 * y[:, None] - 1
        counts = torch.bincount(y)
        for method, w in fit_all(x, y, counts).items():
            errors[method].append(binary_error(w))
    return {method: torch.tensor(values) for method, values in errors.items()}


# Reference means and standard deviations over 20 trials, in per cent; 18.08 and 7.865 by theory.
BINARY = {
    "cross entropy": (18.07, 0.58),
    "adjusted": (7.88, 0.01),
    "adjusted twice": (18.00, 0.77),
    "balanced softmax": (7.88, 0.01),
    "balanced softmax, adjusted": (18.00, 0.77),
    "a quarter": (13.87, 0.40),
    "weights 1/n": (7.88, 0.02),
    "balanced softmax, weights 1/n": (18.05, 0.87),
}


@pytest.mark.parametrize(("method", "reference"), BINARY.items(), ids=BINARY)
def test_the_balanced_error_of_two_gaussians_is_the_reference(binary, method, reference):
    mean, sd = reference
    error = sd * (1 / 5 + 1 / 20) ** 0.5
    assert abs(float(binary[method].mean()) - mean) <= 3 * error + 0.005  # it is rounded
    bayes = 100 * float(torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(-math.sqrt(2))))
    assert binary[method].min() >= bayes - 1e-4


def test_with_a_free_bias_adjusting_and_balanced_softmax_are_one_and_the_same(binary):
    torch.testing.assert_close(binary["adjusted"], binary["balanced softmax"], atol=1e-3, rtol=0)
    torch.testing.assert_close(
        binary["adjusted twice"], binary["balanced softmax, adjusted"], atol=1e-3, rtol=0
    )


# -- ten classes on a ring ------------------------------------------------------------------------

RING_COUNTS = torch.tensor(exponential_counts(10, 5000, 100))


def ring(counts: Tensor, place: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    y = torch.repeat_interleave(torch.arange(10), counts)
    angle = 2 * math.pi * place[y].double() / 10
    center = 4 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return center + torch.randn(len(y), 2, generator=generator, dtype=torch.float64), y


@pytest.fixture(scope="module")
def ring_fits() -> dict[str, Tensor]:
    """Accuracy per class, (trials, 10), in per cent; where a class stands is drawn."""
    accuracy: dict[str, list[Tensor]] = {method: [] for method in METHODS}
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        place = torch.randperm(10, generator=generator)
        x, y = ring(RING_COUNTS, place, generator)
        test, label = ring(torch.full((10,), 3000), place, generator)
        for method, w in fit_all(x, y, RING_COUNTS).items():
            right = ((test @ w[:2] + w[2]).argmax(-1) == label).double()
            accuracy[method].append(100 * right.reshape(10, -1).mean(-1))
    return {method: torch.stack(rows) for method, rows in accuracy.items()}


# Reference means and standard deviations over 5 trials; Bayes has 78.36.
RING = {
    "cross entropy": (64.25, 3.55),
    "adjusted": (78.26, 0.34),
    "balanced softmax": (78.26, 0.34),
    "weights 1/n": (78.26, 0.34),
    "a quarter": (69.13, 2.64),
    "balanced softmax, weights 1/n": (64.53, 3.49),
    "balanced softmax, adjusted": (64.37, 3.49),
}


@pytest.mark.parametrize(("method", "reference"), RING.items(), ids=RING)
def test_the_balanced_accuracy_on_the_ring_is_the_reference(ring_fits, method, reference):
    mean, sd = reference
    assert abs(float(ring_fits[method].mean()) - mean) <= sd + 0.005
    assert float(ring_fits[method].mean()) < 78.9


def test_what_the_cross_entropy_takes_from_the_tail_a_double_correction_takes_from_the_head(
    ring_fits,
):
    plain = ring_fits["cross entropy"].mean(0)
    double = ring_fits["balanced softmax, weights 1/n"].mean(0)
    assert plain[:3].mean() > 85 > 50 > plain[-3:].mean()
    assert double[-3:].mean() > 85 > 50 > double[:3].mean()
    balanced = ring_fits["balanced softmax"].mean(0)
    assert abs(balanced[:3].mean() - balanced[-3:].mean()) < 4


def test_the_softmax_of_the_logits_is_the_balanced_posterior_and_with_counts_the_training_one():
    generator = torch.Generator().manual_seed(1)
    place = torch.arange(10)
    x, y = ring(RING_COUNTS, place, generator)
    w = fit(x, y, RING_COUNTS, tau=1.0, weighted=False)
    test, _ = ring(torch.full((10,), 2000), place, generator)
    marginal = (test @ w[:2] + w[2]).softmax(-1).mean(0)
    assert (marginal - 0.1).abs().max() < 0.01
    own = adjust_logits(x @ w[:2] + w[2], None, target_prior=RING_COUNTS).softmax(-1).mean(0)
    torch.testing.assert_close(
        own, RING_COUNTS / RING_COUNTS.sum(), atol=1e-3, rtol=0, check_dtype=False
    )


def test_without_a_bias_or_with_one_that_decays_the_loss_is_no_reparametrization():
    generator = torch.Generator().manual_seed(2)
    counts = torch.tensor([900, 100])
    y = torch.repeat_interleave(torch.arange(2), counts)
    x = torch.randn(1000, 1, generator=generator, dtype=torch.float64) + y[:, None] + 1.0

    def best(tau: float, decay: float, bias: bool) -> Tensor:
        w = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([w], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = x @ w[:1] + (w[1] if bias else 0.0)
            loss = balanced_softmax_loss(logits, y, counts, tau=tau) + decay * w[1].square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        grid = torch.linspace(-1, 4, 200, dtype=torch.float64)[:, None]
        logits = grid @ w[:1] + (w[1] if bias else 0.0)
        return (logits if tau else adjust_logits(logits, counts)).softmax(-1).detach()

    assert (best(0.0, 0.0, True) - best(1.0, 0.0, True)).abs().max() < 1e-3
    assert (best(0.0, 0.3, True) - best(1.0, 0.3, True)).abs().max() > 0.05
    assert (best(0.0, 0.0, False) - best(1.0, 0.0, False)).abs().max() > 0.05
