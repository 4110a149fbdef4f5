"""Softmax beside sigmoids: the loss is two binary models' likelihood, the prediction softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax

from lastlayer.functional import dropmax as dm
from lastlayer.heads import AuxiliarySoftmax, DropMax, build_head

D, K, N = 5, 4, 7


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(N, D, generator=generator, dtype=torch.float64)
    return features, torch.randint(K, (N,), generator=generator)


@pytest.mark.parametrize(("positive", "negative", "weight"), [(1, 0, 1), (0.8, 0.2, 0.3)])
def test_loss_is_cross_entropy_and_weighted_binary_cross_entropies(
    batch: tuple[torch.Tensor, torch.Tensor], positive: float, negative: float, weight: float
) -> None:
    features, target = batch
    head = AuxiliarySoftmax(
        D, K, positive=positive, negative=negative, auxiliary_weight=weight, dtype=torch.float64
    )
    out = head(features, target)
    with torch.no_grad():
        o, a = head.classifier(features).numpy(), head.retain(features).numpy()
    s = np.where(np.eye(K)[target] == 1, positive, negative)
    nll = -log_softmax(o, axis=-1)[np.arange(N), target].mean()
    auxiliary = -(s * np.log(expit(a)) + (1 - s) * np.log(1 - expit(a))).sum(-1).mean()
    np.testing.assert_allclose(out.terms["nll"].item(), nll, rtol=1e-12)
    np.testing.assert_allclose(out.terms["auxiliary"].item(), weight * auxiliary, rtol=1e-12)
    np.testing.assert_allclose(head.log_prob(features).detach(), log_softmax(o, axis=-1))


def test_hard_targets_are_dropmax_s_auxiliary_loss(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    features, target = batch
    head = AuxiliarySoftmax(D, K, dtype=torch.float64)
    expected = dm.auxiliary_loss(head.retain(features), target).mean()
    torch.testing.assert_close(head(features, target).terms["auxiliary"], expected)


def test_free_sigmoids_come_to_rest_at_the_soft_targets() -> None:
    head = AuxiliarySoftmax.soft(3, 3, bias=False, dtype=torch.float64)
    features, target = torch.eye(3, dtype=torch.float64), torch.tensor([0, 1, 2])
    optimizer = torch.optim.LBFGS(
        head.retain.parameters(), max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-18
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = head(features, target).terms["auxiliary"]
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = torch.full((3, 3), dm.NON_TARGET_FIXED_POINT, dtype=torch.float64)
    expected.fill_diagonal_(dm.TARGET_FIXED_POINT)
    torch.testing.assert_close(head.retain_prob(features), expected, rtol=1e-6, atol=1e-6)


def test_weight_zero_is_softmax(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    features, target = batch
    head = AuxiliarySoftmax(D, K, auxiliary_weight=0.0, dtype=torch.float64)
    softmax = build_head("softmax", D, K, dtype=torch.float64)
    softmax.classifier.load_state_dict(head.classifier.state_dict())
    torch.testing.assert_close(head(features, target).loss, softmax(features, target).loss)


def test_mask_at_its_mean_is_the_limit_of_no_noise_at_temperature_one(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    # With temperature 1 and noise 0 the relaxed mask is sigmoid(gamma): the mask's mean.
    features, target = batch
    mean = DropMax(D, K, estimator="mean", dtype=torch.float64)
    relaxed = DropMax(D, K, temperature=1.0, dtype=torch.float64)
    relaxed.load_state_dict(mean.state_dict())
    noise = torch.zeros(1, N, K, dtype=torch.float64)
    expected = relaxed(features, target, noise=noise)
    out = mean(features, target)
    for name, value in expected.terms.items():
        torch.testing.assert_close(out.terms[name], value)
    with pytest.raises(ValueError, match="draws nothing"):
        mean(features, target, noise=noise)


@pytest.mark.parametrize("name", ["positive", "negative"])
def test_targets_of_the_sigmoids_are_probabilities(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        AuxiliarySoftmax(D, K, **{name: 1.5})
