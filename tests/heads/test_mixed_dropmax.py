"""The mixture of DropMax and softmax: its ends, its bound, its prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lastlayer.functional.numerics import log_mixture
from lastlayer.heads import DropMax, MixedDropMax, Softmax, recommended

D, N = 4, 6


def batch(num_classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(N, D, generator=generator, dtype=torch.float64)
    return features, torch.randint(num_classes, (N,), generator=generator)


@pytest.mark.parametrize(("num_classes", "share"), [(2, 0.96), (10, 0.8), (40, 0.2), (990, 0.02)])
def test_share_falls_with_the_number_of_classes(num_classes: int, share: float) -> None:
    assert MixedDropMax(D, num_classes).share == pytest.approx(share)


def test_full_share_is_dropmax_to_the_bit() -> None:
    features, target = batch(5)
    mixed = MixedDropMax(D, 5, share=1.0, dtype=torch.float64)
    dropmax = DropMax(D, 5, dtype=torch.float64)
    dropmax.load_state_dict(mixed.state_dict())
    noise = torch.randn(1, N, 5, dtype=torch.float64)
    expected, out = dropmax(features, target, noise=noise), mixed(features, target, noise=noise)
    assert torch.equal(out.loss, expected.loss)
    for prediction in ("plug-in", "exact"):
        assert torch.equal(
            mixed.log_prob(features, prediction=prediction),
            dropmax.log_prob(features, prediction=prediction),
        )


def test_no_share_is_softmax() -> None:
    features, target = batch(5)
    mixed = MixedDropMax(D, 5, share=0.0, dtype=torch.float64)
    softmax = Softmax(D, 5, dtype=torch.float64)
    softmax.classifier.load_state_dict(mixed.classifier.state_dict())
    torch.testing.assert_close(mixed(features, target).loss, softmax(features, target).loss)
    torch.testing.assert_close(mixed.log_prob(features), softmax.log_prob(features))


@pytest.mark.parametrize("prediction", ["plug-in", "exact", "monte-carlo"])
def test_prediction_is_the_mixture_of_probabilities(prediction: str) -> None:
    features, _ = batch(7)
    mixed = MixedDropMax(D, 7, share=0.3, dtype=torch.float64)
    dropmax = DropMax(D, 7, dtype=torch.float64)
    dropmax.load_state_dict(mixed.state_dict())
    given_noise = {"noise": torch.randn(5, N, 7, dtype=torch.float64), "num_samples": 5}
    options = given_noise if prediction == "monte-carlo" else {}
    dropped = dropmax.log_prob(features, prediction=prediction, **options).exp()
    plain = mixed.classifier(features).softmax(dim=-1)
    found = mixed.log_prob(features, prediction=prediction, **options).exp()
    torch.testing.assert_close(found, 0.3 * dropped + 0.7 * plain)
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(N, dtype=torch.float64))


@given(share=st.floats(0, 1), scale=st.floats(0.1, 8), seed=st.integers(0, 1000))
def test_likelihood_and_divergence_bound_the_mixture_from_above(
    share: float, scale: float, seed: int
) -> None:
    # Exact expectations over hard masks, so that the bound is the theorem and not an estimate.
    features, target = batch(6, seed)
    head = MixedDropMax(D, 6, share=share, estimator="exact", reduction="none", dtype=torch.float64)
    terms = head(scale * features, target).terms
    exact = head.log_prob(scale * features, prediction="exact").gather(-1, target[:, None])[:, 0]
    assert bool((terms["nll"] + terms["kl"] >= -exact - 1e-6).all())


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_share_is_a_probability(share: float) -> None:
    with pytest.raises(ValueError, match="share must lie in"):
        MixedDropMax(D, 5, share=share)


@pytest.mark.parametrize("share", [0.0001, 0.3, 0.9999])
def test_log_mixture_holds_at_any_distance(share: float) -> None:
    first = torch.tensor([0.0, -1.0, -1e4, 0.0, -200.0, -3.0], dtype=torch.float64)
    second = torch.tensor([0.0, -1.0, 0.0, -1e4, -100.0, -2.5], dtype=torch.float64)
    expected = np.logaddexp(np.log(share) + first.numpy(), np.log1p(-share) + second.numpy())
    np.testing.assert_allclose(log_mixture(first, second, share), expected, atol=1e-15)
    assert log_mixture(first, second, share)[:2].tolist() == [0.0, -1.0]
    inputs = (first.clone().requires_grad_(), second.clone().requires_grad_())
    gradients = torch.autograd.grad(log_mixture(*inputs, share).sum(), inputs)
    part = torch.sigmoid(torch.logit(torch.tensor(share, dtype=torch.float64)) + first - second)
    torch.testing.assert_close(gradients, (part, 1 - part), rtol=1e-9, atol=1e-12)


def test_recommended_is_the_mixture_below_fifty_classes_and_softmax_from_there() -> None:
    assert isinstance(recommended(D, 49), MixedDropMax)
    assert type(recommended(D, 50, bias=False)) is Softmax
    with pytest.raises((TypeError, ValueError), match="nonsense"):
        recommended(D, 60, nonsense=1)
