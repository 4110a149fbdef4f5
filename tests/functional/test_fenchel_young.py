"""Fenchel-Young losses against torch, the entmax package, closed forms and their own theory."""

from __future__ import annotations

import entmax as reference
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize

from lastlayer.functional import fenchel_young
from lastlayer.functional.entmax import entmax, sparsemax, tsallis_negentropy
from lastlayer.functional.fenchel_young import (
    cross_entropy,
    entmax15_loss,
    entmax_loss,
    make_fenchel_young_loss,
    sparsemax_loss,
)

ALPHAS = (1.0, 1.2, 1.5, 2.0, 3.0)
TARGET = torch.tensor([0, 3, -100, 4, 2, 2])
WEIGHT = torch.tensor([1.0, 0.3, 2.0, 0.0, 0.7], dtype=torch.float64)


def random_logits(*shape: int, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(21)
    return 2.0 * torch.randn(*shape, generator=generator, dtype=dtype)


def random_probabilities(*shape: int):
    return random_logits(*shape).flip(0).softmax(1)


# --- against torch and the entmax package ------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("kind", ["indices", "probabilities"])
def test_the_shannon_instance_is_torch_cross_entropy(reduction, label_smoothing, weight, kind):
    logits = random_logits(6, 5).requires_grad_()
    target = TARGET if kind == "indices" else random_probabilities(6, 5)
    options = {"weight": weight, "reduction": reduction, "label_smoothing": label_smoothing}
    ours = cross_entropy(logits, target, **options)
    expected = F.cross_entropy(logits, target, **options)
    torch.testing.assert_close(ours, expected)
    (grad,) = torch.autograd.grad(ours.sum(), logits)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.sum(), logits)[0])


@pytest.mark.parametrize("shape", [(5,), (3, 5), (3, 5, 2), (3, 5, 2, 4)])
@pytest.mark.parametrize("soft", [False, True])
def test_layouts_are_those_of_torch(shape, soft):
    logits = random_logits(*shape)
    class_dim = 0 if len(shape) == 1 else 1
    target = logits.softmax(class_dim) if soft else logits.flip(0).argmax(class_dim)
    for reduction in ("none", "mean"):
        ours = cross_entropy(logits, target, reduction=reduction)
        torch.testing.assert_close(ours, F.cross_entropy(logits, target, reduction=reduction))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (sparsemax_loss, reference.sparsemax_loss),
        (entmax15_loss, reference.entmax15_loss),
        (
            lambda o, t, **kw: entmax_loss(o, t, 1.3, **kw),
            lambda o, t: reference.entmax_bisect_loss(o, t, 1.3, n_iter=70),
        ),
    ],
    ids=["sparsemax", "entmax15", "entmax1.3"],
)
def test_values_and_gradients_equal_the_entmax_package(ours, theirs):
    logits = random_logits(6, 5).requires_grad_()
    target = TARGET.clamp_min(0)
    own, expected = ours(logits, target, reduction="none"), theirs(logits, target)
    torch.testing.assert_close(own, expected)
    (grad,) = torch.autograd.grad(own.sum(), logits)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.sum(), logits)[0])


# --- against the definition --------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_value_is_the_definition_with_a_numerical_conjugate(alpha):
    logits, y = random_logits(4), random_probabilities(1, 4)[0]

    def negative(free: np.ndarray) -> float:
        p = torch.softmax(torch.from_numpy(free), 0)
        return float(tsallis_negentropy(p, alpha) - p @ logits)

    conjugate = -minimize(negative, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).fun
    expected = conjugate + float(tsallis_negentropy(y, alpha)) - float(y @ logits)
    assert entmax_loss(logits, y, alpha).item() == pytest.approx(expected, abs=1e-6)


def test_sparsemax_loss_is_the_formula_of_its_paper():
    logits = random_logits(6, 5)
    target = TARGET.clamp_min(0)
    p = sparsemax(logits)
    tau = (logits - p).masked_fill(p == 0, -torch.inf).amax(-1, keepdim=True)
    inside = torch.where(p > 0, logits**2 - tau**2, 0.0).sum(-1)
    expected = 0.5 * inside + 0.5 - logits.gather(1, target[:, None]).squeeze(1)
    torch.testing.assert_close(sparsemax_loss(logits, target, reduction="none"), expected)


