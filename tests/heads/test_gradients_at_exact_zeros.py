"""Gradients of log-probabilities where classes have probability exactly zero."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from counted_heads import build_head
from torch.autograd import gradcheck

from lastlayer.functional import entmax, sparsemax
from lastlayer.heads import (
    HEADS,
    BalancedSoftmax,
    ClassDropout,
    Entmax,
    LogitAdjusted,
    Sparsemax,
)

D, K = 3, 5
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
COUNTS = [7, 0, 3, 1, 0]
FEATURES = 3 * torch.randn(6, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def heads_with_zeros():
    torch.manual_seed(0)
    return {
        "sparsemax": Sparsemax(D, K, dtype=torch.float64),
        "entmax1.5": Entmax(D, K, alpha=1.5, dtype=torch.float64),
        "entmax1.2": Entmax(D, K, alpha=1.2, dtype=torch.float64),
        "entmax3": Entmax(D, K, alpha=3.0, dtype=torch.float64),
        "masked counts": BalancedSoftmax(
            D, K, class_counts=COUNTS, zero_counts="mask", dtype=torch.float64
        ),
        "zero counts": LogitAdjusted(D, K, class_counts=COUNTS, dtype=torch.float64),
    }


@pytest.mark.parametrize("name", heads_with_zeros())
def test_gradients_of_possible_targets_agree_with_finite_differences(name):
    head = heads_with_zeros()[name]
    for row in FEATURES:
        possible = head.log_prob(row).isfinite()
        assert not possible.all() or name in ("entmax1.2", "entmax1.5")

        def of_possible(features, possible=possible):
            return head.log_prob(features)[possible]

        # A step small enough that no class enters or leaves the support.
        assert gradcheck(of_possible, row.clone().requires_grad_(), eps=1e-7, atol=1e-4)


@pytest.mark.parametrize("name", heads_with_zeros())
def test_impossible_targets_are_minus_infinity_with_a_finite_gradient(name):
    head = heads_with_zeros()[name]
    seen = 0
    for row in FEATURES:
        features = row.clone().requires_grad_()
        log_prob = head.log_prob(features)
        for k in (log_prob == -torch.inf).nonzero().flatten().tolist():
            (gradient,) = torch.autograd.grad(log_prob[k], features, retain_graph=True)
            assert gradient.isfinite().all()
            if "entmax" in name or name == "sparsemax":
                assert not gradient.any()
            seen += 1
    assert seen


def test_the_likelihood_gradient_of_a_sparsemax_head_is_that_of_the_functional_form():
    head = Sparsemax(2, 3, bias=False, dtype=torch.float64)
    with torch.no_grad():
        head.classifier.weight.copy_(torch.tensor([[1.0, 0.0], [0.5, 0.0], [-2.0, 1.0]]))
    x = torch.tensor([[1.0, 0.3]], dtype=torch.float64, requires_grad=True)
    found = torch.autograd.grad(F.nll_loss(head.eval()(x), torch.tensor([0])), x)[0]
    functional = -sparsemax(x @ head.classifier.weight.T)[0, 0].log()
    expected = torch.autograd.grad(functional, x)[0]
    torch.testing.assert_close(found, expected)
    # p = ((1 + o_0 - o_1) / 2, ..., 0) with o_0 = x_0, o_1 = x_0 / 2: d -log p_0 / d x_0 = -1/3.
    by_hand = torch.tensor([[-1 / 3, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found, by_hand)


@pytest.mark.parametrize("name", NAMES)
def test_no_head_has_nan_in_its_likelihood_gradient_however_sure_it_is(name):
    torch.manual_seed(0)
    head = build_head(name, D, K).eval()
    features = (1e4 * FEATURES.float()).requires_grad_()
    log_prob = head(features)
    target = log_prob.argmax(-1)
    F.nll_loss(log_prob, target).backward()
    assert features.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


def test_masks_of_monte_carlo_predictions_leave_gradients_finite():
    torch.manual_seed(0)
    head = ClassDropout(D, K, retain_prob=0.2, prediction="monte-carlo", prediction_samples=5)
    features = FEATURES.float().requires_grad_()
    head.eval()(features).sum().backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_the_log_of_entmax_keeps_its_values(alpha):
    head = Entmax(D, K, alpha=alpha, dtype=torch.float64)
    expected = entmax(head.classifier(FEATURES), alpha).log()
    assert torch.equal(head.log_prob(FEATURES), expected)
