import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer import evaluation
from lastlayer.evaluation import _predictions, evaluate, reliability


def sample(num_rows=300, num_classes=5, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64)
    target = torch.randint(num_classes, (num_rows,), generator=generator)
    return logits.log_softmax(1), target


def brute_bins(confidence, correct, num_bins):
    """Bins by a loop over half-open intervals, as the definition is written."""
    table = []
    for b in range(num_bins):
        low, high = b / num_bins, (b + 1) / num_bins
        last = b == num_bins - 1
        inside = [i for i, c in enumerate(confidence) if low <= c and (c < high or last)]
        table.append(
            (
                len(inside),
                np.mean([confidence[i] for i in inside]) if inside else math.nan,
                np.mean([correct[i] for i in inside]) if inside else math.nan,
            )
        )
    return table


def brute_ece(confidence, correct, num_bins):
    total = len(confidence)
    return sum(n / total * abs(c - a) for n, c, a in brute_bins(confidence, correct, num_bins) if n)


def pairs(log_prob, target, kind):
    prob = log_prob.double().exp().numpy()
    labels = target.numpy()
    if kind == "top1":
        return prob.max(1), (prob.argmax(1) == labels).astype(float)
    hits = (np.arange(prob.shape[1])[None, :] == labels[:, None]).astype(float)
    return prob.ravel(), hits.ravel()


@pytest.mark.parametrize("kind", ["top1", "pooled"])
@given(
    seed=st.integers(0, 10_000),
    num_rows=st.integers(1, 30),
    num_classes=st.integers(2, 6),
    num_bins=st.integers(1, 12),
)
@settings(max_examples=40)
def test_reliability_equals_brute_force_binning(kind, seed, num_rows, num_classes, num_bins):
    log_prob, target = sample(num_rows, num_classes, seed)
    table = reliability(log_prob, target, kind, num_bins)
    expected = brute_bins(*pairs(log_prob, target, kind), num_bins)
    assert table.count.tolist() == [row[0] for row in expected]
    np.testing.assert_allclose(table.confidence.numpy(), [row[1] for row in expected], atol=1e-12)
    np.testing.assert_allclose(table.accuracy.numpy(), [row[2] for row in expected], atol=1e-12)
    assert table.ece == pytest.approx(
        brute_ece(*pairs(log_prob, target, kind), num_bins), abs=1e-12
    )


def test_ece_of_the_most_probable_class_equals_torchmetrics():
    from torchmetrics.functional.classification import multiclass_calibration_error

    log_prob, target = sample(500, 7)
    expected = multiclass_calibration_error(log_prob.exp(), target, num_classes=7, n_bins=10)
    assert evaluate(log_prob, target).ece == pytest.approx(float(expected), abs=1e-6)


def test_error_nll_and_brier_equal_scikit_learn():
    from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

    log_prob, target = sample()
    prob, labels = log_prob.exp().numpy(), target.numpy()
    metrics = evaluate(log_prob, target)
    assert metrics.error == pytest.approx(1 - accuracy_score(labels, prob.argmax(1)))
    assert metrics.nll == pytest.approx(log_loss(labels, prob, labels=range(5)), rel=1e-12)
    brier = brier_score_loss(labels, prob, labels=range(5), scale_by_half=False)
    assert metrics.brier == pytest.approx(brier, rel=1e-12)
    assert metrics.count == 300
    assert metrics.zero_prob_rows == 0


def test_pooled_and_top1_calibration_errors_differ_and_are_not_swapped():
    log_prob, target = sample()
    metrics = evaluate(log_prob, target)
    assert metrics.ece == reliability(log_prob, target, "top1").ece
    assert metrics.ece_pooled == reliability(log_prob, target, "pooled").ece
    assert metrics.ece > metrics.ece_pooled + 0.1


def test_blocks_do_not_change_the_result(monkeypatch):
    log_prob, target = sample(101, 5)
    whole = evaluate(log_prob, target)
    monkeypatch.setattr(_predictions, "BLOCK_ELEMENTS", 35)
    for name, value in evaluate(log_prob, target).as_dict().items():
        assert value == pytest.approx(whole.as_dict()[name], rel=1e-12), name


def test_confidence_of_exactly_one_falls_in_the_last_bin():
    log_prob = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0]])
    table = reliability(log_prob, torch.tensor([0, 0]))
    assert table.count.tolist() == [0] * 9 + [2]
    assert table.ece == 0.5


def test_a_bin_edge_belongs_to_the_upper_bin():
    log_prob = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    assert reliability(log_prob, torch.tensor([0]), num_bins=2).count.tolist().index(1) == 1


def test_empty_bins_hold_nan_and_add_nothing():
    log_prob = torch.tensor([[0.95, 0.05]], dtype=torch.float64).log()
    table = reliability(log_prob, torch.tensor([0]))
    assert table.accuracy.isnan().tolist() == [True] * 9 + [False]
    assert table.ece == pytest.approx(0.05)


