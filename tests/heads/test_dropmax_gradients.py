"""Which gradient goes where: the closed forms of every term, with respect to every logit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lastlayer.heads import DropMax

N, K, TAU, EPS = 4, 5, 0.1, 1e-20
TARGET = torch.tensor([0, 3, 1, 4])
ROWS = np.arange(N)
FEATURES = torch.eye(N, dtype=torch.float64)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def example() -> tuple[torch.Tensor, ...]:
    """Class, retain and correction logits and noise; masks neither all open nor all shut."""
    generator = torch.Generator().manual_seed(0)
    o, a, r = torch.randn(3, N, K, generator=generator, dtype=torch.float64)
    wanted = 0.2 * torch.randn(N, K, generator=generator, dtype=torch.float64)
    return o, a, r, (wanted - a - r)[None]  # (a + r + noise) / tau = 10 wanted


def closed_forms(o, a, r, noise) -> dict[str, dict[str, np.ndarray]]:
    """The paper's table of gradients by term and logits; what is not there is zero."""
    o, a, r = (np.asarray(x) for x in (o, a, r))
    y = np.eye(K)[TARGET]
    rho, q = sigmoid(a), np.where(y == 1, 1.0, sigmoid(a + r))
    z = np.where(y == 1, 1.0, sigmoid((a + r + noise[0].numpy()) / TAU))
    weight = (z + EPS) * np.exp(o)
    p = weight / weight.sum(-1, keepdims=True)
    through_mask = (1 - y) * p * (1 - z) / TAU * z / (z + EPS)
    return {
        "nll": {"classifier": p - y, "correction": through_mask},
        "kl": {"retain": rho - q, "correction": (1 - y) * q * (1 - q) * r},
        "entropy": {"retain": rho * (1 - rho) * a},
        "auxiliary": {"correction": sigmoid(r) - y},
    }


def gradients(head: DropMax, noise, term: str) -> dict[str, np.ndarray]:
    """Gradients of one term's sum with respect to the logits of every branch, (N, K) each."""
    head.zero_grad()
    head.reduction = "sum"
    head(FEATURES, TARGET, noise=noise).terms[term].backward()
    layers = {"classifier": head.classifier} | head.branches()
    return {
        name: np.zeros((N, K)) if layer.weight.grad is None else layer.weight.grad.T.numpy()
        for name, layer in layers.items()
    }


def deviation_from_the_table(head: DropMax, o, a, r, noise) -> float:
    table = closed_forms(o, a, r, noise)
    return max(
        np.abs(gradient - table[term].get(branch, 0.0)).max()
        for term in table
        for branch, gradient in gradients(head, noise, term).items()
    )


class Composed(DropMax):
    """The head without its function that computes the usual objective in one pass."""

    _in_one_pass = False


@pytest.mark.parametrize("cls", [DropMax, Composed])
def test_every_gradient_is_the_closed_form_of_the_papers_table(free_head, example, cls):
    o, a, r, noise = example
    assert deviation_from_the_table(free_head(o, a, r, cls=cls), o, a, r, noise) < 1e-12


def test_the_cross_entropy_never_reaches_the_prior_nor_the_targets_correction(free_head, example):
    o, a, r, noise = example
    by_branch = gradients(free_head(o, a, r), noise, "nll")
    assert not by_branch["retain"].any()
    assert not by_branch["correction"][ROWS, TARGET].any()
    assert (by_branch["correction"] >= 0).all()


def test_without_a_posterior_the_cross_entropy_teaches_the_prior(free_head, example):
    o, a, r, noise = example
    # The masks of the table's example, now from the prior alone.
    noise = noise + r
    for form in ("neurips", "iclr"):
        head = free_head(o, a, None, form=form)
        gradient = gradients(head, noise, "nll")["retain"]
        assert not gradient[ROWS, TARGET].any()
        expected = closed_forms(o, a, torch.zeros_like(r), noise)["nll"]["correction"]
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("branch", ["classifier", "correction"])
def test_gradients_are_the_finite_differences_of_the_naive_objective(
    free_head, example, objective, branch
):
    o, a, r, noise = example
    head = free_head(o, a, r, reduction="sum")
    head(FEATURES, TARGET, noise=noise).loss.backward()
    values = {"classifier": o, "correction": r}
    step = 1e-6
    for index in np.ndindex(N, K):
        total = []
        for sign in (1, -1):
            moved = {name: value.clone() for name, value in values.items()}
            moved[branch][index] += sign * step
            terms = objective(moved["classifier"], a, moved["correction"], TARGET, noise)
            total.append(sum(term.sum() for term in terms.values()))
        difference = (total[0] - total[1]) / (2 * step)
        gradient = getattr(head, branch).weight.grad.T[index].item()
        assert gradient == pytest.approx(difference, abs=2e-7)


