"""The identities of information and cross entropy on finite joints, by enumeration."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lastlayer.functional import information as fi

EXACT = {"rtol": 0, "atol": 1e-12}


def close(value, expected) -> bool:
    return math.isclose(float(value), float(expected), rel_tol=0, abs_tol=1e-12)


def test_entropy_minus_cross_entropy_is_information_minus_divergence(case):
    found = fi.cross_entropy_information(case.scores, case.target).value
    divergence = case.expected_divergence(case.table.log_softmax(-1))
    assert close(found, case.information - divergence)
    given = fi.cross_entropy_information(case.scores, case.target, prior=case.prior).value
    assert close(given, found)


def test_log_k_minus_cross_entropy_exceeds_that_by_the_divergence_from_uniform(case):
    skewed = bool(case.prior.std() > 1e-9)
    with pytest.warns(fi.InformationWarning) if skewed else contextlib.nullcontext():
        found = fi.log_num_classes_information(
            case.scores, case.target, unbalanced="warn", tolerance=0.0, prior=case.prior
        ).value
    excess = fi.divergence_from_uniform(case.prior)
    assert close(excess, math.log(4) + float((case.prior * case.prior.log()).sum()))
    assert close(found - excess, fi.cross_entropy_information(case.scores, case.target).value)


def test_mean_log_pc_softmax_is_information_minus_the_posterior_divergence(case):
    found = fi.barber_agakov_bound(case.scores, case.target, prior=case.prior).value
    posterior = fi.probability_corrected_log_prob(case.table, case.prior)
    assert close(found, case.information - case.expected_divergence(posterior))
    assert close(found, -fi.pc_softmax_loss(case.scores, case.target, case.prior))


def test_bounds_of_one_critic_are_ordered_and_below_the_information(case):
    nwj, dv, ba = (
        float(bound(case.scores, case.target, prior=case.prior).value)
        for bound in (fi.nwj_bound, fi.donsker_varadhan_bound, fi.barber_agakov_bound)
    )
    assert nwj <= dv <= ba <= case.information


def test_bounds_are_their_definitions_summed_over_the_joint(case):
    joint, f = case.joint.numpy(), case.table.numpy()
    product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    mean, mass = (joint * f).sum(), (product * np.exp(f)).sum()
    for prior in (None, case.prior):
        dv = fi.donsker_varadhan_bound(case.scores, case.target, prior=prior).value
        nwj = fi.nwj_bound(case.scores, case.target, prior=prior).value
        assert close(dv, mean - math.log(mass))
        assert close(nwj, mean - mass / math.e)


def test_barber_agakov_is_donsker_varadhan_at_its_best_row_constant(case):
    best = -torch.logsumexp(case.scores + case.prior.log(), dim=-1, keepdim=True)
    ba = fi.barber_agakov_bound(case.scores, case.target, prior=case.prior).value
    assert close(fi.donsker_varadhan_bound(case.scores + best, case.target).value, ba)
    assert close(fi.nwj_bound(case.scores + best + 1, case.target).value, ba)
    worse = fi.donsker_varadhan_bound(case.scores + best + case.scores[:, :1], case.target).value
    assert float(worse) < float(ba)


def test_oracle_critics_attain_the_information_whatever_the_row_constant(case):
    log_ratio = fi.joint_pointwise_information(case.joint)
    likelihood = (case.joint / case.prior).log()[case.inputs]  # log p(x | y)
    shifts = 5 * torch.sin(case.inputs.double()).unsqueeze(-1)
    for shift in (0.0, shifts):
        ba = fi.barber_agakov_bound(likelihood + shift, case.target, prior=case.prior).value
        assert close(ba, case.information)
        posterior = likelihood + case.prior.log() + shift
        assert close(fi.cross_entropy_information(posterior, case.target).value, case.information)
    exact = log_ratio[case.inputs]
    assert close(fi.donsker_varadhan_bound(exact, case.target).value, case.information)
    assert close(fi.nwj_bound(exact + 1, case.target).value, case.information)


def test_estimates_do_not_see_the_names_of_the_labels(case):
    order = torch.tensor([2, 0, 3, 1])
    renamed = torch.argsort(order)[case.target]
    for bound in (fi.cross_entropy_information, fi.barber_agakov_bound, fi.nwj_bound):
        before = bound(case.scores, case.target)
        after = bound(case.scores[:, order], renamed)
        torch.testing.assert_close(after, before, **EXACT)


def test_info_nce_of_labels_is_the_matrix_of_all_pairs_and_capped_at_log_batch(case):
    rows = torch.arange(0, len(case.target), 7)
    scores, target = 9 * case.scores[rows], case.target[rows]
    by_label, by_pair = fi.info_nce_bound(scores, target), fi.info_nce_bound(scores[:, target])
    torch.testing.assert_close(by_label, by_pair, **EXACT)
    assert float(by_label.value) <= math.log(len(rows))
    perfect = fi.info_nce_bound(100 * torch.eye(8, dtype=torch.float64))
    assert close(perfect.value, math.log(8))


def test_pair_matrix_bounds_are_means_over_diagonal_and_rest():
    scores = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f = scores.numpy()
    mass = np.exp(f[~np.eye(5, dtype=bool)]).mean()
    mean = np.diag(f).mean()
    assert close(fi.donsker_varadhan_bound(scores).value, mean - np.log(mass))
    assert close(fi.nwj_bound(scores).value, mean - mass / math.e)
    nce = mean - np.log(np.exp(f).mean(1)).mean()
    assert close(fi.info_nce_bound(scores).value, nce)


def test_bounds_train_a_critic():
    scores = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    target = torch.tensor([0, 1, 2, 2, 0, 1])
    for bound in (
        fi.cross_entropy_information,
        fi.barber_agakov_bound,
        fi.donsker_varadhan_bound,
        fi.nwj_bound,
        fi.info_nce_bound,
    ):
        assert torch.autograd.gradcheck(
            lambda s, bound=bound: bound(s, target).value, scores.clone().requires_grad_()
        )
    square = torch.randn(4, 4, dtype=torch.float64).requires_grad_()
    for bound in (fi.donsker_varadhan_bound, fi.nwj_bound, fi.info_nce_bound):
        assert torch.autograd.gradcheck(lambda s, bound=bound: bound(s).value, square)


def test_reading_one_parameterisation_as_the_other_underestimates_unless_balanced(case):
    posterior = (case.joint / case.joint.sum(1, keepdim=True)).log()[case.inputs]
    likelihood = (case.joint / case.prior).log()[case.inputs]
    wrong = fi.barber_agakov_bound(posterior, case.target, prior=case.prior).value
    also_wrong = fi.cross_entropy_information(likelihood, case.target).value
    if case.prior.std() < 1e-9:
        assert close(wrong, case.information)
        assert close(also_wrong, case.information)
    else:
        assert max(float(wrong), float(also_wrong)) < case.information - 1e-4


@pytest.mark.parametrize("level", [1e-9, 1e-30])
def test_nearly_certain_posteriors_keep_their_digits(level):
    scores = torch.tensor([[0.0, math.log(level)], [math.log(level), 0.0]], dtype=torch.float64)
    found = fi.cross_entropy_information(scores, torch.tensor([0, 1])).value
    assert math.isclose(math.log(2) - float(found), math.log1p(level), rel_tol=1e-6, abs_tol=1e-16)
    loss = F.cross_entropy(scores, torch.tensor([0, 1]))
    assert float(found) == math.log(2) - float(loss)
