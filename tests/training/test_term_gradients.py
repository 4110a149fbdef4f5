"""Sizes of the terms' gradients against finite differences and the sheet's table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lastlayer.heads import DropMax, Softmax
from lastlayer.training.term_gradients import term_gradients

N, D, K = 4, 3, 5
TARGET = torch.tensor([0, 4, 2, 2])


def test_softmax_gradient_is_prediction_minus_label() -> None:
    torch.manual_seed(0)
    head = Softmax(D, K, dtype=torch.float64)
    features = torch.randn(N, D, dtype=torch.float64)
    with torch.no_grad():
        prob = head.classifier(features).softmax(-1)
        slope = (prob - torch.eye(K, dtype=torch.float64)[TARGET]).numpy()
    found = term_gradients(head, features, TARGET)
    by_features = np.linalg.norm(slope @ head.classifier.weight.detach().numpy(), axis=-1).mean()
    by_weight = np.linalg.norm(slope.T @ features.numpy() / N)
    assert set(found) == {"nll", "loss"}
    for sizes in found.values():
        np.testing.assert_allclose(sizes, (by_features, by_weight), rtol=1e-12)


def test_only_the_cross_entropy_of_dropmax_reaches_the_class_weights() -> None:
    head = DropMax(D, K)
    found = term_gradients(
        head, torch.randn(N, D), TARGET, generator=torch.Generator().manual_seed(0)
    )
    reached = {name for name, sizes in found.items() if sizes.classifier > 0}
    assert reached == {"nll", "loss"}
    assert all(sizes.features > 0 for sizes in found.values())


def test_it_leaves_no_gradient_behind() -> None:
    head = DropMax(D, K)
    features = torch.randn(N, D)
    term_gradients(head, features, TARGET)
    assert features.grad is None
    assert not features.requires_grad
    assert all(parameter.grad is None for parameter in head.parameters())


def test_other_reductions_are_refused() -> None:
    with pytest.raises(ValueError, match="needs reduction=\"mean\"; got 'sum'"):
        term_gradients(Softmax(D, K, reduction="sum"), torch.randn(N, D), TARGET)


def test_weights_that_are_computed_have_no_gradient_of_their_own() -> None:
    head = Softmax(D, K)
    nn.utils.parametrizations.weight_norm(head.classifier)
    with pytest.raises(TypeError, match="got a ParametrizedLinear that computes it"):
        term_gradients(head, torch.randn(N, D), TARGET)
