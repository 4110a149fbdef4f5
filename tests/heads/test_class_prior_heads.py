"""Heads for long tails: what they train on, what they predict, and what they record."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lastlayer
from lastlayer.functional import DoubleCorrectionWarning, adjust_logits, class_balanced_weight
from lastlayer.heads import (
    LDAM,
    BalancedSoftmax,
    ClassBalanced,
    LogitAdjusted,
    PCSoftmax,
    Softmax,
    build_head,
    prior_correction,
    takes_class_counts,
)

N, D, K = 6, 5, 4
COUNTS = torch.tensor([500, 120, 33, 4])
GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(N, D, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.tensor([0, 3, 1, 2, 2, 0])


def make(kind, seed=0, **options):
    torch.manual_seed(seed)
    return kind(D, K, dtype=torch.float64, **({"class_counts": COUNTS} | options))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tau", [0.25, 1.0])
def test_balanced_softmax_trains_with_the_counts_and_predicts_without(bias, tau):
    head = make(BalancedSoftmax, bias=bias, tau=tau)
    logits = head.classifier(FEATURES)
    expected = F.cross_entropy(logits + tau * COUNTS.double().log(), TARGET)
    torch.testing.assert_close(head(FEATURES, TARGET).loss, expected)
    torch.testing.assert_close(head.log_prob(FEATURES), logits.log_softmax(-1))
    assert torch.equal(head.predict(FEATURES), logits.argmax(-1))


@pytest.mark.parametrize("kind", [BalancedSoftmax, LogitAdjusted, PCSoftmax])
def test_another_prior_is_put_into_the_prediction(kind):
    head = make(kind)
    prior = torch.tensor([0.1, 0.2, 0.3, 0.4])
    expected = (head.log_prob(FEATURES) + prior.double().log()).log_softmax(-1)
    torch.testing.assert_close(head.log_prob(FEATURES, prior=prior), expected)
    uniform = head.log_prob(FEATURES, prior=torch.ones(K))
    torch.testing.assert_close(uniform, head.log_prob(FEATURES))


def test_logit_adjustment_trains_as_softmax_and_moves_the_prediction_alone():
    head, plain = make(LogitAdjusted, tau=1.5), Softmax(D, K, dtype=torch.float64)
    plain.classifier.load_state_dict(head.classifier.state_dict())
    torch.testing.assert_close(head(FEATURES, TARGET).loss, plain(FEATURES, TARGET).loss)
    moved = adjust_logits(head.classifier(FEATURES), COUNTS, tau=1.5).log_softmax(-1)
    torch.testing.assert_close(head.log_prob(FEATURES), moved)


def test_pc_softmax_is_balanced_softmax_less_the_labels_log_prior():
    head, balanced = make(PCSoftmax), make(BalancedSoftmax)
    prior = COUNTS.double() / COUNTS.sum()
    gap = head(FEATURES, TARGET).loss - balanced(FEATURES, TARGET).loss
    torch.testing.assert_close(gap, prior[TARGET].log().mean())
    assert torch.equal(head.log_prob(FEATURES), balanced.log_prob(FEATURES))


def test_class_balanced_is_softmax_with_weights_times_further_ones():
    further = torch.tensor([1.0, 2.0, 3.0, 4.0])
    head = make(ClassBalanced, beta=0.99, weight=further)
    weight = class_balanced_weight(COUNTS, beta=0.99) * further
    torch.testing.assert_close(head.weight, weight.double())
    expected = F.cross_entropy(head.classifier(FEATURES), TARGET, weight.double())
    torch.testing.assert_close(head(FEATURES, TARGET).loss, expected)


def test_ldam_takes_cosines_so_that_lengths_do_not_matter():
    head = make(LDAM)
    assert head.classifier.bias is None
    before = head(FEATURES, TARGET).loss, head.log_prob(FEATURES)
    with torch.no_grad():
        head.classifier.weight.mul_(7.0)
    torch.testing.assert_close(head(0.1 * FEATURES, TARGET).loss, before[0])
    torch.testing.assert_close(head.log_prob(3 * FEATURES), before[1])
    cosines = F.cosine_similarity(FEATURES[:, None], head.classifier.weight[None], dim=-1)
    torch.testing.assert_close(head.log_prob(FEATURES), (30 * cosines).log_softmax(-1))


def test_ldam_re_weights_when_its_share_of_the_training_is_done():
    head = make(LDAM, reweight_after=0.8)
    late = class_balanced_weight(COUNTS).double()
    for progress, weight in ((0.0, torch.ones(K)), (0.79, torch.ones(K)), (0.8, late), (1.0, late)):
        head.set_progress(progress)
        torch.testing.assert_close(head.weight, weight.double())
    rows = make(LDAM, reduction="none")(FEATURES, TARGET).loss
    expected = (late[TARGET] * rows).sum() / late[TARGET].sum()
    torch.testing.assert_close(head(FEATURES, TARGET).loss, expected)
    head.set_progress(0.1)  # a resumed run may be told an earlier share
    torch.testing.assert_close(head(FEATURES, TARGET).loss, rows.mean())
    twin = make(LDAM, reweight_after=0.8, seed=1)
    twin.load_state_dict(head.state_dict())
    with pytest.raises(ValueError, match="progress must lie"):
        head.set_progress(1.5)


def test_an_unseen_class_is_refused_or_gets_probability_zero():
    counts = torch.tensor([50, 0, 7, 1])
    for kind in (BalancedSoftmax, ClassBalanced, LDAM, PCSoftmax):
        with pytest.raises(ValueError, match="class 1 never occurs"):
            make(kind, class_counts=counts)
    masked = make(BalancedSoftmax, class_counts=counts, zero_counts="mask")
    for head in (masked, make(LogitAdjusted, class_counts=counts)):
        log_prob = head.log_prob(FEATURES)
        assert (log_prob[:, 1] == -torch.inf).all()
        torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(N).double())
    masked(FEATURES, torch.tensor([0, 2, 3, 0, 0, 2])).loss.backward()
    assert not masked.classifier.weight.grad[1].any()
    with pytest.raises(ValueError, match="row 1 names a class that never occurs"):
        masked(FEATURES, torch.tensor([0, 1, 3, 0, 0, 2]))


def test_half_precision_parameters_leave_the_counts_whole():
    head = make(BalancedSoftmax, class_counts=[257, 65535, 70_000, 3]).to(torch.bfloat16)
    assert head.class_counts.tolist() == [257, 65535, 70_000, 3]
    assert head(FEATURES.bfloat16(), TARGET).loss.isfinite()


def test_a_head_by_name_says_what_it_needs():
    assert takes_class_counts("ldam-drw")
    assert not takes_class_counts("recommended")
    with pytest.raises(ValueError, match="head 'balanced-softmax' needs class_counts: how often"):
        build_head("balanced-softmax", D, K)
    with pytest.raises(ValueError, match=r"class_counts must have shape \(4,\)"):
        build_head("balanced-softmax", D, K, class_counts=[1, 2])
    with pytest.raises(ValueError, match="does not take the options"):
        build_head("softmax", D, K, class_counts=[1, 2, 3, 4])


def test_attached_to_a_network_it_starts_from_the_layers_weights():
    network = nn.Sequential(nn.Linear(D, 8), nn.ReLU(), nn.Linear(8, K))
    inputs = FEATURES.float()
    before = network(inputs).log_softmax(-1)
    model = lastlayer.attach(network, "balanced-softmax", layer="2", class_counts=COUNTS)
    torch.testing.assert_close(model.eval()(inputs), before)
    assert lastlayer.attach(nn.Linear(D, K), "ldam", class_counts=COUNTS).head.num_classes == K


def test_the_account_of_a_head_and_its_batches():
    assert prior_correction(Softmax(D, K), COUNTS).strengths == {}
    assert prior_correction(make(BalancedSoftmax), COUNTS).total == 1.0
    assert prior_correction(make(LogitAdjusted, tau=0.5), COUNTS).total == 0.5
    weighted = prior_correction(make(ClassBalanced, beta=1.0), COUNTS)
    assert weighted.total == pytest.approx(1.0)
    with pytest.warns(DoubleCorrectionWarning, match="sampling 1.00 \\+ loss offset 1.00"):
        prior_correction(make(BalancedSoftmax), COUNTS, torch.ones(K))
