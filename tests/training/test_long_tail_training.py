"""Long-tailed runs: what is drawn from what, exact resumption, counts that travel with the run."""

from __future__ import annotations

import pytest
import torch

from lastlayer.data import load
from lastlayer.functional import DoubleCorrectionWarning
from lastlayer.longtail import class_counts, exponential_counts, sampling_prior
from lastlayer.training import RunConfig, RunDirectory, train
from lastlayer.training.batches import ShuffledBatches, epoch_order
from lastlayer.training.build import load_splits
from lastlayer.training.fit import load_classifier
from lastlayer.training.measuring import predict

BASE = {
    "data": {"long_tail": {"imbalance": 20}, "validation_size": 100},
    "model": {"name": "mlp", "options": {"hidden": [16]}},
    "training": {"steps": 24, "batch_size": 40, "log_every": 6, "checkpoint_every": 8},
}


def config(**changes):
    return RunConfig().updated(BASE).updated(changes)


class Killed(BaseException):
    """Ends a run as nothing in it expects."""


def kill_at(step):
    def progress(at, values):
        if at >= step:
            raise Killed

    return progress


def test_the_training_part_alone_gets_the_tail_and_the_held_out_part_is_balanced():
    splits, whole = load_splits(config()), load("digits")
    counts = class_counts(splits)
    assert counts.tolist() == exponential_counts(10, int(counts[0]), 20)
    assert class_counts(splits.validation).tolist() == [10] * 10
    assert torch.equal(splits.test.inputs, whole.test.inputs)
    assert "Training part long-tailed (exponential, imbalance 20)" in splits.notes[-1]
    seen = {row.numpy().tobytes() for row in splits.train.inputs}
    held_out = {row.numpy().tobytes() for row in splits.validation.inputs}
    assert not seen & held_out


def test_the_held_out_part_does_not_depend_on_the_tail():
    parts = [
        load_splits(config(data={"long_tail": {"imbalance": r}})).validation.inputs for r in (2, 20)
    ]
    assert torch.equal(*parts)


def test_the_subset_depends_on_the_datas_seed_and_on_nothing_else():
    fixed = [
        load_splits(config(seed=seed, data={"seed": 5}, head={"name": head})).train.inputs
        for seed, head in ((0, "softmax"), (1, "dropmax"))
    ]
    assert torch.equal(*fixed)
    drawn = [load_splits(config(seed=seed)).train.inputs for seed in (0, 1)]
    assert not torch.equal(*drawn)


def test_a_balanced_subset_may_come_first():
    splits = load_splits(config(data={"train_size": 400, "long_tail": {"n_max": 40}}))
    assert class_counts(splits).tolist() == exponential_counts(10, 40, 20)
    with pytest.raises(ValueError, match="n_max=41 asks for 41 examples of class 0"):
        load_splits(config(data={"train_size": 400, "long_tail": {"n_max": 41}}))


def test_a_random_order_changes_with_the_seed_and_keeps_the_counts():
    tails = [
        class_counts(
            load_splits(config(seed=s, data={"long_tail": {"order": "random", "n_max": 80}}))
        )
        for s in (0, 1)
    ]
    assert tails[0].tolist() != tails[1].tolist()
    assert sorted(tails[0].tolist()) == sorted(tails[1].tolist())


def test_the_configuration_is_written_and_read_and_refuses_what_is_no_tail(tmp_path):
    settings = config(training={"sampler": "square-root"})
    path = tmp_path / "config.toml"
    path.write_text(settings.to_toml())
    assert RunConfig.from_toml(path) == settings
    for tail in ({"imbalance": 0.5}, {"profile": "linear"}, {"imbalance": float("inf")}):
        with pytest.raises(ValueError, match=r"data\.long_tail"):
            config(data={"long_tail": tail})
    with pytest.raises(ValueError, match=r"training\.sampler"):
        config(training={"sampler": "tail"})


