"""``lastlayer information``: the figures printed are those of the run's predictions."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from scipy import stats

from lastlayer.data import load
from lastlayer.experiments.information import run_information
from lastlayer.training import RunConfig, RunDirectory, train


@pytest.fixture(scope="module")
def runs(comparison):
    return {name: comparison.folder / f"{name}-seed0" for name in ("softmax", "dropmax")}


def test_the_value_is_label_entropy_less_the_cross_entropy_of_the_summary(runs):
    for name, path in runs.items():
        found = run_information(path, num_masks=5)
        estimate = found.estimates["as predicted"]
        nll = RunDirectory(path).summary()["metrics"]["nll"]
        assert estimate.value == pytest.approx(found.label_entropy - nll, abs=1e-6)
        assert found.label_entropy <= math.log(10)
        assert (found.bracket is not None) == (name == "dropmax")
        mean = sum(row.prior * row.mean for row in found.classes)
        assert mean == pytest.approx(estimate.value, abs=1e-6)


def test_the_bracket_holds_what_all_masks_know(runs):
    bracket = run_information(runs["dropmax"], num_masks=20).bracket
    assert bracket is not None
    assert bracket.lower.value <= bracket.upper.value


def test_it_prints_estimates_classes_and_layers_and_writes_them(lastlayer, runs, tmp_path):
    out = tmp_path / "found.json"
    printed = lastlayer("information", runs["dropmax"], "--masks", 5, "--out", out)
    assert printed.status == 0, printed.err
    for word in ("as predicted", "one random mask", "Bits", "H-score", "layers.conv", "At most"):
        assert word in printed.out
    found = json.loads(out.read_text())
    assert found["estimates"]["as predicted"]["bits"] == pytest.approx(
        found["estimates"]["as predicted"]["nats"] / math.log(2)
    )
    assert [row["name"] for row in found["classes"]] == [str(k) for k in range(10)]


def test_the_share_of_label_entropy_is_nats_over_nats(lastlayer, runs):
    printed = lastlayer("information", runs["softmax"])
    line = next(line for line in printed.out.splitlines() if "as predicted" in line)
    nats, _, _, bits, share = map(float, re.findall(r"-?\d+\.\d+", line))
    entropy = stats.entropy(np.bincount(load("digits").test.target))  # in nats
    assert bits == pytest.approx(nats / math.log(2), abs=2e-4)
    assert share == pytest.approx(100 * nats / entropy, abs=0.06)
    assert 0 < share < 100


def test_a_missing_run_and_no_masks_are_one_line(lastlayer, runs, tmp_path):
    missing = lastlayer("information", tmp_path / "nowhere")
    assert missing.status == 2
    assert "nowhere" in missing.err
    none = lastlayer("information", runs["dropmax"], "--masks", 0)
    assert none.status == 2
    assert "masks must be" in none.err


def test_a_run_with_other_data_is_refused(runs, tmp_path, monkeypatch):
    from lastlayer.experiments import information

    plain = information.load_run_splits

    def shuffled(run, **kwargs):
        splits = plain(run, **kwargs)
        splits.test.target[:] = splits.test.target.flip(0)
        return splits

    monkeypatch.setattr(information, "load_run_splits", shuffled)
    with pytest.raises(ValueError, match="was not measured on these data"):
        run_information(runs["softmax"])


@pytest.fixture(scope="module")
def pooled(tmp_path_factory):
    changes = {
        "data": {"train_size": 100},
        "model": {"name": "gap-cnn"},
        "training": {"steps": 10, "batch_size": 20},
    }
    return train(RunConfig().updated(changes), tmp_path_factory.mktemp("pooled") / "run").path


@pytest.mark.parametrize("method", ["cam", "infocam", "infocam+"])
def test_explain_draws_class_maps(lastlayer, pooled, tmp_path, method):
    out = tmp_path / "maps.png"
    printed = lastlayer(
        "explain", pooled, "--method", method, "--window", 2, "--count", 2, "--out", out
    )
    assert printed.status == 0, printed.err
    assert printed.out.strip() == str(out)
    assert out.stat().st_size > 5000


def test_a_network_without_average_pooling_is_refused_in_one_line(lastlayer, runs):
    printed = lastlayer("explain", runs["softmax"], "--method", "infocam")
    assert printed.status == 2
    assert "average pooling" in printed.err


def test_an_unknown_method_is_refused(lastlayer, pooled):
    printed = lastlayer("explain", pooled, "--method", "gradcam")
    assert printed.status == 2
    assert "method must be one of" in printed.err
