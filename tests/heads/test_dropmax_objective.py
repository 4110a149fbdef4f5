"""The DropMax head's loss against the papers' objective, written naively in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from lastlayer.heads import DropMax

N, D, K = 5, 6, 4
TARGET = torch.tensor([0, 3, 1, 1, 2])
FEATURES = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def make(seed: int = 0, cls=DropMax, **options) -> DropMax:
    torch.manual_seed(seed)
    return cls(D, K, dtype=torch.float64, **options)


def branches(head: DropMax) -> list[np.ndarray | None]:
    layers = (head.classifier, head.retain, head.correction)
    return [None if layer is None else layer(FEATURES).detach().numpy() for layer in layers]


@pytest.mark.parametrize("posterior", ["variational", "prior"])
@pytest.mark.parametrize("form", ["neurips", "iclr"])
@pytest.mark.parametrize("entropy", ["all", "non-target"])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_every_term_is_the_papers(posterior, form, entropy, num_samples, objective, draw_noise):
    options = {"form": form, "entropy": entropy, "eps": 1e-3}
    head = make(posterior=posterior, num_samples=num_samples, reduction="none", **options)
    noise = draw_noise(head, N)
    out = head(FEATURES, TARGET, noise=noise)
    expected = objective(*branches(head), TARGET, noise, **options)
    assert set(out.terms) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(out.terms[name].detach(), values, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(out.loss.detach(), sum(expected.values()), rtol=1e-9)


def test_the_default_loss_is_that_of_the_released_code(objective, draw_noise):
    # Every term a mean over the batch and a sum over the classes, all weights 1, tau 0.1,
    # eps 1e-20, entropy over all classes.
    head = make()
    noise = draw_noise(head, N)
    expected = objective(*branches(head), TARGET, noise, tau=0.1, eps=1e-20)
    total = sum(values.mean() for values in expected.values())
    assert head(FEATURES, TARGET, noise=noise).loss.item() == pytest.approx(total, rel=1e-10)


def test_the_iclr_preset_is_the_iclr_objective(objective, draw_noise):
    torch.manual_seed(0)
    head = DropMax.iclr(D, K, entropy_weight=0.1, dtype=torch.float64)
    noise = draw_noise(head, N)
    out = head(FEATURES, TARGET, noise=noise)
    terms = objective(*branches(head), TARGET, noise, form="iclr", entropy="non-target")
    total = terms["nll"].mean() + terms["kl"].mean() + 0.1 * terms["entropy"].mean()
    assert "auxiliary" not in out.terms
    assert head.correction is None
    assert out.loss.item() == pytest.approx(total, rel=1e-10)


def test_options_given_to_the_iclr_preset_override_it():
    assert DropMax.iclr(D, K, form="neurips").form == "neurips"


@pytest.mark.parametrize("num_classes", [1, 2, 10])
def test_zero_branches_start_at_log_2_beside_the_cross_entropy(num_classes):
    head = DropMax(D, num_classes, dtype=torch.float64)
    for layer in head.branches().values():
        torch.nn.init.zeros_(layer.weight)
    terms = head(FEATURES, torch.zeros(N, dtype=torch.int64)).terms
    others = sum(value for name, value in terms.items() if name != "nll")
    assert others.item() == pytest.approx(math.log(2), abs=1e-12)


def test_branches_start_glorot_uniform_with_zero_bias():
    head = DropMax(200, 100)
    limit = math.sqrt(6 / 300)
    for layer in head.branches().values():
        assert layer.weight.abs().max() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.03)
        assert not layer.bias.any()


def test_the_weights_of_the_terms_scale_them_and_their_gradients(draw_noise):
    weights = {"kl_weight": 0.3, "auxiliary_weight": 2.0, "entropy_weight": 0.0}
    plain, scaled = make(), make(**weights)
    noise = draw_noise(plain, N)
    one, other = (head(FEATURES, TARGET, noise=noise).terms for head in (plain, scaled))
    assert other["nll"] == one["nll"]
    torch.testing.assert_close(other["kl"], 0.3 * one["kl"])
    torch.testing.assert_close(other["auxiliary"], 2.0 * one["auxiliary"])
    assert other["entropy"] == 0


def test_entropy_none_leaves_the_term_out(draw_noise):
    assert "entropy" not in make(entropy="none")(FEATURES, TARGET).terms


def test_several_samples_are_the_mean_of_single_sample_losses(draw_noise):
    several, single = make(num_samples=4), make(num_samples=1)
    noise = draw_noise(several, N)
    mean = torch.stack([single(FEATURES, TARGET, noise=part[None]).loss for part in noise]).mean()
    torch.testing.assert_close(several(FEATURES, TARGET, noise=noise).loss, mean)


@pytest.mark.parametrize("form", ["neurips", "iclr"])
def test_the_exact_estimator_is_the_mean_over_all_hard_masks(form):
    head = make(estimator="exact", form=form, eps=1e-3, reduction="none")
    o, a, r = branches(head)
    g = 1 / (1 + np.exp(-(a + r)))
    for row, label in enumerate(TARGET.tolist()):
        others = [k for k in range(K) if k != label]
        mean = 0.0
        for kept in itertools.product([0.0, 1.0], repeat=K - 1):
            z = np.ones(K)
            z[others] = kept
            weight = (z + 1e-3) * np.exp(o[row]) if form == "neurips" else z * np.exp(o[row]) + 1e-3
            chance = np.where(z == 1, g[row], 1 - g[row])[others].prod()
            mean -= chance * np.log(weight[label] / weight.sum())
        value = head(FEATURES, TARGET).terms["nll"][row].item()
        assert value == pytest.approx(mean, abs=2e-9)


def test_the_exact_estimator_draws_nothing_and_refuses_noise(draw_noise):
    head = make(estimator="exact")
    state = torch.get_rng_state()
    assert head(FEATURES, TARGET).loss == head(FEATURES, TARGET).loss
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ValueError, match="DropMax draws nothing; got noise"):
        head(FEATURES, TARGET, noise=torch.zeros(1, N, K))


def test_one_class_costs_only_its_retain_probability(draw_noise):
    head = DropMax(D, 1, dtype=torch.float64)
    terms = head(FEATURES, torch.zeros(N, dtype=torch.int64)).terms
    rho = 1 / (1 + np.exp(-head.retain(FEATURES).detach().numpy()))
    assert terms["nll"] == 0
    assert terms["kl"].item() == pytest.approx(-np.log(rho).mean())


def test_positions_of_a_sequence_draw_their_own_masks():
    head = make(reduction="none")
    same = FEATURES[:1].expand(2, 50, D)
    nll = head(same, torch.zeros(2, 50, dtype=torch.int64)).terms["nll"]
    assert nll.shape == (2, 50)
    assert len(nll.unique()) == 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"posterior": "none"}, "posterior must be one of 'variational', 'prior'; got 'none'"),
        ({"form": "nips"}, "form must be one of"),
        ({"entropy": "target"}, "entropy must be one of"),
        ({"estimator": "reinforce"}, "estimator must be one of"),
        ({"prediction": "mean"}, "prediction must be one of"),
        ({"detach": "all"}, "detach must be one of"),
        ({"temperature": 0.0}, "temperature must be a finite number above 0; got 0.0"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"eps": 0.0}, "eps must be"),
        ({"num_samples": 0}, "num_samples must be"),
        ({"prediction_samples": 0}, "prediction_samples must be"),
        ({"entropy_weight": -1.0}, "entropy_weight must be"),
        ({"kl_weight": math.inf}, "kl_weight must be"),
        ({"auxiliary_weight": -0.1}, "auxiliary_weight must be"),
    ],
)
def test_bad_options_are_named_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        DropMax(D, K, **options)
