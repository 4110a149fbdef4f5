"""Priors taken out and put in: exact on known posteriors, and never twice unnoticed."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.functional import (
    DoubleCorrectionWarning,
    PriorCorrection,
    adjust_logits,
    post_compensated_log_prob,
)
from lastlayer.functional.class_priors import class_balanced_weight
from lastlayer.longtail import sampling_prior

COUNTS = torch.tensor([500, 120, 33, 4])
K = len(COUNTS)
GENERATOR = torch.Generator().manual_seed(0)
LIKELIHOOD = torch.rand(6, K, generator=GENERATOR, dtype=torch.float64)  # p(x | y), any scale
TARGET_PRIOR = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)

counts_lists = st.lists(st.integers(1, 10**6), min_size=2, max_size=6)


def posterior(prior):
    joint = LIKELIHOOD * prior
    return joint / joint.sum(-1, keepdim=True)


def test_adjusting_moves_a_posterior_from_its_prior_to_any_other():
    logits = posterior(COUNTS.double()).log() + 3.0
    torch.testing.assert_close(
        adjust_logits(logits, COUNTS).softmax(-1), posterior(torch.ones(K).double())
    )
    moved = adjust_logits(logits, COUNTS, target_prior=TARGET_PRIOR)
    torch.testing.assert_close(moved.softmax(-1), posterior(TARGET_PRIOR))
    back = adjust_logits(moved, TARGET_PRIOR, target_prior=COUNTS)
    torch.testing.assert_close(back.softmax(-1), logits.softmax(-1))
    put_in = adjust_logits(LIKELIHOOD.log(), None, target_prior=TARGET_PRIOR)
    torch.testing.assert_close(put_in.softmax(-1), posterior(TARGET_PRIOR))


def test_it_is_the_post_compensation_of_the_information_room():
    source = COUNTS.double() / COUNTS.sum()
    logits = posterior(source).log()
    torch.testing.assert_close(
        adjust_logits(logits, COUNTS, target_prior=TARGET_PRIOR).log_softmax(-1),
        post_compensated_log_prob(logits, source, TARGET_PRIOR),
    )


@given(counts_lists, st.floats(0, 2), st.floats(0, 2), st.integers(0, 2**31))
@settings(max_examples=40)
def test_adjustments_add_up(counts, first, second, seed):
    logits = torch.randn(
        3, len(counts), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    twice = adjust_logits(adjust_logits(logits, counts, tau=first), counts, tau=second)
    once = adjust_logits(logits, counts, tau=first + second)
    torch.testing.assert_close(twice.log_softmax(-1), once.log_softmax(-1))


def test_an_unseen_class_is_left_out_and_may_not_be_asked_for():
    counts = torch.tensor([5, 0, 3, 1])
    adjusted = adjust_logits(LIKELIHOOD.log(), counts)
    assert (adjusted[:, 1] == -torch.inf).all()
    assert adjusted[:, [0, 2, 3]].isfinite().all()
    none = torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert not adjust_logits(LIKELIHOOD.log(), counts, target_prior=none).isnan().any()
    with pytest.raises(ValueError, match="class 1 never occurred in training"):
        adjust_logits(LIKELIHOOD.log(), counts, target_prior=torch.ones(K))


def test_the_class_dimension_and_low_precision():
    logits = torch.randn(2, K, 3, generator=torch.Generator().manual_seed(1))
    maps = adjust_logits(logits, COUNTS, dim=1)
    torch.testing.assert_close(maps, adjust_logits(logits.movedim(1, -1), COUNTS).movedim(-1, 1))
    assert adjust_logits(logits.bfloat16(), COUNTS, dim=1).dtype == torch.float32
    with pytest.raises(ValueError, match=r"class_counts must have shape \(3,\)"):
        adjust_logits(logits, COUNTS)


# -- the account ----------------------------------------------------------------------------------

WAYS = {
    "nothing": ({}, 0.0),
    "class-balanced sampling": ({"sampling_prior": torch.ones(K)}, 1.0),
    "square-root sampling": ({"sampling_prior": sampling_prior(COUNTS, "square-root")}, 0.5),
    "weights 1/n": ({"class_weight": class_balanced_weight(COUNTS, beta=1.0)}, 1.0),
    "loss": ({"loss_tau": 1.0}, 1.0),
    "post-hoc": ({"post_hoc_tau": 1.0}, 1.0),
    "a quarter": ({"loss_tau": 0.25}, 0.25),
    "half and half": ({"loss_tau": 0.5, "post_hoc_tau": 0.5}, 1.0),
    "one of another strength": ({"loss_tau": 1.5}, 1.5),
}


@pytest.mark.parametrize(("given_", "total"), WAYS.values(), ids=WAYS)
def test_the_account_knows_the_strength_and_what_is_left(given_, total):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        account = PriorCorrection(COUNTS, **given_)
    assert account.total == pytest.approx(total, abs=1e-6)
    carried = COUNTS.double() ** (1 - total)
    torch.testing.assert_close(account.carried_prior(), (carried / carried.sum()).float())
    # Logits that such a training leads to, and what is left to do.
    logits = posterior(carried).log()
    torch.testing.assert_close(
        account.adjust(logits).softmax(-1), posterior(torch.ones(K).double()), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        account.adjust(logits, TARGET_PRIOR).softmax(-1), posterior(TARGET_PRIOR), atol=1e-6, rtol=0
    )


TWICE = {
    "loss and batches": {"loss_tau": 1.0, "sampling_prior": torch.ones(K)},
    "a quarter and batches": {"loss_tau": 0.25, "sampling_prior": torch.ones(K)},
    "loss and weights": {"loss_tau": 1.0, "class_weight": 1 / COUNTS},
    "weights and batches": {"class_weight": 1 / COUNTS, "sampling_prior": torch.ones(K)},
    "loss and afterwards": {"loss_tau": 1.0, "post_hoc_tau": 1.0},
}


@pytest.mark.parametrize("given_", TWICE.values(), ids=TWICE)
def test_correcting_twice_is_told(given_):
    with pytest.warns(DoubleCorrectionWarning, match="corrected more than once"):
        account = PriorCorrection(COUNTS, **given_)
    assert account.total > 1.2
    assert account.carried_prior().argmax() == K - 1  # the rarest class is favored


def test_a_further_adjustment_is_told_only_where_it_is_one_too_many():
    plain = PriorCorrection(COUNTS)
    assert plain.further(1.0).total == 1.0
    with pytest.warns(DoubleCorrectionWarning, match=r"loss offset 1.00 \+ post-hoc"):
        PriorCorrection(COUNTS, loss_tau=1.0).further(1.0)


def test_equal_counts_need_no_correction_and_bad_weights_are_refused():
    account = PriorCorrection([5, 5], sampling_prior=torch.tensor([1.0, 1.0]))
    assert account.strengths == {}
    assert repr(account) == "PriorCorrection(2 classes, nothing corrected)"
    with pytest.raises(ValueError, match="class_weight must be above 0"):
        PriorCorrection([5, 5], class_weight=torch.tensor([0.0, 1.0]))