@pytest.mark.parametrize("gap", [-3.0, -1.0, -0.4, 0.0, 0.6, 1.0, 2.5])
def test_sparsemax_loss_of_two_classes_is_the_modified_huber_loss(gap):
    loss = sparsemax_loss(torch.tensor([gap, 0.0], dtype=torch.float64), torch.tensor(0))
    expected = 0.0 if gap >= 1 else -gap if gap <= -1 else (1.0 - gap) ** 2 / 4.0
    assert loss.item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_gradient_is_p_minus_y_exactly(alpha, label_smoothing):
    logits = random_logits(4, 5).requires_grad_()
    target = torch.tensor([0, 3, 1, 4])
    loss = entmax_loss(logits, target, alpha, reduction="sum", label_smoothing=label_smoothing)
    y = (1 - label_smoothing) * F.one_hot(target, 5).double() + label_smoothing / 5
    (grad,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(grad, entmax(logits, alpha) - y, atol=1e-15, rtol=0)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_first_and_second_derivatives_equal_finite_differences(alpha, label_smoothing):
    logits = random_logits(3, 5).requires_grad_()
    target = torch.tensor([1, -100, 4])

    def loss(o):
        return entmax_loss(o, target, alpha, weight=WEIGHT, label_smoothing=label_smoothing)

    assert torch.autograd.gradcheck(loss, logits)
    assert torch.autograd.gradgradcheck(loss, logits)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_soft_targets_are_differentiated_too(alpha):
    inputs = (random_logits(2, 4).requires_grad_(), random_probabilities(2, 4).requires_grad_())
    assert torch.autograd.gradcheck(lambda o, y: entmax_loss(o, y, alpha), inputs)
    assert torch.autograd.gradgradcheck(lambda o, y: entmax_loss(o, y, alpha), inputs)


def test_gradgradcheck_catches_a_twin_with_detached_probabilities():
    twin = make_fenchel_young_loss(
        argmax=lambda o: o.softmax(-1).detach(),
        regularizer=lambda p: torch.xlogy(p, p).sum(-1),
    )
    logits, target = random_logits(2, 4).requires_grad_(), torch.tensor([0, 1])
    assert torch.autograd.gradcheck(lambda o: twin(o, target), logits)
    caught = not torch.autograd.gradgradcheck(
        lambda o: twin(o, target), logits, raise_exception=False
    )
    assert caught


# --- properties --------------------------------------------------------------------------------

logit_rows = arrays(np.float64, st.integers(1, 8), elements=st.floats(-20.0, 20.0, width=32))


@pytest.mark.parametrize("alpha", ALPHAS)
@given(row=logit_rows, data=st.data())
@settings(max_examples=25)
def test_the_loss_is_nonnegative_convex_and_blind_to_shifts(alpha, row, data):
    num_classes = len(row)
    target = torch.tensor(data.draw(st.integers(0, num_classes - 1)))
    other = torch.tensor(
        data.draw(st.lists(st.floats(-9, 9), min_size=num_classes, max_size=num_classes)),
        dtype=torch.float64,
    )
    logits = torch.from_numpy(row)
    loss = entmax_loss(logits, target, alpha)
    assert loss >= -1e-12
    torch.testing.assert_close(entmax_loss(logits + 100.0, target, alpha), loss, atol=1e-9, rtol=0)
    middle = entmax_loss(0.5 * (logits + other), target, alpha)
    assert middle <= 0.5 * (loss + entmax_loss(other, target, alpha)) + 1e-9


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0, 3.0])
def test_the_loss_vanishes_from_the_margin_on_and_not_before(alpha):
    margin = 1.0 / (alpha - 1.0)
    others = -torch.rand(5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    others[2] = 0.0
    target = torch.tensor(0)

    def loss_at(lead: float) -> torch.Tensor:
        first = torch.tensor([lead], dtype=torch.float64)
        return entmax_loss(torch.cat((first, others)), target, alpha)

    assert loss_at(margin).item() == pytest.approx(0.0, abs=1e-15)
    assert loss_at(margin + 5.0).item() == pytest.approx(0.0, abs=1e-15)
    assert loss_at(margin - 0.2 * margin).item() > 1e-6


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_loss_of_a_soft_target_is_zero_where_the_map_hits_it(alpha):
    logits = random_logits(4, 5)
    y = entmax(logits, alpha)
    loss = entmax_loss(logits, y, alpha, reduction="none")
    torch.testing.assert_close(loss, torch.zeros_like(loss), atol=1e-12, rtol=0)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_corner_as_soft_target_is_the_hard_target(alpha):
    logits, target = random_logits(4, 5), torch.tensor([0, 3, 1, 4])
    hard = entmax_loss(logits, target, alpha, weight=WEIGHT, reduction="none")
    corner = F.one_hot(target, 5).double()
    soft = entmax_loss(logits, corner, alpha, weight=WEIGHT, reduction="none")
    torch.testing.assert_close(hard, soft)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_weights_scale_rows_and_the_mean_divides_by_their_sum(alpha):
    logits, target = random_logits(6, 5), TARGET
    rows = entmax_loss(logits, target, alpha, reduction="none")
    row_weight = torch.where(target == -100, 0.0, WEIGHT[target.clamp_min(0)])
    weighted = entmax_loss(logits, target, alpha, weight=WEIGHT, reduction="none")
    torch.testing.assert_close(weighted, rows * row_weight)
    mean = entmax_loss(logits, target, alpha, weight=WEIGHT)
    torch.testing.assert_close(mean, (rows * row_weight).sum() / row_weight.sum())


@pytest.mark.parametrize("alpha", ALPHAS)
def test_small_alpha_gap_to_cross_entropy_closes(alpha):
    logits, target = random_logits(6, 5), TARGET
    expected = F.cross_entropy(logits, target)
    errors = [abs(entmax_loss(logits, target, 1.0 + s) - expected).item() for s in (1e-2, 1e-4)]
    assert errors[1] < errors[0] / 50


# --- awkward cases -----------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_batch_of_ignored_rows_has_mean_zero_and_no_gradient(alpha):
    logits = random_logits(2, 5).requires_grad_()
    loss = entmax_loss(logits, torch.tensor([-100, -100]), alpha)
    loss.backward()
    assert loss.item() == 0.0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_one_class_costs_nothing(alpha, label_smoothing):
    logits = torch.tensor([[5.0], [-1e4]], requires_grad=True)
    target = torch.zeros(2, dtype=torch.int64)
    loss = entmax_loss(logits, target, alpha, label_smoothing=label_smoothing)
    loss.backward()
    assert loss.item() == 0.0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_huge_logits_give_finite_values_and_gradients(alpha):
    logits = torch.tensor([[1e4, -1e4, 0.0], [1e4, 1e4, 1e4]], requires_grad=True)
    rows = entmax_loss(logits, torch.tensor([1, 0]), alpha, reduction="none")
    rows.sum().backward()
    assert rows[0].item() == 2e4
    assert logits.grad[0].tolist() == [1.0, -1.0, 0.0]
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_class_at_minus_infinity_is_as_good_as_absent(alpha):
    logits, target = random_logits(3, 4), torch.tensor([0, 2, 3])
    masked = torch.cat((logits, torch.full((3, 2), -torch.inf, dtype=torch.float64)), dim=1)
    masked.requires_grad_()
    loss = entmax_loss(masked, target, alpha)
    torch.testing.assert_close(loss, entmax_loss(logits, target, alpha))
    loss.backward()
    assert (masked.grad[:, 4:] == 0).all()
    assert masked.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_half_precision_is_computed_in_float32(dtype, alpha):
    logits = random_logits(16, 1000).to(dtype).requires_grad_()
    target = torch.arange(16)
    loss = entmax_loss(logits, target, alpha)
    truth = entmax_loss(logits.detach().double(), target, alpha)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(truth.item(), rel=1e-5)
    loss.backward()
    assert logits.grad.dtype == dtype


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_the_loss_compiles_as_one_graph_with_its_gradient():
    def loss(logits):
        return sparsemax_loss(logits, TARGET)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    logits = random_logits(6, 5, dtype=torch.float32).requires_grad_()
    (grad,) = torch.autograd.grad(compiled(logits), logits)
    torch.testing.assert_close(grad, torch.autograd.grad(loss(logits), logits)[0])


def test_torch_func_gives_per_example_gradients():
    logits = random_logits(4, 5)
    target = torch.tensor([0, 3, 1, 4])
    per_row = torch.vmap(torch.func.grad(lambda o, y: sparsemax_loss(o, y)))
    y = F.one_hot(target, 5).double()
    torch.testing.assert_close(per_row(logits, y), sparsemax(logits) - y)


def test_bad_arguments_are_refused():
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="reduction must be one of"):
        sparsemax_loss(logits, torch.tensor([0, 1]), reduction="average")
    with pytest.raises(ValueError, match=r"target must lie in \[0, 2\]"):
        sparsemax_loss(logits, torch.tensor([0, 3]))
    with pytest.raises(TypeError, match="int64"):
        sparsemax_loss(logits, torch.tensor([0, 1], dtype=torch.int32))
    with pytest.raises(ValueError, match=r"must have shape \(2,\)"):
        sparsemax_loss(logits, torch.tensor([[0, 1]]))
    with pytest.raises(ValueError, match=r"must have shape \(2, 3\)"):
        sparsemax_loss(logits, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="weight must have shape"):
        sparsemax_loss(logits, torch.tensor([0, 1]), weight=torch.ones(2))
    with pytest.raises(ValueError, match="label_smoothing must lie"):
        sparsemax_loss(logits, torch.tensor([0, 1]), label_smoothing=1.5)
    with pytest.raises(ValueError, match="ignore_index applies to class indices only"):
        sparsemax_loss(logits, torch.full((2, 3), 1 / 3), ignore_index=1)
    with pytest.raises(ValueError, match="logits must have shape"):
        sparsemax_loss(torch.tensor(0.0), torch.tensor(0))


def test_every_made_loss_carries_its_name_and_docstring():
    for name in ("cross_entropy", "sparsemax_loss", "entmax15_loss"):
        loss = getattr(fenchel_young, name)
        assert loss.__name__ == name
        assert f">>> {name}(" in loss.__doc__
