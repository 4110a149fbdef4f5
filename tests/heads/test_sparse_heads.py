"""Sparsemax and entmax heads against the projection and the loss written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from lastlayer.functional import entmax_loss
from lastlayer.heads import Entmax, Softmax, Sparsemax

N, D, K = 6, 3, 5
FEATURES = 2 * torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.tensor([0, 1, 2, 3, 4, 1])


def make(cls=Sparsemax, **options):
    torch.manual_seed(0)
    return cls(D, K, dtype=torch.float64, **options)


def entmax_by_bisection(logits: np.ndarray, alpha: float) -> np.ndarray:
    """[(alpha - 1) o - tau]_+ ^ (1 / (alpha - 1)) with the tau that makes it sum to 1."""
    scaled = (alpha - 1) * logits

    def prob(tau: float) -> np.ndarray:
        return np.maximum(scaled - tau, 0) ** (1 / (alpha - 1))

    return prob(brentq(lambda tau: prob(tau).sum() - 1, scaled.max() - 1, scaled.max(), xtol=1e-14))


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0])
def test_probabilities_are_the_projection_of_the_logits(alpha):
    head = make(Entmax, alpha=alpha)
    logits = head.classifier(FEATURES).detach().numpy()
    expected = np.array([entmax_by_bisection(row, alpha) for row in logits])
    np.testing.assert_allclose(head.log_prob(FEATURES).exp().detach(), expected, atol=1e-9)


def test_the_sparsemax_loss_is_its_closed_form_with_gradient_p_minus_one_hot():
    head = make(reduction="none")
    logits = head.classifier(FEATURES).detach().numpy()
    features = FEATURES.clone().requires_grad_()
    loss = head(features, TARGET).loss
    for row, label in enumerate(TARGET.tolist()):
        o = logits[row]
        p = entmax_by_bisection(o, 2.0)
        support = p > 0
        tau = (o[support].sum() - 1) / support.sum()
        expected = -o[label] + 0.5 * (o[support] ** 2 - tau**2).sum() + 0.5
        assert loss[row].item() == pytest.approx(expected, abs=1e-12)
    loss.sum().backward()
    y = torch.eye(K, dtype=torch.float64)[TARGET]
    gradient = (head.log_prob(FEATURES).exp() - y) @ head.classifier.weight
    torch.testing.assert_close(features.grad, gradient.detach())


def test_a_target_ahead_by_one_costs_nothing_under_sparsemax():
    head = Sparsemax(1, 3)
    with torch.no_grad():
        head.classifier.weight.zero_()
        head.classifier.bias.copy_(torch.tensor([2.0, 1.0, -4.0]))
    assert head(torch.ones(1, 1), torch.tensor([0])).loss == 0
    assert head(torch.ones(1, 1), torch.tensor([1])).loss > 0
    assert head.log_prob(torch.ones(1, 1)).exp().tolist() == [[1, 0, 0]]


def test_scores_are_the_logits_since_no_temperature_revives_a_zero():
    head = make()
    torch.testing.assert_close(head.scores(FEATURES), head.classifier(FEATURES))
    assert head.log_prob(FEATURES).isneginf().any()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("soft", [False, True])
def test_weights_and_smoothing_act_as_in_the_loss_of_the_same_name(reduction, soft):
    weight = torch.tensor([0.5, 2.0, 1.0, 0.3, 1.0], dtype=torch.float64)
    arguments = {"weight": weight, "label_smoothing": 0.2, "reduction": reduction}
    head = make(**arguments)
    target = torch.softmax(FEATURES @ torch.ones(D, K, dtype=torch.float64), -1) if soft else TARGET
    logits = head.classifier(FEATURES)
    expected = entmax_loss(logits, target, alpha=2.0, **arguments)
    torch.testing.assert_close(head(FEATURES, target).loss, expected)


def test_alpha_one_is_the_softmax_head():
    one, softmax = make(Entmax, alpha=1.0), make(Softmax)
    torch.testing.assert_close(one(FEATURES, TARGET).loss, softmax(FEATURES, TARGET).loss)
    torch.testing.assert_close(one.log_prob(FEATURES), softmax.log_prob(FEATURES))


def test_gradients_of_sequence_positions_are_those_of_rows():
    head = make()
    loss = head(FEATURES.reshape(2, 3, D), TARGET.reshape(2, 3)).loss
    torch.testing.assert_close(loss, head(FEATURES, TARGET).loss)


@pytest.mark.parametrize("alpha", [0.9, math.inf, math.nan])
def test_alpha_below_one_or_not_finite_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be a finite number of at least 1"):
        Entmax(D, K, alpha=alpha)
