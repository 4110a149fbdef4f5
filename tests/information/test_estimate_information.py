"""Estimates from scores: what they return, when they warn, what they refuse."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from information_tasks import symmetric_channel
from scipy.stats import norm

from lastlayer.data.gaussian_mixture import gaussian_mixture
from lastlayer.functional import information as fi
from lastlayer.information import (
    InformationEstimate,
    InformationWarning,
    class_information,
    estimate_information,
)
from lastlayer.information.estimate import KINDS

TASK = gaussian_mixture(1, balanced=False)
X, Y = TASK.sample(5000, seed=0)
LIKELIHOOD = TASK.log_likelihood(X)
POSTERIOR = LIKELIHOOD + TASK.prior.log()
RATIO = fi.pointwise_information(POSTERIOR, TASK.prior)
#: Oracle scores in the form that every kind asks for.
ORACLE = {
    "cross-entropy": POSTERIOR,
    "pc-softmax": LIKELIHOOD,
    "log-k": POSTERIOR,
    "donsker-varadhan": RATIO,
    "nwj": RATIO + 1,
    "info-nce": LIKELIHOOD,
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "log-k"])
@pytest.mark.parametrize("known", [False, True])
def test_oracle_scores_of_every_kind_give_the_information(kind, known):
    if known and kind == "info-nce":
        with pytest.raises(ValueError, match="prior must be None for kind='info-nce'"):
            estimate_information(ORACLE[kind], Y, kind=kind, prior=TASK.prior)
        return
    prior = TASK.prior if known else None
    found = estimate_information(ORACLE[kind], Y, kind=kind, prior=prior)
    assert abs(found.value - TASK.mutual_information) < 5 * found.standard_error
    assert 0 < found.standard_error < 0.02
    assert (found.kind, found.n, found.notes) == (kind, 5000, ())


@pytest.mark.parametrize("seed", range(5))
def test_no_honest_kind_exceeds_the_truth_by_more_than_chance(seed):
    x, y = TASK.sample(4000, seed=100 + seed)
    logits = TASK.log_likelihood(1.1 * x + 0.1)
    for kind, scores in (("pc-softmax", logits), ("cross-entropy", logits + TASK.prior.log())):
        found = estimate_information(scores, y, kind=kind)
        assert found.value < TASK.mutual_information + 3 * found.standard_error


def test_log_k_exceeds_the_truth_for_skewed_labels_and_is_refused():
    with pytest.raises(ValueError, match="labels must be balanced"):
        estimate_information(POSTERIOR, Y, kind="log-k")
    with pytest.raises(ValueError, match="labels must be balanced"):
        estimate_information(POSTERIOR, Y, kind="log-k", prior=TASK.prior)
    with pytest.warns(InformationWarning, match="divergence from uniform"):
        found = estimate_information(POSTERIOR, Y, kind="log-k", unbalanced="warn")
    assert found.value > TASK.mutual_information + 5 * found.standard_error
    assert "H(Y) - CE" in found.notes[0]


def test_log_k_agrees_with_the_label_entropy_for_balanced_labels():
    task = gaussian_mixture(2)
    x, y = task.sample(5000, seed=1)
    log_k = estimate_information(task.log_likelihood(x), y, kind="log-k")
    assert abs(log_k.value - task.mutual_information) < 5 * log_k.standard_error
    assert log_k.notes == ()


def test_training_examples_are_warned_of_and_noted():
    with pytest.warns(InformationWarning, match="tends to H"):
        found = estimate_information(POSTERIOR, Y, held_out=False)
    assert "training examples" in found.notes[0]
    with pytest.warns(InformationWarning, match="tends to H"):
        class_information(POSTERIOR, Y, held_out=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate_information(POSTERIOR, Y)


def test_shifted_prior_is_undone_before_reading():
    balanced = gaussian_mixture(1)
    x, y = balanced.sample(5000, seed=2)
    trained_elsewhere = TASK.log_likelihood(x) + TASK.prior.log()
    plain = estimate_information(trained_elsewhere, y, prior=balanced.prior)
    moved = estimate_information(trained_elsewhere, y, prior=balanced.prior, train_prior=TASK.prior)
    assert abs(moved.value - balanced.mutual_information) < 5 * moved.standard_error
    assert plain.value < moved.value - 0.05
    assert "moved from the training prior" in moved.notes[0]
    with pytest.raises(ValueError, match="train_prior needs the prior"):
        estimate_information(trained_elsewhere, y, train_prior=TASK.prior)
    with pytest.raises(ValueError, match="train_prior must be None but for"):
        estimate_information(
            trained_elsewhere, y, kind="nwj", prior=TASK.prior, train_prior=TASK.prior
        )


def test_wrong_reading_gives_too_little():
    right = estimate_information(POSTERIOR, Y).value
    assert estimate_information(POSTERIOR, Y, kind="pc-softmax").value < right - 0.02
    assert estimate_information(LIKELIHOOD, Y).value < right - 0.02


def test_log_probabilities_and_logits_are_the_same_to_the_estimate():
    logits = 3 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    target = torch.arange(50) % 4
    first = estimate_information(logits, target)
    again = estimate_information(logits.log_softmax(-1), target)
    assert first.value == pytest.approx(again.value, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_scores_are_summed_in_float64(dtype):
    found = estimate_information(POSTERIOR.to(dtype), Y)
    assert found.value == pytest.approx(estimate_information(POSTERIOR, Y).value, abs=2e-2)
    same = estimate_information(POSTERIOR.to(dtype).double(), Y)
    assert found == same


def test_corrections_move_the_value_by_the_bias_of_the_entropy():
    plain = estimate_information(POSTERIOR[:200], Y[:200])
    corrected = estimate_information(POSTERIOR[:200], Y[:200], correction="miller-madow")
    assert corrected.value - plain.value == pytest.approx(4 / 400)
    with pytest.raises(ValueError, match="correction must be 'none' unless"):
        estimate_information(POSTERIOR, Y, kind="pc-softmax", correction="jackknife")


def test_estimate_reports_nats_bits_and_an_interval():
    estimate = InformationEstimate(math.log(2), 0.1, n=10, kind="nwj")
    assert estimate.bits == pytest.approx(1.0)
    low, high = estimate.interval(0.9)
    assert high - estimate.value == pytest.approx(0.1 * norm.ppf(0.95))
    assert low + high == pytest.approx(2 * estimate.value)
    assert str(estimate) == "0.6931 ± 0.1000 nats (1.0000 bits), nwj, n = 10"
    lonely = InformationEstimate(0.5, math.nan, n=1, kind="nwj")
    assert lonely.interval() == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="confidence must lie in"):
        estimate.interval(1.0)


def test_ninety_five_percent_intervals_cover_the_closed_form():
    channel = symmetric_channel(4, 0.2)
    oracle = channel.log_likelihood()
    covered = 0
    for seed in range(300):
        x, y = channel.sample(400, seed)
        low, high = estimate_information(oracle[x], y, kind="pc-softmax").interval()
        covered += low < channel.mutual_information < high
    # binomial(300, .95): mean 285, standard deviation 3.8
    assert abs(covered - 285) < 5 * 3.8


def test_impossible_labels_and_negative_values_are_returned_as_they_are():
    scores = torch.tensor([[0.0, -torch.inf], [0.0, 1.0]])
    assert estimate_information(scores, torch.tensor([1, 1])).value == -math.inf
    assert (
        estimate_information(torch.tensor([[0.0, 9.0]] * 4), torch.tensor([0, 0, 0, 1])).value < 0
    )


def test_one_class_has_no_information():
    assert estimate_information(torch.randn(5, 1), torch.zeros(5, dtype=torch.int64)).value == 0.0


@pytest.mark.parametrize(
    ("scores", "target", "error", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), ValueError, r"target must lie in \[0, 2\]"),
        (torch.zeros(2, 3), torch.tensor([0]), ValueError, r"target must have shape \(2,\)"),
        (torch.zeros(2), torch.tensor([0, 1]), ValueError, "scores must have shape"),
        (torch.zeros(0, 3), torch.zeros(0).long(), ValueError, "scores must have shape"),
        (torch.tensor([[0.0, math.nan]]), torch.tensor([0]), ValueError, "1 rows hold NaN"),
        (torch.tensor([[0.0, math.inf]]), torch.tensor([0]), ValueError, "NaN or \\+inf"),
        (torch.zeros(2, 3).long(), torch.tensor([0, 1]), TypeError, "floating-point"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), TypeError, "int64"),
    ],
)
def test_bad_scores_and_labels_are_refused(scores, target, error, message):
    for function in (estimate_information, class_information):
        with pytest.raises(error, match=message):
            function(scores, target)


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="kind must be one of"):
        estimate_information(POSTERIOR, Y, kind="mine")


# --- by class ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "trained_with"), [(POSTERIOR, "cross-entropy"), (LIKELIHOOD, "pc-softmax")]
)
def test_class_values_average_to_the_estimate(scores, trained_with):
    rows = class_information(scores, Y, trained_with=trained_with)
    whole = sum(row.prior * row.mean for row in rows)
    assert whole == pytest.approx(estimate_information(scores, Y, kind=trained_with).value)
    assert [row.n for row in rows] == torch.bincount(Y).tolist()
    for row in rows:
        assert row.mean < row.ceiling == pytest.approx(-math.log(row.prior))
        assert 0 <= row.misleading < 0.3


def test_class_values_are_the_pointwise_information_of_its_examples():
    rows = class_information(POSTERIOR, Y, prior=TASK.prior)
    for row in rows:
        values = RATIO[row.label == Y, row.label]
        assert row.mean == pytest.approx(float(values.mean()))
        assert row.standard_error == pytest.approx(float(values.std()) / math.sqrt(row.n))
        assert row.misleading == pytest.approx(float((values < 0).double().mean()))


def test_classes_without_examples_are_listed_with_what_is_undefined():
    rows = class_information(torch.zeros(3, 3), torch.tensor([0, 0, 2]))
    assert (rows[1].n, rows[1].prior, rows[1].ceiling) == (0, 0.0, math.inf)
    assert math.isnan(rows[1].mean)
    assert math.isnan(rows[1].misleading)
    assert math.isnan(rows[2].standard_error)
    with pytest.raises(ValueError, match="label 2 of prior 0"):
        class_information(
            torch.zeros(3, 3), torch.tensor([0, 0, 2]), prior=torch.tensor([0.5, 0.5, 0.0])
        )
