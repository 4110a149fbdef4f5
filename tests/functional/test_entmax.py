"""Sparsemax and entmax against independent projections, closed forms and their own symmetries."""

from __future__ import annotations

import importlib
import itertools
import math

import entmax as reference
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq, minimize

from lastlayer.functional.entmax import _Entmax, _newton_steps, entmax, entmax15, sparsemax

ALPHAS = (1.0, 1.1, 1.5, 1.75, 2.0, 3.0)
logit_rows = arrays(np.float64, st.integers(1, 12), elements=st.floats(-20.0, 20.0, width=32))


def random_logits(*shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(20)
    return scale * torch.randn(*shape, generator=generator, dtype=dtype)


def entmax_by_root_finding(logits: np.ndarray, alpha: float) -> np.ndarray:
    scaled = (alpha - 1.0) * logits

    def p_at(tau: float) -> np.ndarray:
        return np.maximum(scaled - tau, 0.0) ** (1.0 / (alpha - 1.0))

    root = brentq(lambda tau: p_at(tau).sum() - 1.0, scaled.max() - 1.001, scaled.max(), xtol=1e-15)
    return p_at(root)


def sparsemax_by_enumeration(logits: np.ndarray) -> np.ndarray:
    """The nearest of all projections on a face of the simplex that land inside it."""
    best, best_distance = None, math.inf
    for size in range(1, len(logits) + 1):
        for face in itertools.combinations(range(len(logits)), size):
            p = np.zeros_like(logits)
            p[list(face)] = logits[list(face)] - (logits[list(face)].sum() - 1.0) / size
            if (p >= 0).all() and ((p - logits) ** 2).sum() < best_distance:
                best, best_distance = p, ((p - logits) ** 2).sum()
    return best


@given(logit_rows.filter(lambda row: len(row) <= 6))
@settings(max_examples=50)
def test_sparsemax_is_the_nearest_point_over_all_supports(row):
    expected = sparsemax_by_enumeration(row)
    np.testing.assert_allclose(sparsemax(torch.from_numpy(row)).numpy(), expected, atol=1e-12)


def test_sparsemax_solves_the_quadratic_program():
    row = random_logits(5).numpy()
    solution = minimize(
        lambda p: 0.5 * ((p - row) ** 2).sum(),
        np.full(5, 0.2),
        jac=lambda p: p - row,
        bounds=[(0.0, 1.0)] * 5,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1.0},
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(sparsemax(torch.from_numpy(row)).numpy(), solution.x, atol=1e-6)


@pytest.mark.parametrize("alpha", [1.01, 1.3, 1.5, 1.9, 2.0, 2.5, 4.0])
@given(row=logit_rows)
@settings(max_examples=25)
def test_entmax_equals_scipy_root_finding(alpha, row):
    # Above alpha 2 the power has an infinite slope at 0, which magnifies the root finder's error.
    atol = 1e-10 if alpha <= 2.0 else 1e-4
    expected = entmax_by_root_finding(row, alpha)
    np.testing.assert_allclose(entmax(torch.from_numpy(row), alpha).numpy(), expected, atol=atol)


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
def test_values_equal_the_entmax_package(num_classes, scale):
    logits = random_logits(3, num_classes, scale=scale)
    torch.testing.assert_close(sparsemax(logits), reference.sparsemax(logits), atol=1e-9, rtol=0)
    torch.testing.assert_close(entmax15(logits), reference.entmax15(logits), atol=1e-9, rtol=0)
    torch.testing.assert_close(
        entmax(logits, 1.25), reference.entmax_bisect(logits, 1.25, n_iter=70), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize(
    ("ours", "theirs"), [(sparsemax, reference.sparsemax), (entmax15, reference.entmax15)]
)
def test_gradients_equal_the_entmax_package(ours, theirs):
    logits = random_logits(4, 9).requires_grad_()
    vector = random_logits(4, 9).flip(0)
    (mine,) = torch.autograd.grad((ours(logits) * vector).sum(), logits)
    (expected,) = torch.autograd.grad((theirs(logits) * vector).sum(), logits)
    torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_first_and_second_derivatives_equal_finite_differences(alpha, scale):
    logits = random_logits(2, 4, scale=scale).requires_grad_()
    assert torch.autograd.gradcheck(lambda o: entmax(o, alpha), logits)
    assert torch.autograd.gradgradcheck(lambda o: entmax(o, alpha), logits)


@pytest.mark.parametrize("alpha", ALPHAS)
@given(row=logit_rows)
@settings(max_examples=25)
def test_probabilities_sum_to_one_and_keep_the_order(alpha, row):
    p = entmax(torch.from_numpy(row), alpha)
    assert (p >= 0).all()
    assert abs(p.sum().item() - 1.0) < 1e-9
    order = np.argsort(row, kind="stable")
    assert (p[order].diff() >= 0).all()


@pytest.mark.parametrize("alpha", ALPHAS)
@given(row=logit_rows, shift=st.floats(-1e3, 1e3), data=st.data())
@settings(max_examples=25)
def test_shift_invariance_and_permutation_equivariance(alpha, row, shift, data):
    permutation = data.draw(st.permutations(range(len(row))))
    logits = torch.from_numpy(row)
    p = entmax(logits, alpha)
    atol = 1e-9 if alpha <= 2.0 else 1e-3
    torch.testing.assert_close(entmax(logits + shift, alpha), p, atol=atol, rtol=0)
    torch.testing.assert_close(entmax(logits[permutation], alpha), p[permutation])


@pytest.mark.parametrize("gap", [-3.0, -0.7, 0.0, 0.3, 0.99, 1.0, 1.5, 4.0])
def test_two_classes_have_a_closed_form(gap):
    logits = torch.tensor([gap, 0.0], dtype=torch.float64)
    expected = min(max((1.0 + gap) / 2.0, 0.0), 1.0)
    assert sparsemax(logits)[0].item() == pytest.approx(expected, abs=1e-15)
    # alpha 1.5: squares of two roots that differ by gap / 2.
    if abs(gap) < 2.0:
        root = gap / 4.0 + math.sqrt(0.5 - gap**2 / 16.0)
        assert entmax15(logits)[0].item() == pytest.approx(root**2, abs=1e-14)
    else:
        assert entmax15(logits)[0].item() == float(gap > 0)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_one_class_has_probability_one_and_no_gradient(alpha):
    logits = torch.tensor([[3.0], [-1e4]], requires_grad=True)
    p = entmax(logits, alpha)
    assert p.tolist() == [[1.0], [1.0]]
    p.sum().backward()
    assert logits.grad.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_alpha_tends_to_softmax(dtype):
    logits = random_logits(4, 50, dtype=dtype)
    errors = [
        (entmax(logits, 1.0 + step) - logits.softmax(-1)).abs().max().item()
        for step in (1e-2, 1e-3, 1e-4)
    ]
    assert errors[0] < 0.02
    assert errors[1] < errors[0] / 5
    assert errors[2] < errors[1] / 5


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_class_at_minus_infinity_is_as_good_as_absent(alpha):
    logits = random_logits(4, 6).requires_grad_()
    masked = torch.cat((logits, torch.full((4, 3), -torch.inf, dtype=logits.dtype)), dim=-1)
    p = entmax(masked, alpha)
    torch.testing.assert_close(p[:, :6], entmax(logits, alpha))
    assert (p[:, 6:] == 0).all()
    (grad,) = torch.autograd.grad((p * p.detach().flip(0)).sum(), logits)
    assert grad.isfinite().all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_huge_logits_give_a_finite_one_hot(alpha):
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], requires_grad=True)
    p = entmax(logits, alpha)
    torch.testing.assert_close(p, torch.tensor([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]))
    p.square().sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0, 3.0])
