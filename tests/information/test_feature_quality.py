"""Scores of features beside chance: the functions' own values, and means over orders of labels."""

from __future__ import annotations

import itertools
import json
import math
import sys

import pytest
import torch

from lastlayer.functional.dependence import h_score
from lastlayer.functional.transferability import leep, log_me, nce, trans_rate
from lastlayer.information import feature_quality

NAMES = ["H-score", "LogME", "TransRate", "LEEP", "NCE"]


def problem(n: int = 90, d: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of three classes, labels and a source's probabilities of two labels of its own."""
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(n) % 3
    means = torch.randn(3, d, generator=generator, dtype=torch.float64)
    features = means[target] + torch.randn(n, d, generator=generator, dtype=torch.float64)
    return features, target * 5, features[:, :2].softmax(1)


def values(features, target, source_prob):
    """Every score by its own function."""
    return {
        "H-score": float(h_score(features, target)),
        "LogME": float(log_me(features, target)),
        "TransRate": float(trans_rate(features, target)),
        "LEEP": float(leep(source_prob=source_prob, target=target)),
        "NCE": float(nce(source_label=source_prob.argmax(1), target=target)),
    }


def test_values_are_those_of_the_functions():
    features, target, source_prob = problem()
    found = feature_quality(features, target, source_prob=source_prob, num_permutations=2)
    expected = values(features, target, source_prob)
    assert list(found.scores) == NAMES
    for name, score in found.scores.items():
        assert score.value == pytest.approx(expected[name], abs=1e-9)
        assert score.above_null == score.value - score.null
    assert (found.num_examples, found.num_features, found.num_classes) == (90, 4, 3)
    without = feature_quality(features, target.tolist(), num_permutations=2)
    assert list(without.scores) == NAMES[:3]


def test_the_null_is_the_mean_over_all_orders_of_the_labels():
    """All 90 ways to give two examples of each of three labels to six examples."""
    features, target, source_prob = problem(6, 2)
    orders = sorted(set(itertools.permutations(target.tolist())))
    each = [values(features, torch.tensor(order), source_prob) for order in orders]
    assert len(each) == 90
    found = feature_quality(features, target, source_prob=source_prob, num_permutations=400)
    for name, score in found.scores.items():
        mean = sum(row[name] for row in each) / len(each)
        if name in ("H-score", "NCE"):
            assert score.null_error == 0.0
            assert score.null == pytest.approx(mean, abs=1e-10)
        else:
            spread = math.sqrt(sum((row[name] - mean) ** 2 for row in each) / len(each))
            assert score.null_error == pytest.approx(spread / 20, rel=0.2)
            assert abs(score.null - mean) < 5 * score.null_error


def test_labels_that_features_know_nothing_of_score_the_null():
    features, target, source_prob = problem(300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    found = feature_quality(features, target[order], source_prob=source_prob, num_permutations=50)
    known = feature_quality(features, target, source_prob=source_prob, num_permutations=50)
    for name, score in found.scores.items():
        assert abs(score.above_null) < 0.2 * known.scores[name].above_null


def test_few_permutations_at_a_time_change_nothing(monkeypatch):
    features, target, _ = problem()
    whole = feature_quality(features, target, num_permutations=5, seed=3).scores["LogME"]
    monkeypatch.setattr(sys.modules[feature_quality.__module__], "_BLOCK_ELEMENTS", 2 * 90 * 3)
    parts = feature_quality(features, target, num_permutations=5, seed=3).scores["LogME"]
    assert parts == pytest.approx(whole, abs=1e-9)
    other = feature_quality(features, target, num_permutations=5, seed=4).scores["LogME"]
    assert other.value == whole.value
    assert other.null != whole.null


def test_it_prints_a_table_with_reasons_for_doubt_and_writes_every_number():
    features, target, source_prob = problem(12, 6)
    found = feature_quality(features, target, source_prob=source_prob, num_permutations=3)
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["score", *NAMES]
    assert lines[1].split()[1:4] == [
        f"{found.scores['H-score'].value:.4f}",
        f"{6 * 2 / 11:.4f}",
        "exact",
    ]
    assert lines[6:] == list(found.notes)
    assert lines[6].startswith("6 independent features on 12 examples score 1.09")
    stored = json.loads(json.dumps(found.as_dict()))
    assert stored["scores"]["NCE"]["null"] == found.scores["NCE"].null
    assert stored["num_examples"] == 12


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"num_permutations": 1}, ValueError, "num_permutations must be"),
        ({"target": torch.ones(90)}, TypeError, "target"),
        ({"target": torch.arange(3)}, ValueError, "one label per example"),
        ({"features": torch.ones(90)}, ValueError, r"features must have shape \(N, D\)"),
        ({"source_prob": torch.zeros(90, 2)}, ValueError, "source_prob must hold probabilities"),
    ],
    ids=["one order", "float labels", "few labels", "1-d", "logits"],
)
def test_what_does_not_fit_is_refused(change, error, match):
    features, target, source_prob = problem()
    given = {"features": features, "target": target, "source_prob": source_prob} | change
    with pytest.raises(error, match=match):
        feature_quality(**given)
