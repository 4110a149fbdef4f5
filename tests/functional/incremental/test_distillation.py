"""Distillation losses against SciPy's and torch's own, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import rel_entr, softmax

from lastlayer.functional.incremental import (
    distillation_loss,
    feature_distillation_loss,
    unit_rows,
)


def pair(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    return (torch.randn(*shape, generator=generator, dtype=dtype) * 3 for _ in range(2))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 20.0])
def test_the_loss_is_scipys_relative_entropy(temperature):
    student, teacher = pair(6, 4)
    expected = temperature**2 * rel_entr(
        softmax(teacher.numpy() / temperature, axis=1),
        softmax(student.numpy() / temperature, axis=1),
    ).sum(axis=1)
    rows = distillation_loss(student, teacher, temperature=temperature, reduction="none")
    np.testing.assert_allclose(rows.numpy(), expected, rtol=1e-10, atol=1e-14)
    mean = distillation_loss(student, teacher, temperature=temperature)
    total = distillation_loss(student, teacher, temperature=temperature, reduction="sum")
    assert float(mean) == pytest.approx(expected.mean(), rel=1e-12)
    assert float(total) == pytest.approx(expected.sum(), rel=1e-12)


def test_the_gradient_is_the_cross_entropys_and_its_closed_form():
    student, teacher = pair(5, 3)
    student.requires_grad_()
    ours = torch.autograd.grad(distillation_loss(student, teacher, reduction="sum"), student)[0]
    cross_entropy = 4 * F.cross_entropy(student / 2, (teacher / 2).softmax(1), reduction="sum")
    expected = torch.autograd.grad(cross_entropy, student)[0]
    torch.testing.assert_close(ours, expected)
    closed = 2 * ((student / 2).softmax(1) - (teacher / 2).softmax(1))
    torch.testing.assert_close(ours, closed.detach())
    assert torch.autograd.gradcheck(lambda s: distillation_loss(s, teacher), (student,))


def test_agreement_and_a_shift_of_all_logits_cost_nothing():
    student, _ = pair(5, 3)
    assert distillation_loss(student, student) == 0
    assert float(distillation_loss(student + 7, student)) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("num_old", [0, 1])
def test_without_two_old_classes_there_is_nothing_to_tell(num_old):
    student, teacher = pair(5, num_old)
    student.requires_grad_()
    loss = distillation_loss(student, teacher)
    assert loss == 0
    assert torch.autograd.grad(loss, student)[0].eq(0).all()
    assert distillation_loss(student, teacher, reduction="none").tolist() == [0.0] * 5


def test_no_row_is_no_loss_and_any_leading_shape_is_rows():
    assert distillation_loss(torch.empty(0, 3), torch.empty(0, 3)) == 0
    student, teacher = pair(2, 3, 4)
    rows = distillation_loss(student, teacher, reduction="none")
    assert rows.shape == (2, 3)
    assert distillation_loss(student, teacher).equal(rows.mean())


def test_a_class_the_teacher_excludes_is_left_out_with_a_finite_gradient():
    student, teacher = pair(4, 3)
    teacher[:, 1] = -torch.inf
    for shut in (False, True):
        logits = student.clone()
        if shut:
            logits[:, 1] = -torch.inf
        logits.requires_grad_()
        loss = distillation_loss(logits, teacher)
        assert torch.autograd.grad(loss, logits)[0].isfinite().all()
    others = distillation_loss(student[:, [0, 2]], teacher[:, [0, 2]])
    torch.testing.assert_close(loss, others)


def test_the_teacher_gets_no_gradient():
    student, teacher = (x.requires_grad_() for x in pair(4, 3))
    (distillation_loss(student, teacher) + feature_distillation_loss(student, teacher)).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("loss", [distillation_loss, feature_distillation_loss])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    student, teacher = (x.to(dtype) for x in pair(64, 10))
    ours = loss(student, teacher)
    assert ours.dtype == torch.float32
    assert float(ours) == pytest.approx(float(loss(student.double(), teacher.double())), rel=1e-5)


def test_the_feature_loss_is_one_minus_torchs_cosine():
    student, teacher = pair(6, 4)
    expected = 1 - F.cosine_similarity(student, teacher)
    rows = feature_distillation_loss(student, teacher, reduction="none")
    torch.testing.assert_close(rows, expected)
    assert feature_distillation_loss(student, teacher).equal(rows.mean())
    torch.testing.assert_close(feature_distillation_loss(student, 5 * student), rows.new_tensor(0))
    torch.testing.assert_close(feature_distillation_loss(student, -student), rows.new_tensor(2))
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: feature_distillation_loss(s, teacher), (student,))


def test_a_row_of_zeros_costs_one_and_has_gradient_zero():
    student = torch.zeros(2, 3, requires_grad=True)
    loss = feature_distillation_loss(student, torch.ones(2, 3))
    assert loss == 1
    assert torch.autograd.grad(loss, student)[0].eq(0).all()


def test_unit_rows_are_torchs_normalized_ones_at_any_size():
    rows, _ = pair(5, 3)
    for scale in (1.0, 1e200, 1e-200):
        torch.testing.assert_close(unit_rows(rows * scale), F.normalize(rows))
    assert torch.autograd.gradcheck(unit_rows, (rows.requires_grad_(),))


@pytest.mark.parametrize("loss", [distillation_loss, feature_distillation_loss])
def test_bad_input_is_named(loss):
    rows = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"one shape .* got \(2, 3\) and \(2, 2\)"):
        loss(rows, rows[:, :2])
    with pytest.raises(TypeError, match="floating"):
        loss(rows.long(), rows)
    with pytest.raises(TypeError, match="teacher_"):
        loss(rows, rows.long())
    with pytest.raises(ValueError, match="reduction"):
        loss(rows, rows, reduction="average")


def test_a_temperature_of_zero_and_features_without_a_dimension_are_refused():
    with pytest.raises(ValueError, match="temperature"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 3), temperature=0.0)
    with pytest.raises(ValueError, match="features"):
        feature_distillation_loss(torch.zeros(2, 0), torch.zeros(2, 0))
