"""Deterministic attention: DropMax with its retain probabilities put in for the masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lastlayer.heads import DeterministicAttention, DropMax

N, D, K = 5, 3, 4
FEATURES = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.tensor([0, 3, 1, 1, 2])


def make(**options) -> DeterministicAttention:
    torch.manual_seed(0)
    return DeterministicAttention(D, K, dtype=torch.float64, **options)


def naive(head: DeterministicAttention) -> tuple[np.ndarray, np.ndarray]:
    """Retain probabilities and class probabilities."""
    o, a = (layer(FEATURES).detach().numpy() for layer in (head.classifier, head.retain))
    rho = 1 / (1 + np.exp(-a))
    weight = rho * np.exp(o)
    return rho, weight / weight.sum(-1, keepdims=True)


def test_attention_multiplies_the_exponentials():
    head = make()
    rho, p = naive(head)
    np.testing.assert_allclose(head.log_prob(FEATURES).exp().detach(), p)
    np.testing.assert_allclose(head.retain_prob(FEATURES).detach(), rho)


def test_the_plain_loss_is_the_cross_entropy_of_these_probabilities():
    head = make()
    _, p = naive(head)
    out = head(FEATURES, TARGET)
    assert set(out.terms) == {"nll"}
    assert out.loss.item() == pytest.approx(-np.log(p[np.arange(N), TARGET]).mean())


def test_the_regularized_loss_adds_the_iclr_terms_with_the_entropys_weight():
    head = make(regularized=True, entropy_weight=0.3)
    rho, p = naive(head)
    entropy = rho * np.log(rho) + (1 - rho) * np.log(1 - rho)
    others = np.eye(K)[TARGET] == 0
    terms = head(FEATURES, TARGET).terms
    assert terms["nll"].item() == pytest.approx(-np.log(p[np.arange(N), TARGET]).mean())
    assert terms["kl"].item() == pytest.approx(-np.log(rho[np.arange(N), TARGET]).mean())
    assert terms["entropy"].item() == pytest.approx(0.3 * (entropy * others).sum(-1).mean())


def test_it_predicts_as_dropmax_does_with_the_same_retain_logits():
    head, dropmax = make(), DropMax(D, K, dtype=torch.float64)
    dropmax.classifier.load_state_dict(head.classifier.state_dict())
    dropmax.retain.load_state_dict(head.retain.state_dict())
    assert torch.equal(head.log_prob(FEATURES), dropmax.log_prob(FEATURES))


def test_a_constant_attention_leaves_the_softmax():
    head = make()
    torch.nn.init.zeros_(head.retain.weight)
    softmax = head.classifier(FEATURES).log_softmax(-1)
    torch.testing.assert_close(head.log_prob(FEATURES), softmax)


def test_a_negative_entropy_weight_is_refused():
    with pytest.raises(ValueError, match="entropy_weight must be"):
        make(entropy_weight=-1.0)
