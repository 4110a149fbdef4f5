"""``lastlayer information``: the figures printed are those of the run's predictions."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch

from lastlayer.data.canvases import canvas_boxes
from lastlayer.experiments.features import run_features
from lastlayer.experiments.information import run_information
from lastlayer.experiments.localization import read_boxes, run_localization
from lastlayer.functional.dependence import maximal_correlation
from lastlayer.functional.transferability import log_me
from lastlayer.information import ClassMaps, feature_quality, localization
from lastlayer.training import RunConfig, RunDirectory, train
from lastlayer.training.fit import load_classifier, load_run_splits

HEADING = "example,left,top,right,bottom"


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
    printed = lastlayer("information", runs["dropmax"], "--num-samples", 5, "--out", out)
    assert printed.status == 0, printed.err
    words = ("as predicted", "one random mask", "Bits", "H-score", "layers.conv", "At most")
    for word in (*words, "LogME", "TransRate", "LEEP", "NCE", "High for"):
        assert word in printed.out
    found = json.loads(out.read_text())
    assert found["estimates"]["as predicted"]["bits"] == pytest.approx(
        found["estimates"]["as predicted"]["nats"] / math.log(2)
    )
    assert [row["name"] for row in found["classes"]] == [str(k) for k in range(10)]


def printed_row(text: str, name: str) -> list[float]:
    """The numbers that a table prints in the row of a name."""
    line = next(line for line in text.splitlines() if line.strip().startswith(name))
    return [float(word) for word in re.findall(r"-?\d+\.?\d*", line.strip().removeprefix(name))]


def test_nats_bits_and_per_cent_are_those_of_the_stored_predictions(lastlayer, runs):
    """By hand, in nats: H(Y) - CE over H(Y)."""
    predictions = RunDirectory(runs["softmax"]).predictions()
    target = predictions["target"].numpy()
    log_prob = predictions["log_prob"].double().numpy()
    shares = np.bincount(target) / len(target)
    label_entropy = -float(shares @ np.log(shares))
    nats = label_entropy + float(log_prob[np.arange(len(target)), target].mean())
    printed = lastlayer("information", runs["softmax"])
    assert printed.status == 0, printed.err
    row = printed_row(printed.out, "as predicted")
    assert row[0] == pytest.approx(nats, abs=6e-5)
    assert row[3] == pytest.approx(nats / math.log(2), abs=6e-5)
    assert row[4] == pytest.approx(100 * nats / label_entropy, abs=0.06)
    found = run_information(runs["softmax"])
    assert found.label_entropy == pytest.approx(label_entropy, abs=1e-9)


def test_the_scores_of_a_run_are_those_of_its_features_and_predictions(lastlayer, runs, tmp_path):
    found = run_information(runs["softmax"])
    arrays = run_features(runs["softmax"])
    predictions = RunDirectory(runs["softmax"]).predictions()
    target, log_prob = predictions["target"], predictions["log_prob"]
    features = torch.from_numpy(arrays["x_test"])
    assert found.quality == feature_quality(features, target, source_prob=log_prob.exp())
    printed = lastlayer("information", runs["softmax"], "--out", tmp_path / "found.json").out
    assert printed_row(printed, "LogME")[0] == pytest.approx(
        float(log_me(features, target)), abs=6e-5
    )
    stored = json.loads((tmp_path / "found.json").read_text())
    assert stored["quality"] == found.quality.as_dict()
    assert stored["modes"] == found.modes.as_dict()
    table = torch.zeros(10, 10).index_put_(
        (log_prob.argmax(1), target), torch.ones(len(target)), accumulate=True
    )
    first = float(maximal_correlation(table))
    assert found.modes.correlation[0] == pytest.approx(first)
    modes = printed.partition("High for")[2]
    assert printed_row(modes, "1 ")[0] == pytest.approx(first, abs=6e-5)


def test_a_missing_run_and_no_masks_are_one_line(lastlayer, runs, tmp_path):
    missing = lastlayer("information", tmp_path / "nowhere")
    assert missing.status == 2
    assert "nowhere" in missing.err
    none = lastlayer("information", runs["dropmax"], "--num-samples", 0)
    assert none.status == 2
    assert "num_samples must be" in none.err
    with pytest.warns(DeprecationWarning, match="--masks is now --num-samples"):
        old = lastlayer("information", runs["dropmax"], "--masks", 3)
    assert "average of 3 masks" in old.out


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


@pytest.fixture(scope="module")
def canvases(tmp_path_factory):
    changes = {
        "data": {"name": "digit-canvas", "train_size": 100, "options": {"size": 24}},
        "model": {"name": "gap-cnn"},
        "training": {"steps": 30, "batch_size": 20},
    }
    return train(RunConfig().updated(changes), tmp_path_factory.mktemp("canvases") / "run").path


def test_boxes_of_canvases_are_measured_against_those_of_the_source(lastlayer, canvases, tmp_path):
    boxes = canvas_boxes(size=24)
    found = run_localization(canvases, threshold=0.6)
    assert torch.equal(found.boxes[:, 0], boxes)
    run = RunDirectory(canvases)
    test = load_run_splits(run).test
    maps = ClassMaps(load_classifier(run), method="infocam+")(test.inputs, test.target).maps
    prediction = run.predictions()["log_prob"].argmax(1)
    by_hand = localization(maps, boxes, prediction, test.target, size=(24, 24), threshold=0.6)
    assert found.methods["infocam+"] == by_hand
    out = tmp_path / "maps.png"
    words = ("explain", canvases, "--method", "infocam", "--boxes", "--threshold", 0.6)
    printed = lastlayer(*words, "--count", 2, "--out", out)
    assert printed.status == 0, printed.err
    assert out.stat().st_size > 5000
    row = printed_row(printed.out, "infoCAM+")
    assert row[0] == 0.6
    assert row[1] == pytest.approx(by_hand.mean_iou, abs=6e-4)
    assert row[2] == pytest.approx(100 * by_hand.gt_known, abs=0.06)
    assert row[3] == pytest.approx(100 * by_hand.top1, abs=0.06)


def test_true_boxes_may_come_from_a_file_or_be_unknown(lastlayer, pooled, tmp_path):
    out = tmp_path / "maps.png"
    words = ("explain", pooled, "--method", "cam", "--count", 2, "--out", out)
    unknown = lastlayer(*words, "--boxes")
    assert unknown.status == 0, unknown.err
    assert unknown.out.strip() == str(out)  # drawn, with nothing to be held against
    file = tmp_path / "boxes.csv"
    rows = [f"{example},0,0,8,8" for example in range(500)]
    file.write_text("\n".join(["example,left,top,right,bottom", *rows]))
    known = lastlayer(*words, "--box-file", file, "--threshold", 0)
    assert known.status == 0, known.err
    assert printed_row(known.out, "CAM ")[1:3] == [1.0, 100.0]  # all of an image is all of it


def test_boxes_of_retain_probabilities_are_refused(lastlayer, runs):
    printed = lastlayer("explain", runs["dropmax"], "--boxes")
    assert printed.status == 2
    assert "give --method cam, infocam or infocam+" in printed.err


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("boxes.csv", "example,left\n0,1\n", "must begin with the line example,left,top"),
        ("boxes.csv", f"{HEADING}\n0,0,0,2,2\n7,0,0,2,2\n", "line 3: expected five .* below 3"),
        ("boxes.csv", f"{HEADING}\n-1,0,0,2,2\n", "line 2: expected five"),
        ("boxes.csv", f"{HEADING}\n0,0,0,2\n", "line 2: expected five"),
        ("boxes.csv", f"{HEADING}\n0,0,0,2,x\n", "line 2: expected five"),
        ("boxes.txt", "", r"must end in \.csv or \.npy"),
        ("boxes.npy", np.zeros((2, 4)), r"of 3 test examples; got \(2, 4\)"),
        ("boxes.npy", np.zeros((3, 5)), r"got \(3, 5\)"),
    ],
)
def test_files_of_boxes_that_do_not_fit_are_refused(tmp_path, name, content, match):
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    else:
        np.save(tmp_path / name, content)
    with pytest.raises(ValueError, match=match):
        read_boxes(tmp_path / name, 3)


def test_boxes_are_read_from_lines_and_from_arrays_alike(tmp_path):
    boxes = torch.tensor(
        [[[0, 0, 2, 2], [1, 2, 3, 4]], [[0, 0, 0, 0]] * 2, [[5, 5, 6, 7], [0] * 4]]
    )
    lines = [HEADING, "0,0,0,2,2", "2,5,5,6,7", "0,1,2,3,4"]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    np.save(tmp_path / "boxes.npy", boxes.numpy())
    np.save(tmp_path / "one.npy", boxes[:, 0].numpy())
    assert torch.equal(read_boxes(tmp_path / "boxes.csv", 3), boxes)
    assert torch.equal(read_boxes(tmp_path / "boxes.npy", 3), boxes)
    assert torch.equal(read_boxes(tmp_path / "one.npy", 3), boxes[:, :1])
