"""Real processes, really killed."""

import torch

from lastlayer.training import RunDirectory, train


def records(run):
    return [{k: v for k, v in record.items() if k != "elapsed"} for record in run.metrics()]


def test_sigkill_in_the_middle_of_train_then_resume_ends_bitwise_the_same(
    tmp_path, lastlayer, kill_when
):
    run = RunDirectory(tmp_path / "killed")
    words = ["train", "--head", "dropmax", "--out", run.path, "--train-size", 100]
    words += ["--steps", 200, "--batch-size", 20, "--recipe", "digits"]
    words += ["--set", "training.log_every=7", "training.checkpoint_every=25"]

    def past_a_checkpoint():
        if not (run.checkpoints / "last.ckpt").exists():
            return False
        return run.metrics()[-1]["step"] > 60

    kill_when(words, past_a_checkpoint)
    assert not run.finished
    refused = lastlayer(*words)
    assert refused.status == 2
    assert "--resume" in refused.err
    resumed = lastlayer(*words, "--resume")
    assert resumed.status == 0, resumed.err
    assert "test: error" in resumed.out
    whole = train(run.config(), tmp_path / "whole")
    ours, theirs = run.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert ours.keys() == theirs.keys()
    assert records(run) == records(whole)
    assert run.config().model.options["dropout"] == 0.5


def test_a_killed_comparison_goes_on_where_it_was(tmp_path, tiny_recipe, lastlayer, kill_when):
    folder = tmp_path / "comparison"
    words = ["compare", "--recipe", tiny_recipe, "--out", folder, "--jobs", 1]
    words += ["--steps", 60]
    first = RunDirectory(folder / "softmax-seed0")
    kill_when(words, lambda: first.finished)
    assert not (folder / "comparison.json").exists()
    written = first.summary_path.stat().st_mtime_ns
    again = lastlayer(*words)
    assert again.status == 0, again.err
    assert first.summary_path.stat().st_mtime_ns == written
    assert "4/4 runs, 240/240 steps" in again.err
    assert (folder / "report.html").exists()
