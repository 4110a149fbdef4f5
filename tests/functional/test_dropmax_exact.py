"""DropMax's exact expectations against enumeration, closed forms, SciPy and Monte Carlo."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor

from lastlayer.functional.dropmax import bernoulli_kl, masked_log_prob, monte_carlo_log_prob
from lastlayer.functional.dropmax.bernoulli_sum import expected_shares
from lastlayer.functional.dropmax.exact import expected_cross_entropy, expected_log_prob
from lastlayer.functional.dropmax.trapezoid import Rule, chunks

FORMS = ("neurips", "iclr")
EPS = (1e-1, 1e-8, 1e-20)


def all_masks(num_classes: int) -> Tensor:
    rows = list(itertools.product([0.0, 1.0], repeat=num_classes))
    return torch.tensor(rows, dtype=torch.float64)


def log_mask_prob(masks: Tensor, retain_logits: Tensor) -> Tensor:
    """(N, M, K) log-probability of each class's entry in each mask."""
    a = retain_logits[:, None]
    return torch.where(masks.bool(), F.logsigmoid(a), F.logsigmoid(-a))


def enumerated_log_prob(o: Tensor, a: Tensor, form: str, eps: float) -> Tensor:
    masks = all_masks(o.shape[-1])
    log_p = masked_log_prob(o[:, None], masks.log()[None], form=form, eps=eps)
    return (log_mask_prob(masks, a).sum(-1, keepdim=True) + log_p).logsumexp(1)


def enumerated_cross_entropy(o: Tensor, a: Tensor, target: Tensor, form: str, eps: float) -> Tensor:
    num_classes = o.shape[-1]
    masks = all_masks(num_classes).expand(len(o), -1, -1)
    hit = F.one_hot(target, num_classes).bool()[:, None]
    weight = log_mask_prob(masks, a).masked_fill(hit, 0.0).sum(-1).exp()
    log_mask = masks.log().masked_fill(hit, 0.0)
    log_p = masked_log_prob(o[:, None], log_mask, form=form, eps=eps)
    nll = -(log_p * hit).nan_to_num().sum(-1)
    return 0.5 * (weight * nll).sum(1)  # both values of the target's bit were enumerated


def random_problem(
    seed: int, rows: int, num_classes: int, spread: float, retain_spread: float
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    o, a = (
        (2 * torch.rand(rows, num_classes, generator=generator, dtype=torch.float64) - 1) * width
        for width in (spread, retain_spread)
    )
    return o, a, torch.randint(num_classes, (rows,), generator=generator)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("num_classes", [1, 2, 3, 6, 9])
def test_both_expectations_equal_enumeration_of_all_masks_in_float64(
    form: str, eps: float, num_classes: int
) -> None:
    for spread, retain_spread in itertools.product((1.0, 8.0, 30.0), (2.0, 20.0)):
        o, a, target = random_problem(num_classes, 12, num_classes, spread, retain_spread)
        prob = expected_log_prob(o, a, form=form, eps=eps).exp()
        truth = enumerated_log_prob(o, a, form, eps).exp()
        torch.testing.assert_close(prob, truth, atol=1e-9, rtol=0)
        loss = expected_cross_entropy(o, a, target, form=form, eps=eps)
        truth = enumerated_cross_entropy(o, a, target, form, eps)
        torch.testing.assert_close(loss, truth, atol=1e-9, rtol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_inputs_give_float32_within_5e_6_of_enumeration(
    form: str, eps: float, dtype: torch.dtype
) -> None:
    for spread, retain_spread in itertools.product((1.0, 8.0, 30.0), (2.0, 20.0)):
        o, a, target = random_problem(7, 12, 7, spread, retain_spread)
        o, a = o.to(dtype), a.to(dtype)
        log_prob = expected_log_prob(o, a, form=form, eps=eps)
        loss = expected_cross_entropy(o, a, target, form=form, eps=eps)
        assert log_prob.dtype == loss.dtype == torch.float32
        truth = enumerated_log_prob(o.double(), a.double(), form, eps).exp()
        torch.testing.assert_close(log_prob.double().exp(), truth, atol=5e-6, rtol=0)
        truth = enumerated_cross_entropy(o.double(), a.double(), target, form, eps)
        torch.testing.assert_close(loss.double(), truth, atol=5e-6, rtol=0)


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(st.floats(-40, 40), st.floats(-30, 30)), min_size=1, max_size=7),
    log10_eps=st.floats(-25, -1),
    form=st.sampled_from(FORMS),
)
def test_any_small_problem_equals_enumeration(
    rows: list[tuple[float, float]], log10_eps: float, form: str
) -> None:
    o, a = torch.tensor(rows, dtype=torch.float64).t()[:, None]
    eps = 10.0**log10_eps
    log_prob = expected_log_prob(o, a, form=form, eps=eps)
    truth = enumerated_log_prob(o, a, form, eps)
    torch.testing.assert_close(log_prob.exp(), truth.exp(), atol=1e-9, rtol=0)
    torch.testing.assert_close(log_prob.exp().sum(), torch.tensor(1.0).double(), atol=1e-9, rtol=0)
    target = torch.tensor([0])
    loss = expected_cross_entropy(o, a, target, form=form, eps=eps)
    truth = enumerated_cross_entropy(o, a, target, form, eps)
    torch.testing.assert_close(loss, truth, atol=1e-9, rtol=0)


