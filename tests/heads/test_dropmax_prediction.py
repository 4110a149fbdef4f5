"""What the DropMax head predicts: plug-in, exact mean, Monte Carlo mean; and its probabilities."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from lastlayer.heads import DropMax

D, K = 4, 6
FEATURES = torch.randn(3, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def make(**options) -> DropMax:
    torch.manual_seed(0)
    head = DropMax(D, K, dtype=torch.float64, **options).eval()
    torch.nn.init.normal_(head.classifier.weight)
    torch.nn.init.normal_(head.retain.weight)
    return head


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moments(head: DropMax, form: str, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the class probabilities over all 2^K masks, any class may drop."""
    o, rho = head.classifier(FEATURES).detach().numpy(), head.retain_prob(FEATURES).detach().numpy()
    z = np.array(list(itertools.product([0.0, 1.0], repeat=K)))[:, None]
    chance = np.where(z == 1, rho, 1 - rho).prod(-1)[..., None]
    weight = (z + eps) * np.exp(o) if form == "neurips" else z * np.exp(o) + eps
    p = weight / weight.sum(-1, keepdims=True)
    mean = (chance * p).sum(0)
    return mean, (chance * (p - mean) ** 2).sum(0)


@pytest.mark.parametrize(("form", "eps"), [("neurips", 1e-20), ("iclr", 1e-20), ("iclr", 1e-2)])
def test_plug_in_prediction_puts_the_mean_mask_into_the_formula(form, eps):
    head = make(form=form, eps=eps)
    o, rho = head.classifier(FEATURES).detach().numpy(), head.retain_prob(FEATURES).detach().numpy()
    weight = (rho + eps) * np.exp(o) if form == "neurips" else rho * np.exp(o) + eps
    expected = weight / weight.sum(-1, keepdims=True)
    np.testing.assert_allclose(head(FEATURES).exp().detach(), expected, rtol=1e-12)


@pytest.mark.parametrize("form", ["neurips", "iclr"])
def test_exact_prediction_is_the_mean_over_all_masks(form):
    head = make(form=form, prediction="exact")
    mean, _ = moments(head, form, 1e-20)
    np.testing.assert_allclose(head(FEATURES).exp().detach(), mean, atol=2e-9)


@pytest.mark.parametrize("num_samples", [16, 1024])
def test_monte_carlo_prediction_approaches_the_mean_at_rate_root_s(num_samples):
    head = make(prediction="monte-carlo", prediction_samples=num_samples)
    mean, variance = moments(head, "neurips", 1e-20)
    with torch.no_grad():
        draws = [head.log_prob(FEATURES, generator=generator(s)).exp().numpy() for s in range(100)]
    # 18 probabilities, 100 draws each: the mean squared error over its expectation is near 1,
    # with a standard error of at most sqrt(2 / 100) were the classes one.
    ratio = ((np.array(draws) - mean) ** 2).mean(0) * num_samples / variance
    assert abs(ratio.mean() - 1) < 6 * math.sqrt(2 / 100)


def test_monte_carlo_prediction_is_reproduced_by_its_generator_and_by_its_noise():
    head = make(prediction="monte-carlo", prediction_samples=5)
    one, same, other = (head.log_prob(FEATURES, generator=generator(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    noise = torch.rand(5, 3, K, generator=generator(), dtype=torch.float64).logit()
    state = torch.get_rng_state()
    assert torch.equal(*(head.log_prob(FEATURES, noise=noise) for _ in range(2)))
    assert torch.equal(state, torch.get_rng_state())


def test_one_sample_is_the_prediction_under_one_hard_mask():
    head = make(prediction="monte-carlo")
    noise = torch.rand(1, 3, K, generator=generator(), dtype=torch.float64).logit()
    z = (head.retain(FEATURES) + noise[0] > 0).double()
    weight = (z + 1e-20) * head.classifier(FEATURES).exp()
    prob = head.log_prob(FEATURES, num_samples=1, noise=noise).exp()
    torch.testing.assert_close(prob, weight / weight.sum(-1, keepdim=True))


@pytest.mark.parametrize("prediction", ["plug-in", "exact"])
def test_prediction_in_eval_mode_is_deterministic_and_draws_nothing(prediction):
    head, state = make(prediction=prediction), torch.get_rng_state()
    assert torch.equal(head(FEATURES), head(FEATURES))
    assert torch.equal(state, torch.get_rng_state())


def test_prediction_does_not_need_the_correction_branch():
    head = make()
    before = head(FEATURES)
    torch.nn.init.constant_(head.correction.weight, math.nan)
    assert torch.equal(head(FEATURES), before)


def test_no_graph_is_kept_without_gradients():
    head = make(prediction="monte-carlo", prediction_samples=3)
    with torch.inference_mode():
        assert head(FEATURES).grad_fn is None


@pytest.mark.parametrize("prediction", ["plug-in", "exact", "monte-carlo"])
def test_probabilities_of_a_sequence_sum_to_one_at_every_position(prediction):
    features = torch.randn(2, 5, D, generator=generator(), dtype=torch.float64)
    prob = make(prediction=prediction).log_prob(features).exp()
    assert prob.shape == (2, 5, K)
    torch.testing.assert_close(prob.sum(-1), torch.ones(2, 5, dtype=torch.float64))


def test_the_class_predicted_has_the_largest_logit_plus_log_retain_probability():
    head = make()
    score = head.classifier(FEATURES) + head.retain_prob(FEATURES).log()
    assert head.predict(FEATURES).tolist() == score.argmax(-1).tolist()


def test_retain_and_posterior_probabilities_are_the_sigmoids_and_the_target_is_kept():
    head, label = make(), torch.tensor([1, 0, 5])
    a, r = head.retain(FEATURES).detach().numpy(), head.correction(FEATURES).detach().numpy()
    np.testing.assert_allclose(head.retain_prob(FEATURES).detach(), sigmoid(a))
    expected = sigmoid(a + r)
    expected[np.arange(3), label] = 1.0
    np.testing.assert_allclose(head.posterior_prob(FEATURES, label).detach(), expected)
    prior = make(posterior="prior")
    posterior = prior.posterior_prob(FEATURES, label)
    keep = torch.ones(3, K, dtype=torch.bool).scatter(1, label[:, None], False)
    torch.testing.assert_close(posterior[keep], prior.retain_prob(FEATURES)[keep])


def test_an_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match="prediction must be one of 'plug-in', 'exact', 'monte-c"):
        make().log_prob(FEATURES, prediction="mode")