def test_prior_gradients_are_the_finite_differences_where_q_is_p(free_head, example, objective):
    o, a, r, noise = example
    head = free_head(o, a, None, reduction="sum", entropy="non-target", form="iclr")
    head(FEATURES, TARGET, noise=noise + r).loss.backward()
    for index in np.ndindex(N, K):
        total = []
        for step in (1e-6, -1e-6):
            moved = a.clone()
            moved[index] += step
            terms = objective(o, moved, None, TARGET, noise + r, entropy="non-target", form="iclr")
            total.append(sum(term.sum() for term in terms.values()))
        difference = (total[0] - total[1]) / 2e-6
        assert head.retain.weight.grad.T[index].item() == pytest.approx(difference, abs=2e-7)


@pytest.mark.parametrize("term", ["nll", "kl"])
def test_detach_decides_whether_the_features_feel_the_prior_inside_the_posterior(term):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(N, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(1)
    heads = {
        detach: DropMax(3, K, detach=detach, reduction="sum", dtype=torch.float64)
        for detach in ("logits", "parameters")
    }
    heads["parameters"].load_state_dict(heads["logits"].state_dict())
    head = heads["logits"]
    o, a, r = (
        layer(features).detach() for layer in (head.classifier, head.retain, head.correction)
    )
    wanted = 0.2 * torch.randn(N, K, generator=generator, dtype=torch.float64)
    noise = (wanted - a - r)[None]
    table = closed_forms(o, a, r, noise)[term]
    weight = {name: layer.weight.detach().numpy() for name, layer in head.branches().items()}
    weight["classifier"] = head.classifier.weight.detach().numpy()
    direct = sum(table[name] @ weight[name] for name in table)
    through_prior = table["correction"] @ weight["retain"]
    expected = {"logits": direct, "parameters": direct + through_prior}
    prior_gradients = []
    for detach, each in heads.items():
        (gradient,) = torch.autograd.grad(
            each(features, TARGET, noise=noise).terms[term], features, retain_graph=True
        )
        np.testing.assert_allclose(gradient, expected[detach], rtol=1e-9, atol=1e-12)
        each(features, TARGET, noise=noise).terms[term].backward()
        prior_gradients.append(each.retain.weight.grad)
    assert np.abs(through_prior).max() > 1e-2
    # The prior's parameters learn the same either way.
    if term == "nll":
        assert all(gradient is None or not gradient.any() for gradient in prior_gradients)
    else:
        torch.testing.assert_close(*prior_gradients)


# --- broken twins ------------------------------------------------------------------------------


class MaskFromThePrior(DropMax):
    """A twin that draws its masks from the prior, as some reimplementations do."""

    def _row_terms(self, features, target, draw):
        terms = super()._row_terms(features, target, draw)
        return terms | {
            "nll": self._nll(self._logits(features), self.retain(features), target, draw)
        }


class FreeTarget(Composed):
    """A twin whose target may drop while training."""

    def _nll(self, logits, posterior_logits, target, draw):
        no_target = (target + 1) % self.num_classes
        return super()._nll(logits, posterior_logits, no_target, draw)


@pytest.mark.parametrize("twin", [MaskFromThePrior, FreeTarget])
def test_the_table_catches_a_broken_twin(twin, free_head, example):
    o, a, r, noise = example
    assert deviation_from_the_table(free_head(o, a, r, cls=twin), o, a, r, noise) > 1e-2


def test_the_table_catches_an_entropy_of_the_wrong_sign(free_head, example):
    o, a, r, noise = example
    twin = free_head(o, a, r)
    twin.entropy_weight = -1.0
    assert deviation_from_the_table(twin, o, a, r, noise) > 1e-2


def test_the_table_catches_a_posterior_that_does_not_hold_the_prior(free_head, example):
    o, a, r, noise = example
    twin = free_head(o, a, r, cls=Composed)
    twin._held_prior = lambda features, retain_logits: retain_logits
    assert deviation_from_the_table(twin, o, a, r, noise) > 1e-2
