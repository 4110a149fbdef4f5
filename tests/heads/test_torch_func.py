"""Heads under torch.func against ordinary autograd, one row at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from counted_heads import build_head
from torch import Tensor
from torch.func import functional_call, grad, hessian, jvp, vmap

from lastlayer.functional.dropmax import FORMS, expected_cross_entropy, expected_log_prob
from lastlayer.heads import HEADS, DropMax, Head

# Torch's own forward mode scripts its decompositions, of which it warns: since 2.15 by the second.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning"),
]

N, D, K = 4, 3, 4
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
FEATURES = torch.randn(N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGET = torch.tensor([2, 0, 3, -100])
every_head = pytest.mark.parametrize("name", NAMES)


def make(name: str) -> Head:
    torch.manual_seed(3)
    # A mask at temperature 0.1 bends so sharply that rounding shows in its second derivative.
    options = {"temperature": 0.6} if "dropmax" in name or name == "recommended" else {}
    return build_head(name, D, K, dtype=torch.float64, **options).eval()


def loss_of(head: Head) -> Callable[..., Tensor]:
    def loss(parameters, features, target, noise):
        return functional_call(head, parameters, (features, target), {"noise": noise}).loss

    return loss


def mapped(head: Head, function: Callable[..., object], noise: Tensor | None, **options):
    """Map a function of (parameters, features, target, noise) over the rows."""
    per_row = None if noise is None else 1 if isinstance(head, DropMax) else 0
    given = {name: p.detach() for name, p in head.named_parameters()}
    return vmap(function, in_dims=(None, 0, 0, per_row), **options)(given, FEATURES, TARGET, noise)


def row(head: Head, noise: Tensor | None, i: int) -> Tensor | None:
    return None if noise is None else noise[:, i] if isinstance(head, DropMax) else noise[i]


@every_head
def test_gradients_mapped_over_rows_are_those_of_each_row_alone(name, draw_noise):
    head = make(name)
    noise = draw_noise(head, N)
    found = mapped(head, grad(loss_of(head)), noise)
    for i in range(N):
        loss = head(FEATURES[i], TARGET[i], noise=row(head, noise, i)).loss
        own = torch.autograd.grad(
            loss, list(head.parameters()), allow_unused=True, materialize_grads=True
        )
        for (parameter, gradients), expected in zip(found.items(), own, strict=True):
            torch.testing.assert_close(gradients[i], expected, msg=f"{parameter}, row {i}")


@every_head
def test_hessians_and_forward_derivatives_are_those_of_reverse_mode_twice(name, draw_noise):
    head = make(name)
    noise, loss = draw_noise(head, N), loss_of(head)
    found = mapped(head, hessian(loss, argnums=1), noise)
    given = {key: p.detach() for key, p in head.named_parameters()}
    for i in range(N):

        def own(features, i=i):
            return head(features, TARGET[i], noise=row(head, noise, i)).loss

        expected = torch.autograd.functional.hessian(own, FEATURES[i])
        torch.testing.assert_close(found[i], expected)
    direction = torch.linspace(-1, 1, D, dtype=torch.float64)
    one = (given, FEATURES[0], TARGET[0], row(head, noise, 0))
    _, slope = jvp(lambda x: loss(one[0], x, *one[2:]), (FEATURES[0],), (direction,))
    gradient = torch.autograd.functional.jacobian(
        lambda x: head(x, TARGET[0], noise=row(head, noise, 0)).loss, FEATURES[0]
    )
    torch.testing.assert_close(slope, gradient @ direction)


@every_head
def test_predictions_mapped_over_rows_are_those_of_the_batch(name):
    head = make(name)
    torch.testing.assert_close(vmap(head)(FEATURES), head(FEATURES))


@pytest.mark.parametrize("name", [name for name in NAMES if make(name).stochastic])
def test_heads_that_draw_do_so_for_every_row_in_training(name):
    head = make(name).train()
    rows = FEATURES[:1].expand(64, D)
    given = dict(head.named_parameters())

    def loss(features):
        return functional_call(head, given, (features, torch.tensor(1))).loss

    assert len(vmap(loss, randomness="different")(rows).unique()) > 1


@pytest.mark.parametrize("form", FORMS)
def test_the_exact_expectations_map_and_differentiate_as_in_a_loop(form):
    generator = torch.Generator().manual_seed(0)
    o, a = torch.randn(2, 3, 2, K, generator=generator, dtype=torch.float64)
    target = torch.tensor([[0, 1], [3, 2], [1, 1]])

    def loss(o, a, y):
        charged = expected_cross_entropy(o, a, y, form=form, eps=1e-3).sum()
        return charged - expected_log_prob(o, a, form=form, eps=1e-3)[..., 0].sum()

    second = vmap(hessian(loss, argnums=(0, 1)))(o, a, target)
    for i in range(len(o)):
        expected = torch.autograd.functional.hessian(
            lambda o, a, i=i: loss(o, a, target[i]), (o[i], a[i])
        )
        for found_row, expected_row in zip(second, expected, strict=True):
            for found, wanted in zip(found_row, expected_row, strict=True):
                torch.testing.assert_close(found[i], wanted, rtol=1e-6, atol=1e-8)