def test_a_calibrated_sampler_has_calibration_error_near_zero():
    generator = torch.Generator().manual_seed(3)
    log_prob = torch.randn(40_000, 3, generator=generator).double().log_softmax(1)
    target = torch.multinomial(log_prob.exp(), 1, generator=generator).squeeze(1)
    metrics = evaluate(log_prob, target)
    # Each bin's gap has sd <= 0.5 / sqrt(n_b), so the sum over 10 bins of n_b / n |gap| is at most
    # about sqrt(10) * 0.4 / sqrt(n) = 0.0063 in the mean; twice that is far beyond chance.
    assert metrics.ece < 0.0126
    assert metrics.ece_pooled < 0.0126


def test_uniform_predictions_have_known_values():
    log_prob = torch.full((4, 4), math.log(0.25), dtype=torch.float64)
    metrics = evaluate(log_prob, torch.arange(4))
    assert metrics.error == 0.75  # ties go to class 0
    assert metrics.nll == pytest.approx(math.log(4))
    assert metrics.brier == pytest.approx(0.75)
    assert metrics.ece == pytest.approx(0)
    assert metrics.ece_pooled == pytest.approx(0)


def test_a_label_with_probability_zero_makes_nll_infinite_and_is_counted():
    log_prob = torch.tensor([[0.0, -math.inf], [0.0, -math.inf], [0.5, 0.5]])
    log_prob[2] = log_prob[2].log()
    metrics = evaluate(log_prob, torch.tensor([0, 1, 0]))
    assert metrics.nll == math.inf
    assert metrics.zero_prob_rows == 1
    assert metrics.brier == pytest.approx((0 + 2 + 0.5) / 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_input_agrees_with_float64(dtype):
    log_prob, target = sample(500, 6)
    truth = evaluate(log_prob, target)
    low = evaluate(log_prob.to(dtype), target)
    tolerance = 1e-6 if dtype is torch.float32 else 2e-2
    assert low.nll == pytest.approx(truth.nll, rel=tolerance)
    assert low.brier == pytest.approx(truth.brier, rel=tolerance)


def test_as_dict_names_every_field_once():
    assert list(evaluate(*sample()).as_dict()) == [
        "error",
        "nll",
        "brier",
        "ece",
        "ece_pooled",
        "zero_prob_rows",
        "count",
    ]


GOOD = torch.tensor([[0.5, 0.5]]).log()


@pytest.mark.parametrize(
    ("log_prob", "target", "error", "message"),
    [
        (torch.randn(3, 4), torch.zeros(3).long(), ValueError, "they sum to"),
        (GOOD.exp(), torch.tensor([0]), ValueError, "must be log-probabilities"),
        (GOOD * math.nan, torch.tensor([0]), ValueError, "NaN or \\+inf"),
        (GOOD, torch.tensor([2]), ValueError, r"\[0, 1\]; got 2 in row 0"),
        (GOOD, torch.tensor([-100]), ValueError, "got -100"),
        (GOOD, torch.tensor([0, 1]), ValueError, "one label per row"),
        (GOOD, torch.tensor([0.0]), TypeError, "int64"),
        (GOOD.long(), torch.tensor([0]), TypeError, "floating-point"),
        (torch.empty(0, 3), torch.empty(0).long(), ValueError, "N >= 1"),
        (torch.zeros(2, 1), torch.zeros(2).long(), ValueError, "K >= 2"),
        (
            torch.full((1, 2), -math.inf),
            torch.tensor([0]),
            ValueError,
            "they sum to 0",
        ),
    ],
)
def test_bad_predictions_get_a_clear_error(log_prob, target, error, message):
    with pytest.raises(error, match=message):
        evaluate(log_prob, target)


def test_bad_options_get_a_clear_error():
    with pytest.raises(ValueError, match="kind must be one of 'top1', 'pooled'"):
        reliability(GOOD, torch.tensor([0]), "top5")
    with pytest.raises(ValueError, match="num_bins"):
        evaluate(GOOD, torch.tensor([0]), num_bins=0)


def test_the_oracle_catches_bins_closed_at_their_upper_edge():
    confidence = torch.tensor([0.5, 0.9], dtype=torch.float64)
    edge = torch.tensor([0.5], dtype=torch.float64)
    broken = torch.bincount(torch.bucketize(confidence, edge, right=False), minlength=2)
    expected = [row[0] for row in brute_bins(confidence.tolist(), [1.0, 1.0], 2)]
    assert expected == [0, 2]
    assert broken.tolist() != expected


def test_package_lists_its_public_names():
    assert all(hasattr(evaluation, name) for name in evaluation.__all__)
