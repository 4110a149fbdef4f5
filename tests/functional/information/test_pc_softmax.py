"""Probability-corrected softmax and its loss against torch's cross entropy and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.functional import information as fi

PRIOR = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)


def logits(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 3):
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * drawn).to(dtype)


def labels(*shape: int):
    return torch.randint(3, shape, generator=torch.Generator().manual_seed(4))


def test_density_ratios_average_to_one_under_the_prior():
    ratio = fi.pc_softmax(logits(50, 3), PRIOR)
    torch.testing.assert_close((ratio * PRIOR).sum(-1), torch.ones(50, dtype=torch.float64))
    assert bool((ratio <= 1 / PRIOR).all())


def test_uniform_prior_gives_softmax_times_the_number_of_classes():
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(
        fi.log_pc_softmax(logits(5, 3), uniform), logits(5, 3).log_softmax(-1) + math.log(3)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_of_a_thousand_are_no_trouble(dtype):
    ratio = fi.log_pc_softmax(torch.tensor([1000.0, -1000.0, 0.0], dtype=dtype), PRIOR.to(dtype))
    expected = torch.tensor([0.0, -2000.0, -1000.0], dtype=dtype) - math.log(0.2)
    torch.testing.assert_close(ratio, expected, rtol=1e-6, atol=1e-6)
    loss = fi.pc_softmax_loss(torch.tensor([[1000.0, -1000.0, 0.0]]), torch.tensor([1]), PRIOR)
    assert math.isclose(float(loss), 1998.3906, abs_tol=1e-3)


@given(
    st.lists(st.floats(-1000, 1000), min_size=3, max_size=3),
    st.floats(-500, 500),
    st.integers(0, 2),
)
@settings(max_examples=60)
def test_loss_is_shifted_cross_entropy_plus_log_prior(values, shift, label):
    row = torch.tensor([values], dtype=torch.float64)
    target = torch.tensor([label])
    found = fi.pc_softmax_loss(row, target, PRIOR)
    expected = F.cross_entropy(row + PRIOR.log(), target) + PRIOR[label].log()
    assert math.isclose(float(found), float(expected), rel_tol=1e-9, abs_tol=1e-9)
    moved = fi.pc_softmax_loss(row + shift, target, PRIOR)
    assert math.isclose(float(moved), float(found), rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(3,), (6, 3), (4, 3, 5), (2, 3, 4, 2)])
def test_gradient_is_that_of_the_prior_weighted_cross_entropy(shape, smoothing, reduction):
    ours, theirs = (logits(*shape).requires_grad_() for _ in range(2))
    dim = 0 if len(shape) == 1 else 1
    target = labels(*shape[:dim], *shape[dim + 1 :])
    if target.dim():
        target.view(-1)[0] = -7
    options = {"ignore_index": -7, "reduction": reduction, "label_smoothing": smoothing}
    options["weight"] = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    log_prior = PRIOR.log().view(3, *[1] * (len(shape) - dim - 1))
    fi.pc_softmax_loss(ours, target, PRIOR, **options).sum().backward()
    F.cross_entropy(theirs + log_prior, target, **options).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-14)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_values_differ_from_cross_entropy_by_the_log_prior_of_the_label(reduction):
    rows, target = logits(8, 3), labels(8)
    found = fi.pc_softmax_loss(rows, target, PRIOR, reduction="none")
    shifted = F.cross_entropy(rows + PRIOR.log(), target, reduction="none")
    torch.testing.assert_close(found - shifted, PRIOR.log()[target])
    reduced = fi.pc_softmax_loss(rows, target, PRIOR, reduction=reduction)
    expected = {"none": found, "mean": found.mean(), "sum": found.sum()}[reduction]
    torch.testing.assert_close(reduced, expected)


def test_soft_targets_add_the_log_prior_they_weigh():
    rows, soft = logits(4, 3, 2), logits(4, 3, 2, seed=8).softmax(1)
    found = fi.pc_softmax_loss(rows, soft, PRIOR, reduction="none")
    log_prior = PRIOR.log().view(3, 1)
    expected = F.cross_entropy(rows + log_prior, soft, reduction="none")
    expected = expected + (soft * log_prior).sum(1)
    torch.testing.assert_close(found, expected)


def test_one_hot_soft_targets_are_class_indices():
    rows, target = logits(6, 3), labels(6)
    weight = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    hard = fi.pc_softmax_loss(rows, target, PRIOR, weight=weight, reduction="none")
    soft = F.one_hot(target, 3).double()
    torch.testing.assert_close(
        fi.pc_softmax_loss(rows, soft, PRIOR, weight=weight, reduction="none"), hard
    )


def test_loss_has_exact_first_and_second_derivatives():
    rows, target = logits(4, 3).requires_grad_(), labels(4)
    assert torch.autograd.gradcheck(lambda n: fi.pc_softmax_loss(n, target, PRIOR), rows)
    assert torch.autograd.gradgradcheck(lambda n: fi.pc_softmax_loss(n, target, PRIOR), rows)
    assert torch.autograd.gradcheck(lambda n: fi.log_pc_softmax(n, PRIOR), rows)
    (gradient,) = torch.autograd.grad(fi.pc_softmax_loss(rows, target, PRIOR), rows)
    assert gradient.sum(-1).abs().max() < 1e-15


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_is_computed_in_float32(dtype):
    rows, target = logits(32, 3, dtype=dtype), labels(32)
    found = fi.pc_softmax_loss(rows, target, PRIOR.float())
    assert found.dtype == torch.float32
    exact = fi.pc_softmax_loss(rows.double(), target, PRIOR)
    assert math.isclose(float(found), float(exact), abs_tol=1e-6)
    assert fi.log_pc_softmax(rows, PRIOR).dtype == torch.float32


def test_class_of_prior_zero_leaves_the_others_alone_and_has_no_ratio_itself():
    prior = torch.tensor([0.4, 0.0, 0.6], dtype=torch.float64)
    rows = logits(5, 3).requires_grad_()
    ratio = fi.log_pc_softmax(rows, prior)
    assert bool(ratio[:, 1].isnan().all())
    others = fi.log_pc_softmax(rows[:, [0, 2]], prior[[0, 2]])
    torch.testing.assert_close(ratio[:, [0, 2]], others)
    target = torch.tensor([0, 2, 2, 0, 2])
    loss = fi.pc_softmax_loss(rows, target, prior)
    loss.backward()
    torch.testing.assert_close(
        loss, fi.pc_softmax_loss(rows[:, [0, 2]], target // 2, prior[[0, 2]])
    )
    assert bool(rows.grad.isfinite().all())
    assert bool((rows.grad[:, 1] == 0).all())
    assert bool(fi.pointwise_information(rows, prior)[:, 1].isnan().all())


def test_target_of_prior_zero_is_refused_unless_it_is_left_out():
    prior = torch.tensor([0.4, 0.0, 0.6])
    with pytest.raises(ValueError, match="row 1 names a class of prior 0"):
        fi.pc_softmax_loss(torch.zeros(2, 3), torch.tensor([0, 1]), prior)
    with pytest.raises(ValueError, match="prior 0"):
        fi.pc_softmax_loss(torch.zeros(2, 3), torch.tensor([0, 2]), prior, label_smoothing=0.1)
    rows = torch.zeros(2, 3, dtype=torch.float64)
    prior = prior.double()  # sums to 1 within single precision's rounding of 0.4 and 0.6
    left = fi.pc_softmax_loss(rows, torch.tensor([0, 1]), prior, ignore_index=1)
    assert float(left) == pytest.approx(math.log(float(prior.sum())), abs=1e-14)


def test_nan_logits_give_a_nan_loss_as_in_torch():
    rows = torch.tensor([[float("nan"), 0.0], [1.0, 0.0]])
    loss = fi.pc_softmax_loss(rows, torch.tensor([0, 1]), torch.tensor([0.5, 0.5]))
    assert math.isnan(float(loss))


def test_mean_over_no_row_is_zero():
    loss = fi.pc_softmax_loss(torch.zeros(2, 3), torch.tensor([-100, -100]), PRIOR.float())
    assert float(loss) == 0.0


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (torch.tensor([0.5, 0.5]), r"prior must have shape \(3,\)"),
        (torch.tensor([10.0, 20.0, 30.0]), "sum 1, not counts"),
        (torch.tensor([0.7, 0.5, -0.2]), "smallest entry -0.2"),
        (torch.tensor([0.5, 0.5, math.nan]), "sum nan"),
    ],
)
def test_bad_priors_are_refused(prior, message):
    for function in (fi.log_pc_softmax, fi.pointwise_information):
        with pytest.raises(ValueError, match=message):
            function(torch.zeros(2, 3), prior)
    with pytest.raises(ValueError, match=message):
        fi.pc_softmax_loss(torch.zeros(2, 3), torch.tensor([0, 1]), prior)


def test_pointwise_information_is_the_log_ratio_of_either_model():
    joint = torch.tensor([[0.3, 0.1, 0.05], [0.05, 0.1, 0.4]], dtype=torch.float64)
    prior = joint.sum(0)
    truth = fi.joint_pointwise_information(joint)
    posterior, likelihood = (joint / joint.sum(1, keepdim=True)).log() + 3, (joint / prior).log()
    torch.testing.assert_close(fi.pointwise_information(posterior, prior), truth)
    torch.testing.assert_close(
        fi.pointwise_information(likelihood, prior, trained_with="pc-softmax"), truth
    )
    by_column = fi.pointwise_information(posterior.mT, prior, dim=0)
    torch.testing.assert_close(by_column, truth.mT)
    with pytest.raises(ValueError, match="trained_with must be one of"):
        fi.pointwise_information(posterior, prior, trained_with="focal")


def test_prior_shifts_agree_with_bayes_rule_and_with_each_other():
    joint = torch.tensor([[0.3, 0.1, 0.05], [0.05, 0.1, 0.4]], dtype=torch.float64)
    source, moved = joint.sum(0), torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    likelihood = joint / source
    bayes = likelihood * moved / (likelihood * moved).sum(1, keepdim=True)
    post = fi.post_compensated_log_prob((joint / joint.sum(1, keepdim=True)).log(), source, moved)
    corrected = fi.probability_corrected_log_prob(likelihood.log(), moved)
    torch.testing.assert_close(post.exp(), bayes)
    torch.testing.assert_close(corrected.exp(), bayes)


def test_prior_shift_drops_impossible_classes_and_refuses_unlearned_ones():
    half = torch.tensor([0.5, 0.5, 0.0])
    third = torch.full((3,), 1 / 3)
    shifted = fi.post_compensated_log_prob(torch.zeros(3), third, half)
    torch.testing.assert_close(shifted.exp(), half)
    torch.testing.assert_close(fi.post_compensated_log_prob(torch.zeros(3), half, half).exp(), half)
    with pytest.raises(ValueError, match="class 2 has source_prior 0"):
        fi.post_compensated_log_prob(torch.zeros(3), half, third)
