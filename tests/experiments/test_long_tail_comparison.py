"""A long-tailed comparison from the command line to its report, two-stage training included."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
import torch

from lastlayer.longtail import exponential_counts
from lastlayer.training import RunDirectory
from lastlayer.training.fit import load_classifier, load_run_splits
from lastlayer.training.measuring import predict

HEADS = ("softmax", "balanced-softmax", "balms", "ldam-drw")


class LongTailed(NamedTuple):
    """A finished comparison."""

    words: tuple
    folder: object
    runs: dict
    printed: object


@pytest.fixture(scope="module")
def compared(tmp_path_factory, lastlayer):
    folder = tmp_path_factory.mktemp("tail")
    words = ("compare", "--recipe", "digits-lt", "--long-tail", 50, "--heads", ",".join(HEADS))
    words += ("--seeds", 2, "--steps", 24, "--jobs", 1, "--out", folder)
    words += ("--set", "classifier_stage.steps=12", "training.log_every=4")
    with pytest.MonkeyPatch.context() as patch:  # as every single test has it
        patch.delenv("LASTLAYER_DATA", raising=False)
        printed = lastlayer(*words)
    assert printed.status == 0, printed.err
    runs = {
        (head, seed): RunDirectory(folder / f"{head}-seed{seed}")
        for head in HEADS
        for seed in (0, 1)
    }
    return LongTailed(words, folder, runs, printed)


def test_all_heads_of_a_seed_see_the_same_tail_and_seeds_differ(compared):
    counts = {key: run.summary()["class_counts"] for key, run in compared.runs.items()}
    for seed in (0, 1):
        assert all(counts[head, seed] == counts["softmax", seed] for head in HEADS)
        assert sorted(counts["softmax", seed], reverse=True) == exponential_counts(10, 140, 50)
    assert counts["softmax", 0] != counts["softmax", 1]


def test_balms_is_softmaxs_backbone_and_a_balanced_head_that_the_run_directory_gives_back(compared):
    run, softmax = compared.runs["balms", 0], compared.runs["softmax", 0]
    ours, theirs = run.state_dict(), softmax.state_dict()
    assert all(ours[name].equal(theirs[name]) for name in ours if name.startswith("backbone."))
    classifier = load_classifier(run)
    assert classifier.head.class_counts.tolist() == run.summary()["class_counts"]
    log_prob, _ = predict(classifier, load_run_splits(run).test.inputs)
    assert torch.equal(log_prob, run.predictions()["log_prob"])
    assert [s["head"] for s in run.summary()["stages"]] == ["softmax", "balanced-softmax"]
    assert run.summary()["prior_correction"] == {"loss offset": 1.0}


def test_the_report_has_groups_of_classes_and_learned_rates(compared):
    markdown = (compared.folder / "comparison.md").read_text()
    assert "few below 20" in markdown
    assert all(f"| {head} | 2 |" in markdown for head in HEADS)
    assert "Balanced accuracy %" in compared.printed.out
    page = (compared.folder / "report.html").read_text()
    assert "<h2>Groups of classes</h2>" in page
    assert "Sampling rates of balms-seed0" in page
    for name in ("rates-balms-seed0", "class-accuracy", "tail-confusion", "comparison"):
        assert (compared.folder / "figures" / f"{name}.png").stat().st_size > 0
    record = json.loads((compared.folder / "comparison.json").read_text())
    assert [row["head"] for row in record["long_tail"]] == list(HEADS)
    balms = compared.runs["balms", 0]
    steps = [record["step"] for record in balms.metrics() if record["split"] == "rates"]
    assert steps == [24, 28, 32, 36]


def test_called_again_it_trains_nothing_anew(compared, lastlayer):
    before = {key: run.summary() for key, run in compared.runs.items()}
    assert lastlayer(*compared.words).status == 0
    assert {key: run.summary() for key, run in compared.runs.items()} == before
