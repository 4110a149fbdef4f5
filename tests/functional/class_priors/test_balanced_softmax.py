"""Balanced Softmax: its identities against torch, closed forms and float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.functional import balanced_sigmoid_loss, balanced_softmax_loss, pc_softmax_loss
from lastlayer.functional.class_priors import balanced_sigmoid_offsets
from lastlayer.longtail import exponential_counts

N, K = 7, 5
GENERATOR = torch.Generator().manual_seed(5)
LOGITS = 3 * torch.randn(N, K, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.randint(K, (N,), generator=GENERATOR)
SOFT = torch.rand(N, K, generator=GENERATOR, dtype=torch.float64).softmax(-1)
COUNTS = torch.tensor([500, 120, 33, 4, 1])
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.0, 3.0], dtype=torch.float64)

counts_lists = st.lists(st.integers(1, 10**6), min_size=2, max_size=8)


def shifted(logits=LOGITS, counts=COUNTS, tau=1.0):
    return logits + tau * counts.double().log()


def problem(counts, seed, rows=4):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(rows, len(counts), generator=generator, dtype=torch.float64)
    return logits, torch.randint(len(counts), (rows,), generator=generator)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("tau", [0.0, 0.25, 1.0, 1.5])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_it_is_torchs_cross_entropy_of_shifted_logits(reduction, tau, soft, smoothing, weight):
    options = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}
    target = SOFT if soft else TARGET
    expected = F.cross_entropy(shifted(tau=tau), target, **options)
    ours = balanced_softmax_loss(LOGITS, target, COUNTS, tau=tau, **options)
    torch.testing.assert_close(ours, expected)


@given(counts_lists, st.integers(0, 2**31), st.integers(1, 10**6))
@settings(max_examples=40)
def test_equal_counts_leave_the_cross_entropy_and_its_gradient_exactly(counts, seed, level):
    logits, target = problem(counts, seed)
    ours, plain = (logits.clone().requires_grad_() for _ in range(2))
    loss = balanced_softmax_loss(ours, target, [level] * len(counts))
    expected = balanced_softmax_loss(plain, target, [1] * len(counts), tau=0.0)
    loss.backward()
    expected.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(ours.grad, plain.grad)
    torch.testing.assert_close(loss, F.cross_entropy(logits, target))


@given(counts_lists, st.integers(0, 2**31), st.integers(2, 1000))
@settings(max_examples=40)
def test_only_ratios_of_counts_matter(counts, seed, factor):
    logits, target = problem(counts, seed)
    loss = balanced_softmax_loss(logits, target, counts)
    for same in ([factor * n for n in counts], [n / sum(counts) for n in counts]):
        same = torch.tensor(same, dtype=torch.float64 if same[0] < 1 else torch.int64)
        torch.testing.assert_close(balanced_softmax_loss(logits, target, same), loss)


@given(counts_lists, st.integers(0, 2**31))
@settings(max_examples=40)
def test_the_gradient_is_the_shifted_posterior_minus_the_label_and_bounded(counts, seed):
    logits, target = problem(counts, seed)
    free = logits.clone().requires_grad_()
    balanced_softmax_loss(free, target, counts, reduction="sum").backward()
    q = shifted(logits, torch.tensor(counts)).softmax(-1)
    torch.testing.assert_close(free.grad, q - F.one_hot(target, len(counts)))
    assert free.grad.sum(-1).abs().max() < 1e-12
    assert free.grad.abs().sum(-1).max() <= 2 + 1e-12


def test_the_hessian_is_that_of_a_softmax():
    row, label = LOGITS[0], TARGET[0]
    hessian = torch.autograd.functional.hessian(
        lambda eta: balanced_softmax_loss(eta, label, COUNTS), row
    )
    q = shifted(row).softmax(-1)
    torch.testing.assert_close(hessian, torch.diag(q) - torch.outer(q, q))


def test_derivatives_agree_with_finite_differences():
    free = LOGITS[:2].clone().requires_grad_()

    def loss(logits):
        return balanced_softmax_loss(logits, TARGET[:2], COUNTS, tau=0.7, label_smoothing=0.1)

    assert torch.autograd.gradcheck(loss, free)
    assert torch.autograd.gradgradcheck(loss, free)


@given(counts_lists, st.integers(0, 2**31), st.floats(0, 2))
@settings(max_examples=40)
def test_it_is_the_pairwise_form_of_logit_adjustment(counts, seed, tau):
    logits, target = problem(counts, seed)
    n = torch.tensor(counts, dtype=torch.float64)
    own = logits.gather(1, target[:, None])
    terms = (n / n[target, None]) ** tau * (logits - own).exp()
    others = terms.scatter(1, target[:, None], 0.0).sum(-1)
    ours = balanced_softmax_loss(logits, target, counts, tau=tau, reduction="none")
    torch.testing.assert_close(ours, others.log1p())


@given(counts_lists)
@settings(max_examples=40)
def test_at_zero_logits_its_training_mean_is_the_entropy_of_the_labels(counts):
    n = torch.tensor(counts, dtype=torch.float64)
    pi = n / n.sum()
    zero = torch.zeros(len(counts), len(counts), dtype=torch.float64)
    rows = balanced_softmax_loss(zero, torch.arange(len(counts)), counts, reduction="none")
    torch.testing.assert_close(rows, -pi.log())
    mean = (pi * rows).sum()
    torch.testing.assert_close(mean, -(pi * pi.log()).sum())
    assert mean <= math.log(len(counts)) + 1e-12


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_it_differs_from_pc_softmax_by_the_labels_log_prior(reduction):
    prior = COUNTS.double() / COUNTS.sum()
    ours = balanced_softmax_loss(LOGITS, TARGET, COUNTS, reduction="none")
    theirs = pc_softmax_loss(LOGITS, TARGET, prior, reduction="none")
    torch.testing.assert_close(theirs - ours, prior[TARGET].log())
    free = LOGITS.clone().requires_grad_()
    pair = [
        torch.autograd.grad(loss.sum(), free)[0]
        for loss in (
            balanced_softmax_loss(free, TARGET, COUNTS, reduction=reduction),
            pc_softmax_loss(free, TARGET, prior, reduction=reduction),
        )
    ]
    torch.testing.assert_close(*pair)


def test_renaming_the_classes_renames_the_gradient():
    order = torch.randperm(K, generator=torch.Generator().manual_seed(1))
    place = order.argsort()
    free, renamed = LOGITS.clone().requires_grad_(), LOGITS[:, order].clone().requires_grad_()
    loss = balanced_softmax_loss(free, TARGET, COUNTS)
    other = balanced_softmax_loss(renamed, place[TARGET], COUNTS[order])
    loss.backward()
    other.backward()
    torch.testing.assert_close(loss, other)
    torch.testing.assert_close(free.grad[:, order], renamed.grad)


def test_images_of_logits_batches_of_one_and_ignored_rows_are_rows():
    dense = LOGITS[:6].reshape(2, 3, K).movedim(-1, 1)  # (2, K, 3)
    target = TARGET[:6].reshape(2, 3).clone()
    target[0, 1] = -1
    options = {"ignore_index": -1, "reduction": "none"}
    rows = balanced_softmax_loss(dense, target, COUNTS, **options)
    assert rows.shape == (2, 3)
    assert rows[0, 1] == 0
    flat = balanced_softmax_loss(LOGITS[:6], target.flatten(), COUNTS, **options)
    torch.testing.assert_close(rows.flatten(), flat)
    mean = balanced_softmax_loss(dense, target, COUNTS, ignore_index=-1)
    torch.testing.assert_close(mean, flat.sum() / 5)
    torch.testing.assert_close(
        balanced_softmax_loss(LOGITS[:1], TARGET[:1], COUNTS),
        balanced_softmax_loss(LOGITS[0], TARGET[0], COUNTS),
    )
    nothing = torch.full((2,), -1)
    assert balanced_softmax_loss(LOGITS[:2], nothing, COUNTS, ignore_index=-1) == 0


SEEN = torch.tensor([True, False, True, True, False])
HOLES = torch.tensor([50, 0, 7, 1, 0])


def test_an_unseen_class_is_an_error_by_default():
    with pytest.raises(ValueError, match="class 1 never occurs"):
        balanced_softmax_loss(LOGITS, TARGET, HOLES)


@pytest.mark.parametrize("kind", ["index", "one-hot", "soft", "smoothed"])
@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_masked_it_is_the_softmax_of_the_seen_classes_and_never_nan(kind, tau):
    label = torch.tensor([0, 2, 3, 3, 0, 2, 2])  # among the seen classes 0, 2, 3
    small = torch.tensor([0, 1, 2, 2, 0, 1, 1])
    target, restricted = label, small
    if kind in ("one-hot", "soft"):
        mixed = F.one_hot(small, 3).double()
        if kind == "soft":
            mixed = 0.7 * mixed + 0.3 * mixed.roll(1, dims=0)
        restricted = mixed
        target = torch.zeros(N, K, dtype=torch.float64)
        target[:, SEEN] = mixed
    smoothing = 0.2 if kind == "smoothed" else 0.0
    free = LOGITS.clone().requires_grad_()
    loss = balanced_softmax_loss(
        free, target, HOLES, tau=tau, zero_counts="mask", label_smoothing=smoothing
    )
    loss.backward()
    expected = F.cross_entropy(
        LOGITS[:, SEEN] + tau * HOLES[SEEN].double().log(), restricted, label_smoothing=smoothing
    )
    torch.testing.assert_close(loss, expected)
    assert not free.grad[:, ~SEEN].any()
    assert free.grad.isfinite().all()


@pytest.mark.parametrize("soft", [False, True])
def test_a_target_that_never_occurs_is_named(soft):
    target = torch.tensor([0, 1, 2, 0, 0, 0, 0])
    target = F.one_hot(target, K).double() if soft else target
    with pytest.raises(ValueError, match="row 1 names a class that never occurs"):
        balanced_softmax_loss(LOGITS, target, HOLES, zero_counts="mask")


def test_an_ignored_row_may_have_the_index_of_an_unseen_class():
    target = torch.tensor([0, 1, 2, 0, 0, 0, 0])
    loss = balanced_softmax_loss(LOGITS, target, HOLES, zero_counts="mask", ignore_index=1)
    assert loss.isfinite()


def test_mixed_targets_mix_the_losses():
    one, two = (F.one_hot(torch.full((N,), label), K).double() for label in (0, 3))
    ends = [balanced_softmax_loss(LOGITS, t, COUNTS, reduction="none") for t in (one, two)]
    mixed = balanced_softmax_loss(LOGITS, 0.3 * one + 0.7 * two, COUNTS, reduction="none")
    torch.testing.assert_close(mixed, 0.3 * ends[0] + 0.7 * ends[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_cost_nothing_but_their_own_rounding(dtype):
    worst = 0.0
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        counts = torch.tensor(exponential_counts(1000, 200_000, 1000))  # beyond float16
        logits = (3 * torch.randn(64, 1000, generator=generator)).to(dtype)
        target = torch.randint(1000, (64,), generator=generator)
        ours = balanced_softmax_loss(logits, target, counts)
        truth = F.cross_entropy(logits.double() + counts.double().log(), target)
        assert ours.dtype == torch.float32
        worst = max(worst, abs(float(ours) - float(truth)))
    assert worst < 5e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_counts_in_half_precision_are_refused(dtype):
    with pytest.raises(TypeError, match="half precision rounds counts"):
        balanced_softmax_loss(LOGITS, TARGET, COUNTS.to(dtype))


def test_extreme_ratios_keep_their_digits():
    counts = torch.tensor([10**12, 1])
    loss = balanced_softmax_loss(torch.zeros(1, 2), torch.tensor([1]), counts)
    assert abs(float(loss) - 27.631021) < 2e-6
    far = balanced_softmax_loss(torch.tensor([[3e4, -3e4]]), torch.tensor([1]), counts)
    assert float(far) == pytest.approx(6e4 + 27.631, abs=0.01)


def test_many_classes_agree_with_float64():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 50_000, generator=generator)
    counts = torch.randint(1, 10**6, (50_000,), generator=generator)
    target = torch.randint(50_000, (4,), generator=generator)
    ours = balanced_softmax_loss(logits, target, counts)
    truth = F.cross_entropy(logits.double() + counts.double().log(), target)
    assert abs(float(ours) - float(truth)) < 5e-6


def test_processes_with_the_whole_sets_counts_make_the_whole_batchs_loss():
    # The second process sees no example of class 0; counts of its own would leave the class out.
    order = TARGET.argsort()
    logits, target = LOGITS[order], TARGET[order]
    halves = [
        balanced_softmax_loss(logits[part], target[part], COUNTS, reduction="sum")
        for part in (slice(3), slice(3, None))
    ]
    whole = balanced_softmax_loss(logits, target, COUNTS, reduction="sum")
    torch.testing.assert_close(sum(halves), whole)
    own = torch.bincount(target[3:], minlength=K)
    assert own.min() == 0
    apart = balanced_softmax_loss(logits[3:], target[3:], own, zero_counts="mask", reduction="sum")
    assert abs(apart - halves[1]) > 0.1


def test_unscaled_cosines_are_outweighed_by_the_counts():
    counts = torch.tensor(exponential_counts(10, 5000, 100))
    cosines = torch.full((1, 10), -1.0)
    cosines[0, 9] = 1.0  # as sure of the rarest class as a cosine can be
    rare = torch.tensor([9])
    assert balanced_softmax_loss(cosines, rare, counts) > 3.0
    assert balanced_softmax_loss(30 * cosines, rare, counts) < 1e-6


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="tau must be"):
        balanced_softmax_loss(LOGITS, TARGET, COUNTS, tau=-1.0)
    with pytest.raises(ValueError, match=r"class_counts must have shape \(5,\)"):
        balanced_softmax_loss(LOGITS, TARGET, COUNTS[:4])
    with pytest.raises(ValueError, match="at least 0, not all 0"):
        balanced_softmax_loss(LOGITS, TARGET, -COUNTS)
    with pytest.raises(ValueError, match="at least 0, not all 0"):
        balanced_softmax_loss(LOGITS, TARGET, 0 * COUNTS, zero_counts="mask")
    with pytest.raises(ValueError, match="zero_counts must be one of"):
        balanced_softmax_loss(LOGITS, TARGET, COUNTS, zero_counts="ignore")


# -- the sigmoid form -----------------------------------------------------------------------------


def test_equal_counts_and_two_equal_classes_have_no_sigmoid_offset():
    assert not balanced_sigmoid_offsets([7, 7, 7, 7]).any()
    assert not balanced_sigmoid_offsets([3, 3]).any()


def test_sigmoid_offsets_are_the_papers_odds():
    n, k = COUNTS.double(), len(COUNTS)
    total = n.sum()
    expected = ((total / k) / n * (total - n) / (total - total / k)).log()
    torch.testing.assert_close(balanced_sigmoid_offsets(n), expected)
    share = n / 1000
    plain = ((1 - share) / share).log()
    torch.testing.assert_close(balanced_sigmoid_offsets(n, total=1000, relative=False), plain)


def test_the_sigmoid_form_moves_the_foreground_alone_and_leaves_the_logits():
    target = F.one_hot(TARGET, K).double()
    foreground = torch.arange(N) < 4
    target[~foreground] = 0.0
    before = LOGITS.clone()
    rows = balanced_sigmoid_loss(LOGITS, target, COUNTS, foreground=foreground, reduction="none")
    offsets = balanced_sigmoid_offsets(COUNTS.double())
    moved = F.binary_cross_entropy_with_logits(LOGITS - offsets, target, reduction="none").sum(-1)
    plain = F.binary_cross_entropy_with_logits(LOGITS, target, reduction="none").sum(-1)
    torch.testing.assert_close(rows, torch.where(foreground, moved, plain))
    assert torch.equal(LOGITS, before)
    torch.testing.assert_close(
        balanced_sigmoid_loss(LOGITS, target, COUNTS, foreground=foreground), rows.mean()
    )


def test_the_sigmoid_form_refuses_what_has_no_odds():
    with pytest.raises(ValueError, match="below their total"):
        balanced_sigmoid_offsets([5])
    with pytest.raises(ValueError, match="class 1 never occurs"):
        balanced_sigmoid_offsets([5, 0, 2])
    with pytest.raises(ValueError, match="shape of logits"):
        balanced_sigmoid_loss(LOGITS, TARGET.double(), COUNTS)
    with pytest.raises(ValueError, match="foreground must be bool"):
        balanced_sigmoid_loss(LOGITS, SOFT, COUNTS, foreground=torch.ones(N))
