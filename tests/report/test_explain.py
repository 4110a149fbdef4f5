import shutil

import pytest
import torch

from lastlayer.data import load
from lastlayer.report import explain as module
from lastlayer.report.explain import explain_run
from lastlayer.training import RunConfig, RunDirectory, train

TEST = load("digits").test


@pytest.fixture
def drawn(monkeypatch):
    """What would be drawn."""
    seen = {}

    def panels(**arguments):
        seen.update(arguments)
        return "figure"

    monkeypatch.setattr(module, "retain_panels", panels)
    monkeypatch.setattr(module, "save_figure", lambda figure, path: path)
    return seen


@pytest.fixture
def run(comparison):
    return RunDirectory(comparison.folder / "dropmax-seed0")


@pytest.fixture
def softmax(comparison):
    return RunDirectory(comparison.folder / "softmax-seed0")


def small(head, path, **changes):
    settings = {
        "head": {"name": head},
        "data": {"train_size": 50, "validation_size": 50},
        "training": {"steps": 5, "batch_size": 10},
    }
    return train(RunConfig().updated(settings).updated(changes), path)


def test_a_picture_is_written_into_the_run(run, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "run")
    shutil.rmtree(copy / "figures")
    path = explain_run(copy)
    assert path == copy / "figures" / "retain.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_hard_inputs_are_the_base_models_worst_mistakes_two_a_class(run, softmax, drawn):
    explain_run(run.path, count=8)
    log_prob = softmax.predictions()["log_prob"]
    truth = log_prob[torch.arange(len(TEST)), TEST.target]
    wrong = log_prob.argmax(dim=-1) != TEST.target
    assert int(wrong.sum()) >= 16
    taken, expected = {}, []
    for index in sorted(range(len(TEST)), key=lambda k: float(truth[k])):
        label = int(TEST.target[index])
        if wrong[index] and taken.get(label, 0) < 2 and len(expected) < 8:
            taken[label] = taken.get(label, 0) + 1
            expected.append(index)
    expected.sort(key=lambda k: int(TEST.target[k]))
    assert torch.equal(drawn["images_hard"], TEST.inputs[expected])
    assert torch.equal(drawn["target_hard"], TEST.target[expected])
    assert torch.equal(drawn["base_prediction"], log_prob[expected].argmax(dim=-1))


def test_easy_inputs_are_the_surest_of_each_class(run, softmax, drawn):
    explain_run(run.path, count=10)
    log_prob = softmax.predictions()["log_prob"]
    best = [
        max((k for k in range(len(TEST)) if TEST.target[k] == c), key=lambda k: log_prob[k, c])
        for c in range(10)
    ]
    assert drawn["target_easy"].tolist() == list(range(10))
    assert torch.equal(drawn["images_easy"], TEST.inputs[best])


def test_probabilities_are_the_heads_own(run, drawn):
    explain_run(run.path, count=6)
    classifier = module.load_classifier(run)
    with torch.no_grad():
        features = classifier.features(drawn["images_hard"])
        prior = classifier.head.retain_prob(features)
        posterior = classifier.head.posterior_prob(features, drawn["target_hard"])
    torch.testing.assert_close(drawn["retain_hard"], prior)
    torch.testing.assert_close(drawn["posterior_hard"], posterior)


def test_without_a_base_run_the_run_itself_chooses(run, drawn, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "alone")
    explain_run(copy, count=5)
    log_prob = run.predictions()["log_prob"]
    wrong = log_prob.argmax(dim=-1) != TEST.target
    shown = drawn["base_prediction"] != drawn["target_hard"]
    assert int(shown.sum()) == min(5, int(wrong.sum()))


def test_a_base_of_other_data_beside_the_run_is_not_taken(run, softmax, drawn, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "dropmax-seed0")
    small("softmax", tmp_path / "softmax-seed0")
    explain_run(copy, count=5)
    alone = drawn["images_hard"]
    shutil.rmtree(tmp_path / "softmax-seed0")
    shutil.copytree(softmax.path, tmp_path / "digits-softmax-seed0")
    explain_run(copy, count=5)
    assert not torch.equal(alone, drawn["images_hard"])


def test_attention_has_no_posterior(drawn, tmp_path):
    explain_run(small("attention", tmp_path / "run").path, count=3)
    assert drawn["posterior_hard"] is None
    assert drawn["retain_hard"].shape == (3, 10)


def test_a_head_without_retain_probabilities_is_refused(softmax):
    with pytest.raises(ValueError, match="'softmax', which has no retain"):
        explain_run(softmax.path)


def test_a_base_measured_on_something_else_is_refused(run, tmp_path):
    base = small("softmax", tmp_path / "base", evaluate_on="validation")
    with pytest.raises(ValueError, match="was not measured on the 500 test inputs"):
        explain_run(run.path, base=base.path)


def test_missing_and_unfinished_runs_are_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a run"):
        explain_run(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="is not a run"):
        explain_run(run.path, base=tmp_path / "nowhere")
    unfinished = RunDirectory.create(tmp_path / "run", RunConfig())
    with pytest.raises(FileNotFoundError, match="not finished"):
        explain_run(unfinished.path)


def test_a_count_is_at_least_one(run):
    with pytest.raises(ValueError, match="count"):
        explain_run(run.path, count=0)