def test_equal_logits_over_many_classes_are_uniform_in_float32(alpha):
    num_classes = 100_000
    p = entmax(torch.full((1, num_classes), 7.0), alpha)
    torch.testing.assert_close(p * num_classes, torch.ones_like(p), atol=2e-3, rtol=0)
    assert abs(p.double().sum().item() - 1.0) < 2e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_half_precision_differs_from_float64_by_output_rounding_only(dtype, alpha):
    logits = random_logits(4, 5000, scale=2.0).to(dtype)
    p = entmax(logits, alpha)
    truth = entmax(logits.double(), alpha)
    assert p.dtype == dtype
    unit = torch.finfo(dtype).eps / 2
    # 5e-6: the error of the float32 threshold, largest where alpha is large.
    assert ((p.double() - truth).abs() <= 1.01 * unit * truth + 5e-6).all()
    assert ((p.double().sum(-1) - 1.0).abs() <= 2 * unit).all()


def test_float32_is_as_close_to_float64_as_the_entmax_package():
    logits = random_logits(16, 2000, dtype=torch.float32)
    for ours, theirs in ((sparsemax, reference.sparsemax), (entmax15, reference.entmax15)):
        truth = theirs(logits.double())
        own_error = (ours(logits).double() - truth).abs().max()
        assert own_error <= 2 * (theirs(logits).double() - truth).abs().max()


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2])
def test_any_dimension_can_hold_the_classes(dim):
    logits = random_logits(3, 4, 5)
    by_rows = sparsemax(logits.movedim(dim, -1)).movedim(-1, dim)
    torch.testing.assert_close(sparsemax(logits, dim=dim), by_rows)