CASES = {
    "class-balanced batches": {"training": {"sampler": "class-balanced"}},
    "progressive batches": {"training": {"sampler": "progressive"}},
    "balanced softmax": {"head": {"name": "balanced-softmax"}},
    "late weights": {"head": {"name": "ldam", "options": {"reweight_after": 0.5}}},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_a_run_killed_and_resumed_ends_as_an_uninterrupted_one(tmp_path, changes):
    settings = config(**changes)
    whole = train(settings, tmp_path / "whole")
    with pytest.raises(Killed):
        train(settings, tmp_path / "killed", progress=kill_at(18))
    assert (tmp_path / "killed" / "checkpoints" / "last.ckpt").exists()
    resumed = train(settings, tmp_path / "killed", resume=True)
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert whole.summary()["long_tail"] == resumed.summary()["long_tail"]


@pytest.mark.parametrize("head", ["balanced-softmax", "logit-adjusted", "ldam-drw", "pc-softmax"])
def test_a_finished_run_is_loaded_from_its_directory_alone(tmp_path, monkeypatch, head):
    settings = config(head={"name": head}, training={"steps": 3})
    run = train(settings, tmp_path / "run")
    splits = load_splits(settings)

    def refuse(*arguments, **options):
        raise AssertionError("the data are not needed")

    monkeypatch.setattr("lastlayer.training.build.load", refuse)
    classifier = load_classifier(RunDirectory.open(tmp_path / "run"))
    assert torch.equal(classifier.head.class_counts, class_counts(splits))
    log_prob, _ = predict(classifier, splits.test.inputs)
    assert torch.equal(log_prob, run.predictions()["log_prob"])


def test_the_heads_own_counts_go_before_the_datas(tmp_path):
    counts = list(range(1, 11))
    settings = config(
        head={"name": "balanced-softmax", "options": {"class_counts": counts}},
        training={"steps": 2},
    )
    run = train(settings, tmp_path / "run")
    assert run.state_dict()["head.class_counts"].tolist() == counts
    assert load_classifier(run).head.class_counts.tolist() == counts


def test_the_summary_tells_groups_and_corrections(tmp_path):
    run = train(config(head={"name": "balanced-softmax"}), tmp_path / "run")
    summary = run.summary()
    counts = torch.tensor(summary["class_counts"])
    assert torch.equal(counts, class_counts(load_splits(config())))
    assert summary["prior_correction"] == {"loss offset": 1.0}
    tail = summary["long_tail"]
    assert tail["grouping"] == "shots"
    predictions = run.predictions()
    right = predictions["log_prob"].argmax(-1) == predictions["target"]
    accuracy = [float(right[predictions["target"] == k].float().mean()) for k in range(10)]
    assert tail["class_accuracy"] == pytest.approx(accuracy)
    assert tail["balanced_accuracy"] == pytest.approx(sum(accuracy) / 10)
    few = [a for a, n in zip(accuracy, counts.tolist(), strict=True) if n < 20]
    assert tail["group_accuracy"]["few"] == pytest.approx(sum(few) / len(few))
    assert [sum(row) for row in tail["group_confusion"]] == pytest.approx([1.0] * 3)


def test_balanced_data_have_no_such_entry(tmp_path):
    plain = RunConfig().updated(BASE | {"data": {"train_size": 100}, "training": {"steps": 2}})
    summary = train(plain, tmp_path / "run").summary()
    assert summary["class_counts"] == [10] * 10
    assert "long_tail" not in summary
    assert "prior_correction" not in summary


def test_correcting_in_batches_and_loss_is_told_before_the_training(tmp_path):
    settings = config(
        head={"name": "balanced-softmax"}, training={"sampler": "class-balanced", "steps": 2}
    )
    with pytest.warns(DoubleCorrectionWarning, match="sampling 1.00"):
        run = train(settings, tmp_path / "run")
    assert run.summary()["prior_correction"] == pytest.approx({"sampling": 1.0, "loss offset": 1.0})


LABELS = torch.repeat_interleave(torch.arange(3), torch.tensor([300, 60, 40]))


def batches(sampler, epoch, **options):
    training = config(training={"sampler": sampler, "steps": 50}).training
    return ShuffledBatches(
        torch.arange(400.0),
        LABELS,
        batch_size=40,
        seed=3,
        epoch=lambda: epoch,
        order=epoch_order(training, LABELS),
        **options,
    )


@pytest.mark.parametrize("sampler", ["class-balanced", "square-root", "progressive"])
def test_processes_share_the_batches_that_one_process_would_draw(sampler):
    whole = [inputs for inputs, _ in batches(sampler, 2)]
    parts = [[x for x, _ in batches(sampler, 2, rank=r, world_size=2)] for r in range(2)]
    for batch, even, odd in zip(whole, *parts, strict=True):
        assert torch.equal(batch[::2], even)
        assert torch.equal(batch[1::2], odd)


def test_a_progressive_run_goes_from_the_data_to_balanced_batches():
    # 10 steps an epoch, 5 epochs.
    for epoch, progress in ((0, 0.0), (2, 0.5), (4, 1.0)):
        labels = torch.cat([target for _, target in batches("progressive", epoch)])
        prior = sampling_prior(torch.bincount(LABELS), "progressive", progress)
        seen = torch.bincount(labels, minlength=3)
        z = (seen - 400 * prior) / (400 * prior * (1 - prior)).sqrt()
        assert z.abs().max() < 4
    assert epoch_order(config().training, LABELS) is None
