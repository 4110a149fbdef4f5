import json
import shutil

import numpy as np
import pytest
import torch

from lastlayer.evaluation import reliability
from lastlayer.report import collect_rows
from lastlayer.report.run_files import learning_records, reliability_tables
from lastlayer.training import RunConfig, RunDirectory


@pytest.fixture
def runs(comparison):
    return {
        head: [comparison.folder / f"{head}-seed{seed}" for seed in (0, 1)]
        for head in ("softmax", "dropmax")
    }


def changed(path, folder, **entries):
    """A copy of a run with other entries in its summary."""
    copy = shutil.copytree(path, folder / path.name)
    summary = json.loads((copy / "summary.json").read_text())
    summary.update(entries)
    (copy / "summary.json").write_text(json.dumps(summary))
    return copy


def test_rows_hold_what_the_summaries_say(runs):
    rows = collect_rows(runs)["heads"]
    assert [row.name for row in rows] == ["softmax", "dropmax"]
    for row in rows:
        summaries = [RunDirectory(path).summary() for path in runs[row.name]]
        assert row.seeds == [0, 1]
        assert row.values["error"] == [s["metrics"]["error"] for s in summaries]
        assert row.values["ece_pooled"] == [s["metrics"]["ece_pooled"] for s in summaries]
        assert row.values["nll_scaled"] == [s["temperature_scaled"]["nll"] for s in summaries]
        assert row.values["seconds"] == [s["seconds"] for s in summaries]


def test_measures_follow_from_the_stored_predictions(runs):
    for row in collect_rows(runs)["heads"]:
        for index, path in enumerate(runs[row.name]):
            stored = RunDirectory(path).predictions()
            wrong = stored["log_prob"].argmax(dim=-1) != stored["target"]
            assert row.values["error"][index] == pytest.approx(float(wrong.double().mean()))
            nll = torch.nn.functional.nll_loss(stored["log_prob"].double(), stored["target"])
            assert row.values["nll"][index] == pytest.approx(float(nll))


def test_runs_that_are_not_finished_are_left_out(runs, tmp_path):
    unfinished = RunDirectory.create(tmp_path / "softmax-seed2", RunConfig()).path
    rows = collect_rows({"softmax": [*runs["softmax"], unfinished], "sparsemax": [unfinished]})[
        "heads"
    ]
    assert [(row.name, row.seeds) for row in rows] == [("softmax", [0, 1])]
    assert set(reliability_tables({"a": [unfinished], "b": runs["softmax"]})) == {"b"}
    assert learning_records({"a": [unfinished]}) == []


def test_scaled_measures_are_shown_only_if_every_run_has_them(runs, tmp_path):
    path = changed(runs["softmax"][0], tmp_path)
    summary = json.loads((path / "summary.json").read_text())
    del summary["temperature_scaled"]
    (path / "summary.json").write_text(json.dumps(summary))
    (row,) = collect_rows({"softmax": [path, runs["softmax"][1]]})["heads"]
    assert not {"nll_scaled", "ece_scaled"} & set(row.values)
    assert len(row.values["nll"]) == 2


def test_a_corrupt_summary_is_named(runs, tmp_path):
    path = changed(runs["softmax"][0], tmp_path)
    (path / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=f"{path}/summary.json is corrupt"):
        collect_rows({"softmax": [path]})["heads"]


def test_the_same_seed_twice_is_refused(runs, tmp_path):
    twin = changed(runs["softmax"][1], tmp_path, seed=0)
    with pytest.raises(ValueError, match="distinct"):
        collect_rows({"softmax": [runs["softmax"][0], twin]})["heads"]


def test_an_infinite_nll_survives_the_file(runs, tmp_path):
    metrics = RunDirectory(runs["softmax"][0]).summary()["metrics"]
    path = changed(runs["softmax"][0], tmp_path, metrics=metrics | {"nll": float("inf")})
    (row,) = collect_rows({"softmax": [path]})["heads"]
    assert row.values["nll"] == [float("inf")]


def test_curves_are_the_records_of_training(runs, tmp_path):
    curves = learning_records(runs)
    assert [(curve.head, curve.split) for curve in curves] == [
        (head, "train") for head in ("softmax", "softmax", "dropmax", "dropmax")
    ]
    records = RunDirectory(runs["softmax"][0]).metrics()
    assert np.array_equal(curves[0].steps, [10, 20, 30, 40])
    assert np.array_equal(curves[0].values, [record["nll"] for record in records])


def test_a_record_without_the_measure_or_with_an_infinite_one_leaves_a_gap(tmp_path):
    run = RunDirectory.create(tmp_path / "run", RunConfig())
    for step, nll in ((1, 0.5), (2, None), (3, 0.25)):
        run.append_metrics({"split": "validation", "step": step, "nll": nll})
    run.append_metrics({"split": "validation", "step": 4})
    (curve,) = learning_records({"softmax": [run.path]})
    assert curve.split == "validation"
    assert curve.steps.tolist() == [1, 3]
    assert curve.values.tolist() == [0.5, 0.25]


@pytest.mark.parametrize("kind", ["top1", "pooled"])
def test_reliability_pools_the_predictions_of_all_seeds(runs, kind):
    tables = reliability_tables(runs, kind)
    stored = [RunDirectory(path).predictions() for path in runs["dropmax"]]
    expected = reliability(
        torch.cat([s["log_prob"] for s in stored]),
        torch.cat([s["target"] for s in stored]),
        kind=kind,
    )
    assert list(tables) == ["softmax", "dropmax"]
    for ours, theirs in zip(vars(tables["dropmax"]).values(), vars(expected).values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