def test_the_fixed_number_of_steps_is_enough_for_geometric_gaps():
    # Logits whose support shrinks slowly from step to step, the hard case for Newton's method.
    for num_classes in (3, 64, 4096):
        row = -torch.logspace(-12, 0, num_classes, base=2, dtype=torch.float64)
        assert entmax(row, 2.0).sum().item() == pytest.approx(1.0, abs=1e-12)
        assert entmax(row, 1.5).sum().item() == pytest.approx(1.0, abs=1e-12)
    assert _newton_steps(100_000, 2.0, torch.float32) <= 32


def test_no_rows_give_no_rows():
    assert sparsemax(torch.empty(0, 3)).shape == (0, 3)


def test_nan_logits_stay_visible():
    assert sparsemax(torch.tensor([1.0, math.nan, 0.0])).isnan().all()


# torch's own tracer makes an autograd.Function object, and torch warns of it.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(("alpha", "strict"), [(1.3, False), (2.0, True)])
def test_the_map_exports_with_a_free_batch_size(alpha, strict):
    class Map(torch.nn.Module):
        def forward(self, logits):
            return entmax(logits, alpha)

    batch = torch.export.Dim("batch")
    program = torch.export.export(
        Map().eval(), (torch.zeros(2, 3),), dynamic_shapes=({0: batch},), strict=strict
    )
    logits = random_logits(7, 3, dtype=torch.float32)
    torch.testing.assert_close(program.module()(logits), entmax(logits, alpha))


def test_vmap_equals_a_batch():
    logits = random_logits(4, 7)
    torch.testing.assert_close(torch.vmap(entmax15, in_dims=1)(logits), entmax15(logits.T))
    by_row = torch.vmap(torch.func.jacrev(sparsemax))(logits)
    assert torch.autograd.functional.jacobian(sparsemax, logits[2]).equal(by_row[2])


def test_gradcheck_catches_a_broken_twin(monkeypatch):
    def forgets_the_mean(p, vector, alpha):
        return (p > 0) * vector

    logits = random_logits(2, 4, scale=0.1).requires_grad_()
    # By import_module: the package exports a function of the module's name.
    module = importlib.import_module("lastlayer.functional.entmax")
    monkeypatch.setattr(module, "_jacobian_product", forgets_the_mean)
    assert not torch.autograd.gradcheck(
        lambda o: _Entmax.apply(o, 2.0), logits, raise_exception=False
    )


@pytest.mark.parametrize("alpha", [0.99, math.nan, math.inf])
def test_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be"):
        entmax(torch.zeros(3), alpha)


def test_bad_logits_are_refused():
    with pytest.raises(TypeError, match="floating-point"):
        sparsemax(torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="at least one class"):
        sparsemax(torch.empty(3, 0))
    with pytest.raises(ValueError, match="at least one class"):
        sparsemax(torch.tensor(1.0))
