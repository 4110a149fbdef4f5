"""Low precision and extreme numbers: every head computes in float32, close to float64."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from counted_heads import build_head

from lastlayer.heads import HEADS, DropMax, Head

N, D, K = 16, 8, 10
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
GENERATOR = torch.Generator().manual_seed(0)
FEATURES = 3 * torch.randn(N, D, generator=GENERATOR)
TARGET = torch.randint(K, (N,), generator=GENERATOR)

every_head = pytest.mark.parametrize("name", NAMES)


def make(name: str, **options) -> Head:
    torch.manual_seed(0)
    return build_head(name, D, K, **options).eval()


def gradients(head: Head, features: torch.Tensor, noise) -> list[torch.Tensor]:
    loss = head(features, TARGET, noise=noise).loss
    return list(torch.autograd.grad(loss, list(head.parameters())))


@every_head
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("parameters", ["float32", "same"])
def test_results_are_float32_and_within_stated_bounds_of_float64(
    name, dtype, parameters, draw_noise
):
    head = make(name)
    if parameters == "same":
        head = head.to(dtype)
    noise, features = draw_noise(head, N), FEATURES.to(dtype)
    single_noise = None if noise is None else noise.float()
    double_noise = None if noise is None else single_noise.double()
    truth_head = copy.deepcopy(head).double()
    out = head(features, TARGET, noise=single_noise)
    truth = truth_head(features.double(), TARGET, noise=double_noise)
    assert out.loss.dtype == torch.float32
    for term, value in out.terms.items():
        # Logits here reach 20: one part in 1e7 of them, ten times that through a mask at tau 0.1.
        torch.testing.assert_close(value.double(), truth.terms[term], rtol=1e-5, atol=1e-5)
    log_prob, exact = head.log_prob(features), truth_head.log_prob(features.double())
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob.exp().double(), exact.exp(), rtol=0, atol=2e-5)
    # The gradient arrives in the parameters' dtype, rounded to it once.
    step = torch.finfo(next(head.parameters()).dtype).eps
    for low, high in zip(
        gradients(head, features, single_noise),
        gradients(truth_head, features.double(), double_noise),
        strict=True,
    ):
        scale = high.abs().max()
        assert (low.double() - high).abs().max() <= (step + 3e-4) * scale


@every_head
def test_float64_stays_float64(name):
    head = make(name, dtype=torch.float64)
    assert head(FEATURES.double(), TARGET).loss.dtype == torch.float64
    assert head(FEATURES.double()).dtype == torch.float64


@every_head
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(name, dtype, draw_noise):
    head = make(name)
    noise = draw_noise(head, N)
    expected, expected_prob = head(FEATURES, TARGET, noise=noise).loss, head(FEATURES)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.is_autocast_enabled("cpu")
        loss, log_prob = head(FEATURES, TARGET, noise=noise).loss, head(FEATURES)
        assert torch.mm(FEATURES, FEATURES.T).dtype == dtype  # and it is on again
    assert torch.equal(loss, expected)
    assert torch.equal(log_prob, expected_prob)


@every_head
def test_extreme_features_give_finite_losses_and_gradients(name, draw_noise):
    head = make(name)
    features = 1e4 * FEATURES / FEATURES.abs().max() * D
    noise = draw_noise(head, N)
    out = head(features, TARGET, noise=None if noise is None else noise.float())
    assert head.classifier(features).abs().max() > 1e4
    for value in out.terms.values():
        assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(head, features, noise))
    assert not head(features).isnan().any()


@pytest.mark.parametrize("options", [{}, {"num_samples": 2}, {"form": "iclr"}])
@pytest.mark.parametrize("noise", [-math.inf, math.inf])
def test_infinite_noise_gives_finite_losses_and_gradients(options, noise):
    head = DropMax(D, K, **options)
    samples = options.get("num_samples", 1)
    features = FEATURES.clone().requires_grad_()
    loss = head(features, TARGET, noise=torch.full((samples, N, K), noise)).loss
    loss.backward()
    assert loss.isfinite()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize(
    ("level", "num_samples"),
    [
        (-60.0, 1),
        (100.0, 1),
        (1e4, 1),
        *((level, 2) for level in (-60.0, 100.0, 1e4)),
    ],
)
def test_equal_logits_of_any_size_cost_log_k_when_all_classes_are_retained(level, num_samples):
    # Raw exponentials overflow here, or lose to the eps inside a logarithm.
    head = DropMax(1, K, num_samples=num_samples)
    with torch.no_grad():
        for layer in (head.classifier, *head.branches().values()):
            layer.weight.zero_()
        head.classifier.bias.fill_(level)
    noise = torch.full((num_samples, 1, K), 50.0)
    nll = head(torch.ones(1, 1), torch.tensor([3]), noise=noise).terms["nll"]
    assert nll.item() == pytest.approx(math.log(K), rel=1e-5)


@pytest.mark.parametrize("a", [-1e4, -100.0, -20.0, 20.0, 100.0, 1e4])
@pytest.mark.parametrize("r", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("options", [{}, {"num_samples": 2}, {"estimator": "exact"}])
def test_saturated_branches_give_finite_losses_and_gradients(a, r, options):
    head = DropMax(1, 3, **options)
    with torch.no_grad():
        head.retain.bias.fill_(a)
        head.correction.bias.fill_(r)
    out = head(torch.ones(2, 1), torch.tensor([0, 2]))
    out.loss.backward()
    assert all(value.isfinite() for value in out.terms.values())
    assert all(p.grad.isfinite().all() for p in head.parameters())
    assert head.eval()(torch.ones(1, 1)).isfinite().all()


def test_a_hundred_thousand_classes_keep_their_digits(draw_noise):
    torch.manual_seed(0)
    head = DropMax(4, 100_000)
    features, target = torch.randn(2, 4), torch.tensor([99_999, 7])
    noise = draw_noise(head, 2).float()
    terms = head(features, target, noise=noise).terms
    truth = copy.deepcopy(head).double()(features.double(), target, noise=noise.double()).terms
    # As above: a mask at temperature 0.1 multiplies the rounding of its logit by ten.
    for name, value in terms.items():
        assert value.item() == pytest.approx(truth[name].item(), rel=1e-5)
