"""The meta gradient of the old classes' weight against autograd and difference quotients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lastlayer.functional import balanced_softmax_loss
from lastlayer.functional.incremental import old_weight_gradient

K, D, B, M, OLD = 5, 4, 9, 7, 3
LR, ALPHA = 0.3, 0.7


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Problem:
    def __init__(self, counts=(2, 3, 1, 40, 60), bias=True, epsilon=0.0):
        self.counts = torch.tensor(counts)
        self.epsilon = epsilon
        self.weight = randn(K, D, seed=0)
        self.bias = randn(K, seed=1) if bias else None
        self.features, self.meta = randn(B, D, seed=2), randn(M, D, seed=3)
        there = self.counts.nonzero().flatten()
        self.target, self.meta_target = there[torch.arange(B) % len(there)], torch.arange(M) % K

    def meta_loss(self, log_alpha):
        """The virtual step by autograd, with the library's own loss."""
        scale = torch.where(torch.arange(K) < OLD, log_alpha.exp(), 1.0)
        counts = torch.where(self.counts > 0, scale * self.counts, self.epsilon)
        trained = [x.clone().requires_grad_() for x in (self.weight, self.bias) if x is not None]
        loss = balanced_softmax_loss(
            F.linear(self.features, *trained), self.target, counts, zero_counts="mask"
        )
        gradients = torch.autograd.grad(loss, trained, create_graph=True)
        moved = [x.detach() - LR * g for x, g in zip(trained, gradients, strict=True)]
        return F.cross_entropy(F.linear(self.meta, *moved), self.meta_target)

    def ours(self, **changed):
        arguments = {
            "weight": self.weight,
            "features": self.features,
            "target": self.target,
            "class_counts": self.counts,
            "num_old": OLD,
            "meta_features": self.meta,
            "meta_target": self.meta_target,
            "lr": LR,
            "bias": self.bias,
            "alpha": ALPHA,
            "epsilon": self.epsilon,
        }
        return old_weight_gradient(**(arguments | changed))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"bias": False},
        {"counts": (2, 0, 1, 40, 60)},
        {"counts": (2, 0, 1, 40, 60), "epsilon": 0.5},
        {"counts": (0, 0, 0, 40, 60), "epsilon": 0.5},
    ],
)
def test_the_closed_form_is_autograd_through_the_virtual_step(arguments):
    problem = Problem(**arguments)
    log_alpha = torch.tensor(math.log(ALPHA), dtype=torch.float64, requires_grad=True)
    loss = problem.meta_loss(log_alpha)
    (expected,) = torch.autograd.grad(loss, log_alpha)
    ours = problem.ours()
    assert abs(float(ours.loss - loss.detach())) < 1e-12
    assert abs(float(ours.gradient - expected)) < 1e-12
    has_memory = bool((problem.counts[:OLD] > 0).any())
    assert (abs(float(expected)) > 1e-4) == has_memory


def test_the_closed_form_is_the_difference_quotient_of_its_own_loss():
    problem, step = Problem(), 1e-5
    upper, lower = (problem.ours(alpha=ALPHA * math.exp(s)).loss for s in (step, -step))
    quotient = float(upper - lower) / (2 * step)
    assert float(problem.ours().gradient) == pytest.approx(quotient, rel=1e-7)


@pytest.mark.parametrize("changed", [{"lr": 0.0}, {"num_old": 0}, {"num_old": K}])
def test_a_weight_that_changes_nothing_has_gradient_zero(changed):
    assert abs(float(Problem().ours(**changed).gradient)) < 1e-17


def test_the_arguments_stay_as_they_are_and_nothing_is_traced():
    problem = Problem()
    problem.weight.requires_grad_()
    before = problem.weight.detach().clone()
    ours = problem.ours(weight=problem.weight.detach())
    assert not ours.gradient.requires_grad
    assert problem.weight.detach().equal(before)


def test_bad_input_is_named():
    problem = Problem()
    with pytest.raises(ValueError, match="at least one label each; got 0 and 7"):
        problem.ours(target=problem.target[:0], features=problem.features[:0])
    with pytest.raises(ValueError, match="lr"):
        problem.ours(lr=-1.0)
    with pytest.raises(ValueError, match="alpha"):
        problem.ours(alpha=0.0)
    with pytest.raises(ValueError, match="num_old"):
        problem.ours(num_old=K + 1)
