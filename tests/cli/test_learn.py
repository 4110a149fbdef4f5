import json

import pytest
import torch

from lastlayer.incremental import IncrementalClassifier, IncrementalRun
from lastlayer.incremental.storage import load_state

WORDS = [
    "learn", "--data", "digits", "--base", 4, "--later-tasks", 3, "--memory", 3,
    "--train-size", 200, "--steps", 20, "--first-steps", 30, "--batch-size", 20, "--jobs", 1,
    "--set", "data.validation_size=0", "training.checkpoint_every=5", "training.log_every=5",
]  # fmt: skip


@pytest.fixture(scope="module")
def learned(tmp_path_factory, lastlayer):
    folder = tmp_path_factory.mktemp("learn") / "out"
    methods = "softmax,balanced-softmax+distillation,icarl"
    with pytest.MonkeyPatch.context() as patch:  # set up before any test's own environment
        patch.delenv("LASTLAYER_DATA", raising=False)
        printed = lastlayer(*WORDS, "--methods", methods, "--seeds", 2, "--out", folder)
    return folder, printed


def test_methods_are_learned_side_by_side_and_reported(learned):
    folder, printed = learned
    assert printed.status == 0, printed.err
    assert "6/6 runs" in printed.err
    for text in ("balanced-softmax+distillation", "icarl", "orgetting"):
        assert text in printed.out
    for name in ("comparison.json", "comparison.md", "report.html"):
        assert (folder / name).stat().st_size > 500
    comparison = json.loads((folder / "comparison.json").read_text())
    assert json.dumps(comparison).count("icarl") >= 1


def test_methods_of_a_seed_share_the_class_order_and_the_first_weights(tmp_path, lastlayer):
    """At a learning rate that moves no float32 weight, trained weights are the first ones."""
    methods = "softmax,balanced-softmax+distillation,icarl"
    printed = lastlayer(
        *WORDS, "--methods", methods, "--seeds", 2, "--out", tmp_path, "--lr", 1e-30
    )
    assert printed.status == 0, printed.err
    orders, weights = {}, {}
    for path in tmp_path.glob("*seed*"):
        method, _, seed = path.name.rpartition("-seed")
        orders[method, seed] = IncrementalRun(path).summary()["incremental"]["class_order"]
        weights[method, seed] = dict(load_state(path / "learner")[0].trained.named_parameters())
    assert len(weights) == 6
    for method, seed in weights:
        first = weights["softmax", seed]
        assert orders[method, seed] == orders["softmax", seed]
        assert weights[method, seed].keys() == first.keys()
        for name, weight in weights[method, seed].items():
            of_the_first_task = slice(4) if name.startswith("head.classifier") else slice(None)
            assert torch.equal(weight[of_the_first_task], first[name][of_the_first_task]), name
    assert orders["softmax", "0"] != orders["softmax", "1"]
    ours, theirs = weights["softmax", "0"], weights["softmax", "1"]
    assert not any(torch.equal(ours[n], theirs[n]) for n in ours if n.endswith("weight"))


def test_called_again_nothing_is_trained_again(learned, lastlayer):
    folder, _ = learned
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")}
    printed = lastlayer(
        *WORDS, "--methods", "softmax,balanced-softmax+distillation,icarl", "--seeds", 2,
        "--out", folder,
    )  # fmt: skip
    assert printed.status == 0
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")}


def test_a_learned_run_is_loaded_and_goes_on(learned):
    folder, _ = learned
    learner = IncrementalClassifier.load(folder / "balanced-softmax_distillation-seed0")
    assert sorted(learner.classes) == list(range(10))
    inputs = torch.rand(12, 1, 8, 8)
    assert learner.learn(inputs, [10] * 12).predict(inputs).shape == (12,)


def test_a_process_killed_within_a_task_goes_on_to_the_same_matrix(
    tmp_path, lastlayer, learned, kill_when
):
    folder = tmp_path / "killed"
    words = [*WORDS, "--methods", "balanced-softmax+distillation", "--seeds", 1, "--out", folder]
    run = IncrementalRun(folder / "balanced-softmax_distillation-seed0")

    def within_the_third_task():
        return (run.checkpoints / "task-002.ckpt").exists()

    kill_when(words, within_the_third_task)
    assert not run.finished
    assert len(run.results()) == 2
    again = lastlayer(*words)
    assert again.status == 0, again.err
    whole = IncrementalRun(learned[0] / "balanced-softmax_distillation-seed0")
    assert run.summary()["incremental"] == whole.summary()["incremental"]
    ours, theirs = (load_state(each.learner)[0].trained.state_dict() for each in (run, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--base", 3, "--later-tasks", 3], "tasks.base=3, tasks.later=3: steps must share"),
        (["--methods", "softmax+nonsense"], "unknown addition 'nonsense'"),
        (["--methods", "nonsense"], "nonsense"),
        (["--methods", "softmax,softmax"], "twice"),
        (["--recipe", "digits"], "recipe digits is for lastlayer compare"),
        (["--memory", -1], "memory.per_class"),
        (["--methods", "ldam+alignment"], "cosines"),
    ],
)
def test_mistakes_are_one_line_before_any_training(tmp_path, lastlayer, words, message):
    printed = lastlayer("learn", *words, "--out", tmp_path / "out")
    assert printed.status == 2
    assert message in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("out/*/model.safetensors"))


def test_compare_refuses_a_recipe_of_tasks(lastlayer):
    printed = lastlayer("compare", "--recipe", "digits-5x2")
    assert printed.status == 2
    assert "recipe digits-5x2 is for lastlayer learn" in printed.err


def test_methods_are_listed(lastlayer):
    printed = lastlayer("list", "methods")
    assert "icarl" in printed.out
    assert "...+distillation" in printed.out