def test_two_classes_equal_their_closed_forms() -> None:
    o, a, _ = random_problem(0, 50, 2, 6.0, 4.0)
    r1, r2 = torch.sigmoid(a).unbind(-1)
    first = torch.sigmoid(o[:, 0] - o[:, 1])
    alone = r1 * (1 - r2)
    neurips = (r1 * r2 + (1 - r1) * (1 - r2)) * first + alone
    iclr = r1 * r2 * first + alone + 0.5 * (1 - r1) * (1 - r2)
    for form, truth in (("neurips", neurips), ("iclr", iclr)):
        prob = expected_log_prob(o, a, form=form).exp()[:, 0]
        torch.testing.assert_close(prob, truth, atol=1e-9, rtol=0)
    # Cross-entropy of class 0: log(1 + e^{-(o1 - o2)}) when the other is kept, else 0.
    loss = expected_cross_entropy(o, a, torch.zeros(50, dtype=torch.long))
    torch.testing.assert_close(loss, -r2 * F.logsigmoid(o[:, 0] - o[:, 1]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_one_class_has_probability_one_and_no_loss(form: str) -> None:
    o = torch.tensor([[3.0], [-1e4]], requires_grad=True)
    a = torch.tensor([[-20.0], [5.0]], requires_grad=True)
    log_prob = expected_log_prob(o, a, form=form)
    loss = expected_cross_entropy(o, a, torch.zeros(2, dtype=torch.long), form=form)
    torch.testing.assert_close(log_prob, torch.zeros(2, 1))
    assert loss.tolist() == [0.0, 0.0]
    for grad in torch.autograd.grad(log_prob.sum() + loss.sum(), (o, a)):
        torch.testing.assert_close(grad, torch.zeros(2, 1), atol=1e-6, rtol=0)


def test_classes_kept_for_certain_give_softmax_and_its_cross_entropy() -> None:
    o, _, target = random_problem(3, 20, 30, 10.0, 1.0)
    a = torch.full_like(o, 1e4)
    log_prob = expected_log_prob(o, a)
    torch.testing.assert_close(log_prob.exp(), o.softmax(-1), atol=1e-9, rtol=0)
    loss = expected_cross_entropy(o, a, target)
    torch.testing.assert_close(loss, F.cross_entropy(o, target, reduction="none"))


def test_cross_entropy_equals_scipy_quadrature_of_frullanis_integral() -> None:
    o, a, target = random_problem(5, 3, 40, 3.0, 3.0)
    loss = expected_cross_entropy(o, a, target, eps=1e-20)
    for row in range(3):
        t = int(target[row])
        ratio = (o[row] - o[row, t]).exp()
        rho = torch.sigmoid(a[row])
        others = torch.arange(40) != t
        ratio, rho = ratio[others], rho[others]

        def integrand(x: float, ratio: Tensor = ratio, rho: Tensor = rho) -> float:
            s = math.exp(x)
            kept = float(torch.log1p(rho * torch.expm1(-s * ratio)).sum())
            return -math.exp(-s) * math.expm1(kept)

        truth, _ = quad(integrand, -50.0, 5.0, limit=400, epsabs=1e-11, epsrel=0)
        assert float(loss[row]) == pytest.approx(truth, abs=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_a_thousand_classes_lie_within_five_standard_errors_of_monte_carlo(form: str) -> None:
    o, a, _ = random_problem(11, 2, 1000, 6.0, 3.0)
    exact = expected_log_prob(o, a, form=form).exp()
    generator = torch.Generator().manual_seed(0)
    batches = torch.stack(
        [
            monte_carlo_log_prob(o, a, num_samples=50, form=form, generator=generator).exp()
            for _ in range(40)
        ]
    )
    error = batches.std(0) / math.sqrt(len(batches))
    # 2000 two-sided tests at 5.5 standard errors of a t distribution with 39 degrees of freedom
    # fail by chance with probability below 1 %.
    assert bool(((batches.mean(0) - exact).abs() <= 5.5 * error + 1e-9).all())
    torch.testing.assert_close(exact.sum(-1), torch.ones(2).double(), atol=1e-9, rtol=0)


def test_a_hundred_thousand_equal_classes_share_evenly_in_float32() -> None:
    o, a = torch.zeros(1, 100_000), torch.full((1, 100_000), -1.0)
    log_prob = expected_log_prob(o, a)
    torch.testing.assert_close(log_prob, torch.full_like(o, -math.log(1e5)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_elbo_bounds_the_exact_marginal(form: str) -> None:
    generator = torch.Generator().manual_seed(2)
    o, a, target = random_problem(2, 200, 8, 5.0, 3.0)
    for width in (0.0, 1.0, 5.0):
        r = width * torch.randn(o.shape, generator=generator, dtype=torch.float64)
        expected = expected_cross_entropy(o, a + r, target, form=form)
        bound = expected + bernoulli_kl(r, a, target)
        marginal = expected_log_prob(o, a, form=form).gather(1, target[:, None])[:, 0]
        assert bool((bound >= -marginal - 1e-9).all())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("eps", [1e-1, 1e-20])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_first_and_second_derivatives_equal_finite_differences(
    form: str, eps: float, num_classes: int
) -> None:
    o, a, target = random_problem(8, 2, num_classes, 4.0, 2.0)
    o.requires_grad_()
    a.requires_grad_()

    def log_prob(o: Tensor, a: Tensor) -> Tensor:
        return expected_log_prob(o, a, form=form, eps=eps)

    def cross_entropy(o: Tensor, a: Tensor) -> Tensor:
        return expected_cross_entropy(o, a, target, form=form, eps=eps)

    for function in (log_prob, cross_entropy):
        assert torch.autograd.gradcheck(function, (o, a))
        assert torch.autograd.gradgradcheck(function, (o, a))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_equal_those_of_enumeration_on_wide_problems(form: str) -> None:
    for spread, retain_spread in ((8.0, 3.0), (30.0, 20.0)):
        o, a, target = random_problem(13, 16, 8, spread, retain_spread)
        o.requires_grad_()
        a.requires_grad_()
        weight = torch.linspace(-1, 2, 8, dtype=torch.float64)
        exact = (expected_log_prob(o, a, form=form).exp() * weight).sum()
        truth = (enumerated_log_prob(o, a, form, 1e-20).exp() * weight).sum()
        exact = exact + expected_cross_entropy(o, a, target, form=form).sum()
        truth = truth + enumerated_cross_entropy(o, a, target, form, 1e-20).sum()
        for ours, theirs in zip(
            torch.autograd.grad(exact, (o, a)), torch.autograd.grad(truth, (o, a)), strict=True
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-8, rtol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("extreme", [20.0, 100.0, 1e4])
@pytest.mark.parametrize("where", ["logits", "retain_logits", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_are_right_and_differentiable(
    form: str, extreme: float, where: str, dtype: torch.dtype
) -> None:
    o, a, target = random_problem(17, 8, 5, 1.0, 1.0)
    o = (o * extreme if where != "retain_logits" else o).to(dtype).requires_grad_()
    a = (a.sign() * extreme if where != "logits" else a).to(dtype).requires_grad_()
    log_prob = expected_log_prob(o, a, form=form)
    loss = expected_cross_entropy(o, a, target, form=form)
    assert bool(log_prob.isfinite().all())
    assert bool((log_prob <= 1e-6).all())
    truth = enumerated_log_prob(o.detach().double(), a.detach().double(), form, 1e-20)
    torch.testing.assert_close(log_prob.double().exp(), truth.exp(), atol=2e-6, rtol=0)
    truth = enumerated_cross_entropy(o.detach().double(), a.detach().double(), target, form, 1e-20)
    torch.testing.assert_close(loss.double(), truth, atol=2e-6, rtol=3e-7)
    for grad in torch.autograd.grad(log_prob.sum() + loss.sum(), (o, a)):
        assert bool(grad.isfinite().all())


@pytest.mark.parametrize("form", FORMS)
def test_rows_whose_scales_lie_thousands_apart_do_not_disturb_each_other(form: str) -> None:
    for seed in range(10):
        o, a, target = random_problem(seed, 6, 4, 3000.0, 8.0)
        prob = expected_log_prob(o, a, form=form).exp()
        truth = enumerated_log_prob(o, a, form, 1e-20).exp()
        torch.testing.assert_close(prob, truth, atol=1e-9, rtol=0)
        loss = expected_cross_entropy(o, a, target, form=form)
        truth = enumerated_cross_entropy(o, a, target, form, 1e-20)
        torch.testing.assert_close(loss, truth, atol=1e-9, rtol=1e-12)


def test_log_probability_too_small_for_float64_stays_finite_and_differentiable() -> None:
    o = torch.tensor([[0.0, -5000.0]], requires_grad=True)
    a = torch.full((1, 2), 40.0, requires_grad=True)
    log_prob = expected_log_prob(o, a)
    torch.testing.assert_close(log_prob, torch.tensor([[0.0, -5000.0]]))
    (grad,) = torch.autograd.grad(log_prob[0, 1], o)
    torch.testing.assert_close(grad, torch.tensor([[-1.0, 1.0]]))


def test_a_dropped_class_far_above_the_rest_comes_back_in_the_neurips_form_only() -> None:
    o = torch.tensor([[60.0, 0.0]], dtype=torch.float64)
    a = torch.tensor([[-40.0, 40.0]], dtype=torch.float64)
    assert float(expected_log_prob(o, a, form="neurips").exp()[0, 0]) > 0.999
    assert float(expected_log_prob(o, a, form="iclr").exp()[0, 0]) < 1e-6


def test_a_class_masked_with_minus_infinity_has_probability_zero() -> None:
    o = torch.tensor([[0.0, -math.inf, 1.0]], requires_grad=True)
    a = torch.zeros(1, 3, requires_grad=True)
    log_prob = expected_log_prob(o, a)
    truth = expected_log_prob(o[:, [0, 2]].detach(), a[:, [0, 2]].detach())
    torch.testing.assert_close(log_prob[:, [0, 2]], truth, atol=2e-6, rtol=0)
    assert float(log_prob[0, 1].detach()) == -math.inf


def test_a_row_with_nan_leaves_the_other_rows_alone() -> None:
    o, a, target = random_problem(1, 3, 4, 2.0, 2.0)
    broken = o.clone()
    broken[1, 2] = math.nan
    log_prob = expected_log_prob(broken, a)
    assert bool(log_prob[1].isnan().all())
    torch.testing.assert_close(log_prob[[0, 2]], expected_log_prob(o, a)[[0, 2]], rtol=0, atol=1e-9)
    loss = expected_cross_entropy(broken, a, target)
    assert bool(loss[1].isnan())
    assert bool(loss[[0, 2]].isfinite().all())


def test_rows_do_not_depend_on_how_they_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    o, a, target = random_problem(4, 60, 60, 5.0, 3.0)
    o.requires_grad_()
    results = []
    for elements in (2**17, 2**12):
        monkeypatch.setattr("lastlayer.functional.dropmax.trapezoid._BLOCK_ELEMENTS_CPU", elements)
        log_prob = expected_log_prob(o, a)
        loss = expected_cross_entropy(o, a, target)
        grad = torch.autograd.grad(log_prob.exp()[:, 0].sum() + loss.sum(), o)[0]
        results.append((log_prob.exp(), loss, grad))
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(whole, chunked, atol=1e-9, rtol=0)


def test_leading_dimensions_are_kept_and_empty_batches_allowed() -> None:
    o, a, target = random_problem(6, 6, 4, 2.0, 2.0)
    grid = (o.reshape(2, 3, 4), a.reshape(2, 3, 4))
    torch.testing.assert_close(expected_log_prob(*grid), expected_log_prob(o, a).reshape(2, 3, 4))
    torch.testing.assert_close(
        expected_cross_entropy(*grid, target.reshape(2, 3)),
        expected_cross_entropy(o, a, target).reshape(2, 3),
    )
    empty = torch.zeros(0, 4)
    assert expected_log_prob(empty, empty).shape == (0, 4)
    assert expected_cross_entropy(empty, empty, torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_the_trapezoid_rule_errs_by_at_most_its_stated_bound() -> None:
    # One kept term alone: E D / S = 1, and the rule's error depends on log D only.
    log_gain = torch.linspace(-1.0, 0.0, 41, dtype=torch.float64)[:, None]
    a = torch.full_like(log_gain, 40.0)
    log_base = torch.full((41,), -60.0, dtype=torch.float64)
    for step, bound in ((0.4, 4e-10), (0.6, 1.2e-6)):
        rule = Rule(step=step, start=1e-5, tolerance=1e-14)
        gain, _, _ = expected_shares(log_gain, a, log_base, chunks(log_gain, rule)[1])
        error = float((gain - 1.0).abs().max())
        assert 0.5 * bound < error < 1.05 * bound


def test_enumeration_catches_a_rule_without_its_left_end(monkeypatch: pytest.MonkeyPatch) -> None:
    o, a, _ = random_problem(9, 12, 6, 3.0, 2.0)
    truth = enumerated_log_prob(o, a, "neurips", 1e-20).exp()
    monkeypatch.setattr(Rule, "missing", lambda self, order: 0.0)
    broken = expected_log_prob(o, a).exp()
    assert float((broken - truth).abs().max()) > 100 * 1e-9


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"form": "icml"}, ValueError, "form must be one of"),
        ({"eps": 0.0}, ValueError, "eps must be a finite number above 0"),
        ({"logits": torch.zeros(2, 3, dtype=torch.long)}, TypeError, "logits must have a floating"),
        ({"retain_logits": torch.zeros(2, 4)}, ValueError, "retain_logits must have the shape"),
        ({"logits": torch.tensor(1.0)}, ValueError, r"logits must have shape \(\*, K\)"),
        ({"target": torch.zeros(2)}, TypeError, "target must hold int64"),
        ({"target": torch.tensor([0, 3])}, ValueError, "target must lie in"),
        ({"target": torch.tensor([0, -1])}, ValueError, "target must lie in"),
        ({"target": torch.tensor([0])}, ValueError, "target must have shape"),
    ],
)
def test_bad_arguments_are_refused_by_name(
    changes: dict[str, object], error: type[Exception], message: str
) -> None:
    arguments: dict[str, object] = {
        "logits": torch.zeros(2, 3),
        "retain_logits": torch.zeros(2, 3),
        "target": torch.tensor([0, 1]),
    }
    arguments.update(changes)
    with pytest.raises(error, match=message):
        expected_cross_entropy(**arguments)  # type: ignore[arg-type]
    if "target" not in changes:
        del arguments["target"]
        with pytest.raises(error, match=message):
            expected_log_prob(**arguments)  # type: ignore[arg-type]
