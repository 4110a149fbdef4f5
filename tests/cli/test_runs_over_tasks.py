"""What commands that read runs make of a run over tasks."""

import csv

import numpy as np
import pytest
import torch

from lastlayer.experiments.features import run_features
from lastlayer.experiments.predict import predict_file
from lastlayer.incremental import (
    IncrementalClassifier,
    IncrementalConfig,
    IncrementalRun,
    learn,
    open_run,
)
from lastlayer.training import RunDirectory

SETTINGS = {
    "data": {"train_size": 120, "validation_size": 0, "options": {"test_per_class": 20}},
    "model": {"name": "mlp", "options": {"hidden": [16]}},
    "optimizer": {"name": "sgd", "lr": 0.05, "schedule": "cosine"},
    "training": {"steps": 20, "batch_size": 10},
    "tasks": {"base": 4, "later": 2, "first_steps": 40, "order": [9, 3, 0, 5, 1, 2, 4, 6, 7, 8]},
    "memory": {"per_class": 3},
}
ORDER = [str(label) for label in SETTINGS["tasks"]["order"]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return learn(IncrementalConfig().updated(SETTINGS), tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "examples.npz"
    np.savez(path, x=np.random.default_rng(0).random((7, 1, 8, 8), dtype=np.float32))
    return path


# -- lastlayer predict ----------------------------------------------------------------------------


def test_predictions_of_a_file_are_the_learners_with_classes_in_order_of_arrival(run, file):
    found = predict_file(run.path, file)
    assert found.class_names == ORDER
    learner = IncrementalClassifier.load(run.path)
    assert [str(label) for label in learner.classes] == ORDER
    inputs = np.load(file)["x"]
    assert torch.equal(found.prob, learner.predict_log_prob(inputs).exp())
    assert found.prob.sum(-1).allclose(torch.ones(7))
    names = [found.class_names[row] for row in found.prob.argmax(-1).tolist()]
    assert names == [str(label) for label in learner.predict(inputs).tolist()]


def test_the_method_predicts_as_it_does_in_the_run(tmp_path, file):
    config = IncrementalConfig().updated(SETTINGS).updated({"predictor": "nearest-mean"})
    other = learn(config, tmp_path / "run")
    learner = IncrementalClassifier.load(other.path)
    by_means = learner.predict_log_prob(np.load(file)["x"], predictor="nearest-mean").exp()
    assert torch.equal(predict_file(other.path, file).prob, by_means)


def test_the_command_prints_and_writes_them(run, file, tmp_path, lastlayer):
    out = tmp_path / "predictions.csv"
    printed = lastlayer("predict", run.path, file, "--out", out, "--top", 2)
    assert printed.status == 0, printed.err
    with out.open(newline="") as opened:
        head, *rows = csv.reader(opened)
    assert head == ["example", "prediction", *ORDER]
    prob = predict_file(run.path, file).prob
    assert [row[1] for row in rows] == [ORDER[best] for best in prob.argmax(-1).tolist()]
    for row, expected in zip(rows, prob.tolist(), strict=True):
        assert [float(p) for p in row[2:]] == pytest.approx(expected, rel=1e-4)
        assert row[1] in printed.out


@pytest.mark.parametrize("step", [5, 50])
def test_a_run_that_is_not_finished_is_told_how_to_go_on(tmp_path, file, lastlayer, step):
    def stop(at, values):
        if at >= step:
            raise KeyboardInterrupt

    config = IncrementalConfig().updated(SETTINGS | {"training": {"steps": 20, "log_every": 5}})
    with pytest.raises(KeyboardInterrupt):
        learn(config, tmp_path / "run", progress=stop)
    printed = lastlayer("predict", tmp_path / "run", file)
    assert printed.status == 2
    assert "resume it with lastlayer learn" in " ".join(printed.err.split())


# -- commands for plain runs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["explain"],
        ["explain", "--method", "cam"],
        ["information"],
    ],
)
def test_commands_for_plain_runs_refuse_it_in_one_line(run, lastlayer, words):
    printed = lastlayer(words[0], run.path, *words[1:])
    assert printed.status == 2
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1
    assert "holds a run over a sequence of tasks" in lines[0]
    assert "lastlayer predict" in lines[0]
    assert "IncrementalClassifier.load" in lines[0]


@pytest.mark.parametrize("command", ["train", "compare"])
def test_training_into_its_folder_is_refused_and_changes_nothing(run, lastlayer, command):
    before = {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    if command == "train":
        words = ["--head", "softmax", "--out", run.path, "--resume"]
    else:
        moved = run.path.parent / "both" / "softmax-seed0"
        moved.parent.mkdir()
        moved.symlink_to(run.path)
        words = ["--heads", "softmax", "--seeds", 1, "--jobs", 1, "--out", moved.parent]
    printed = lastlayer(command, *words)
    assert printed.status == 2
    assert "holds a run over a sequence of tasks" in " ".join(printed.err.split())
    assert before == {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}


def test_python_readers_of_plain_runs_refuse_it(run):
    for read in (RunDirectory.open, run_features):
        with pytest.raises(ValueError, match="holds a run over a sequence of tasks"):
            read(run.path)


def test_a_run_is_opened_as_what_it_is(run, tmp_path):
    assert isinstance(open_run(run.path), IncrementalRun)
    assert open_run(run.path).config() == IncrementalConfig().updated(SETTINGS)
    with pytest.raises(FileNotFoundError, match="is not a run"):
        open_run(tmp_path)
