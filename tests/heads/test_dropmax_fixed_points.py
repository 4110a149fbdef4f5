"""Where DropMax's logits come to rest on an easy example: the sharpest test of a faithful loss.

With the cross-entropy gone, the logits a and r of one example are free; where the gradients of the
paper's objective vanish they are known numbers, which the paper's figures show as well. Broken
twins of the head show that the test can fail.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import fsolve, root

from lastlayer.functional.dropmax import bernoulli_kl
from lastlayer.heads import DropMax
from lastlayer.heads import dropmax as head_module

K = 3  # the classes do not feel each other
TARGET = torch.tensor([0])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def rest_of_a_non_target() -> tuple[float, float]:
    """Return the (a, r) of a non-target at which both gradients of the paper's table vanish."""

    def slopes(x: np.ndarray) -> list[float]:
        a, r = x
        rho, q = sigmoid(a), sigmoid(a + r)
        return [rho - q + rho * (1 - rho) * a, sigmoid(r) + q * (1 - q) * r]

    a, r = fsolve(slopes, [-1.2, -3.4], xtol=1e-12)
    return a, r


class Composed(DropMax):
    """The head without its function that computes the usual objective in one pass."""

    _in_one_pass = False


def settle(free_head, posterior: str = "variational", cls=DropMax, **options) -> DropMax:
    """Train the a and r of one example whose cross-entropy is zero."""
    zero = torch.zeros(1, K, dtype=torch.float64)
    easy, r = zero.clone(), zero.clone()
    easy[0, 0] = 200.0
    r[0, 0] = 30.0  # only the auxiliary loss acts on it: it would grow without end
    return come_to_rest(
        free_head(easy, zero, r if posterior == "variational" else None, cls=cls, **options)
    )


def come_to_rest(head: DropMax) -> DropMax:
    """Find where the gradient of a and r vanishes, from short descent onwards.

    It is a root and not a minimum: with constants in it, it is no function's gradient.
    """
    free = [layer.weight for layer in head.branches().values()]
    features = torch.ones(1, 1, dtype=torch.float64)
    noise = torch.zeros(1, 1, K, dtype=torch.float64)

    def gradient(values: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            for weight, row in zip(free, values.reshape(len(free), K), strict=True):
                weight[:, 0] = torch.from_numpy(row)
        loss = head(features, TARGET, noise=noise).loss
        return torch.cat(torch.autograd.grad(loss, free)).flatten().numpy()

    values = torch.cat(free).detach().flatten().numpy().copy()
    for _ in range(60):
        values -= 3.0 * gradient(values)
    gradient(root(gradient, values, tol=1e-10, options={"maxfev": 120}).x)
    return head


def probabilities(head: DropMax) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.ones(1, 1, dtype=torch.float64)
    with torch.no_grad():
        return head.retain_prob(features)[0], head.posterior_prob(features, TARGET)[0]


def deviation_from_the_paper(head: DropMax) -> float:
    """Largest distance of rho and g from the four digits of the known fixed point."""
    rho, g = probabilities(head)
    return max(
        abs(rho[0].item() - 0.7822),
        (rho[1:] - 0.2253).abs().max().item(),
        (g[1:] - 0.0097).abs().max().item(),
    )


@pytest.mark.parametrize("cls", [DropMax, Composed])
def test_the_objective_comes_to_rest_where_the_papers_figures_show_it(free_head, cls):
    head = settle(free_head, cls=cls)
    rho, g = probabilities(head)
    assert deviation_from_the_paper(head) < 1e-4
    assert g[0] == 1
    a, r = rest_of_a_non_target()
    assert (a, r) == pytest.approx((-1.2353, -3.3929), abs=1e-4)
    weights = head.retain.weight[:, 0], head.correction.weight[:, 0]
    assert weights[0][0].item() == pytest.approx(1.27846, abs=1e-5)
    assert weights[0][1:].tolist() == pytest.approx([a] * (K - 1), abs=1e-5)
    assert weights[1][1:].tolist() == pytest.approx([r] * (K - 1), abs=1e-5)
    assert (rho[0] / rho[1]).log().item() == pytest.approx(1.245, abs=1e-3)


@pytest.mark.parametrize("num_classes", [10, 100, 200])
def test_the_loss_is_negative_at_rest(num_classes):
    a, r = rest_of_a_non_target()
    head = DropMax(1, num_classes, bias=False, dtype=torch.float64)
    with torch.no_grad():
        head.retain.weight.fill_(a)[0] = 1.27846
        head.correction.weight.fill_(r)[0] = 60.0
        head.classifier.weight.zero_()[0] = 200.0
        loss = head(torch.ones(1, 1, dtype=torch.float64), TARGET).loss.item()
    assert loss == pytest.approx(-0.278 - 0.2878 * (num_classes - 1), rel=1e-3)


@pytest.mark.parametrize(("num_classes", "ceiling"), [(2, 0.951), (10, 0.804), (100, 0.782)])
def test_averaging_over_the_prior_masks_caps_the_target_probability(num_classes, ceiling):
    a, _ = rest_of_a_non_target()
    head = DropMax(1, num_classes, bias=False, dtype=torch.float64)
    with torch.no_grad():
        head.retain.weight.fill_(a)[0] = 1.27846
        head.classifier.weight.zero_()[0] = 40.0
        features = torch.ones(1, 1, dtype=torch.float64)
        mean = head.log_prob(features, prediction="exact").exp()[0, 0].item()
        plug_in = head.log_prob(features).exp()[0, 0].item()
    assert mean == pytest.approx(ceiling, abs=1e-3)
    assert plug_in > 0.999999


def test_with_masks_from_the_prior_non_targets_rest_at_one_half(free_head):
    rho, g = probabilities(settle(free_head, posterior="prior"))
    assert rho.tolist() == pytest.approx([0.7822] + [0.5] * (K - 1), abs=1e-4)
    assert g.tolist() == pytest.approx([1.0] + [0.5] * (K - 1), abs=1e-4)


def test_in_the_iclr_objective_the_target_is_retained_for_certain(free_head):
    head = settle(free_head, posterior="prior", form="iclr", entropy="non-target")
    rho, _ = probabilities(head)
    assert rho[0] > 0.999
    assert rho[1:].tolist() == pytest.approx([0.5] * (K - 1), abs=1e-6)


# --- broken twins ------------------------------------------------------------------------------


def test_the_fixed_point_catches_an_entropy_of_the_wrong_sign(free_head):
    twin = settle(free_head)
    twin.entropy_weight = -1.0
    assert deviation_from_the_paper(come_to_rest(twin)) > 0.05


def test_the_fixed_point_catches_a_divergence_that_does_not_teach_the_posterior(
    free_head, monkeypatch
):
    def detached(correction, retain_logits, target, *, held_prior):
        return bernoulli_kl(correction.detach(), retain_logits, target, held_prior=held_prior)

    monkeypatch.setattr(head_module.dm, "bernoulli_kl", detached)
    assert deviation_from_the_paper(settle(free_head, cls=Composed)) > 5e-3


def test_the_fixed_point_catches_terms_averaged_over_classes(free_head):
    deviation = deviation_from_the_paper(settle(free_head, kl_weight=1 / K))
    assert deviation > 0.05


def test_the_fixed_point_catches_entropy_of_the_non_targets_only(free_head):
    assert deviation_from_the_paper(settle(free_head, entropy="non-target")) > 0.05
