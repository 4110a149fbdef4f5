"""First and second derivatives of every head's loss and prediction against finite differences."""

from __future__ import annotations

import pytest
import torch
from counted_heads import build_head
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from lastlayer.heads import HEADS, Head

N, D, K = 2, 2, 3
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
FEATURES = torch.tensor([[0.7, -0.4], [-0.2, 1.1]], dtype=torch.float64)
TARGET = torch.tensor([2, 0])


def make(name: str) -> Head:
    torch.manual_seed(3)
    # A mask at temperature 0.1 bends too sharply for a finite difference of a second derivative.
    options = {"temperature": 0.6} if "dropmax" in name or name == "recommended" else {}
    return build_head(name, D, K, dtype=torch.float64, **options).eval()


def differentiable(name: str, head: Head) -> list[str]:
    """Names of the parameters whose gradient is that of the loss; a constant hides the others."""
    # The prior inside their posterior.
    held = name in ("dropmax", "dropmax-exact", "dropmax-mixed", "recommended")
    return [n for n, _ in head.named_parameters() if not (held and n.startswith("retain"))]


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_of_the_loss_agree_with_finite_differences(name, draw_noise):
    head = make(name)
    noise, names = draw_noise(head, N), differentiable(name, head)
    values = [head.get_parameter(n).detach().requires_grad_() for n in names]
    # The features reach a held prior too, whose part of their gradient is missing by design.
    free_features = len(names) == len(list(head.parameters()))

    def loss(features, *parameters):
        given = dict(zip(names, parameters, strict=True))
        return functional_call(head, given, (features, TARGET), {"noise": noise}).loss

    inputs = (FEATURES.clone().requires_grad_(free_features), *values)
    assert gradcheck(loss, inputs)
    assert gradgradcheck(loss, inputs)


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_of_the_prediction_agree_with_finite_differences(name):
    head = make(name)
    scores = head.log_prob if head.log_prob(FEATURES).isfinite().all() else head.scores
    assert gradcheck(scores, FEATURES.clone().requires_grad_())
