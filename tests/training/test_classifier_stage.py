import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lastlayer.data import Split
from lastlayer.functional import DoubleCorrectionWarning
from lastlayer.heads import LDAM, BalancedSoftmax
from lastlayer.models import BACKBONES
from lastlayer.training import RunConfig, RunDirectory, train
from lastlayer.training.build import load_splits
from lastlayer.training.classifier_stage import REPRESENTATION_FILE
from lastlayer.training.fit import load_classifier
from lastlayer.training.measuring import predict
from lastlayer.training.stage_batches import StageDraws

COUNTS = torch.tensor([30, 20, 14, 10, 7, 5, 3, 2, 1, 1])


@pytest.fixture(autouse=True)
def _parts(monkeypatch):
    monkeypatch.setattr(BACKBONES, "_parts", dict(BACKBONES._parts))
    monkeypatch.setattr(BACKBONES, "_descriptions", dict(BACKBONES._descriptions))
    BACKBONES.add("normalized", normalized, description="a test's")


class Normalized(nn.Sequential):
    out_features = 16


def normalized(input_shape, **options):
    width = math.prod(input_shape)
    return Normalized(
        nn.Flatten(), nn.Linear(width, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5)
    )


BASE = {
    "data": {"validation_size": 0},
    "model": {"name": "normalized"},
    "head": {"name": "balanced-softmax"},
    "training": {"steps": 15, "batch_size": 20, "log_every": 7, "checkpoint_every": 10},
    "classifier_stage": {
        "sampler": "meta",
        "representation_head": {"name": "softmax"},
        "steps": 35,
        "batch_size": 24,
        "meta": {"batch_size": 30, "lr": 0.05},
    },
}


def config(**changes):
    return RunConfig().updated(BASE).updated(changes)


@pytest.fixture(scope="module")
def splits():
    """Digits with a long tail."""
    full = load_splits(RunConfig())
    rows = torch.cat(
        [(full.train.target == k).nonzero().squeeze(1)[:n] for k, n in enumerate(COUNTS.tolist())]
    )
    train_split = Split(full.train.inputs[rows], full.train.target[rows])
    return replace(full, train=train_split, validation=None)


class Killed(BaseException):
    """Ends a run as nothing in it expects."""


def kill_at(step):
    def progress(at, values):
        if at >= step:
            raise Killed

    return progress


def records(run):
    return [{k: v for k, v in record.items() if k != "elapsed"} for record in run.metrics()]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


CASES = {
    "meta": {},
    "meta and a head that draws": {"head": {"name": "dropmax"}},
    "meta reweighter": {"classifier_stage": {"sampler": "meta-reweighter"}},
    "class scales": {
        "head": {"name": "softmax"},
        "classifier_stage": {"sampler": "class-balanced", "train": "class-scales"},
        "training": {"clip_norm": 0.5},
    },
    "in turn, Adam and one cycle": {
        "classifier_stage": {
            "sampler": "instance",
            "optimizer": {"name": "adam", "nesterov": False, "schedule": "one-cycle", "lr": 0.01},
        }
    },
    "progressive, late weights": {
        "head": {"name": "ldam", "options": {"reweight_after": 0.5}},
        "classifier_stage": {"sampler": "progressive"},
    },
    "augmented images": {"training": {"augment": [{"name": "crop", "padding": 1}]}},
    "double precision": {"training": {"precision": "64-true"}},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_killed_in_each_stage_and_resumed_a_run_ends_as_an_uninterrupted_one(
    tmp_path, splits, changes
):
    settings = config(**changes)
    whole = train(settings, tmp_path / "whole", splits=splits)
    for step in (14, 43):  # the first stage has 15 steps, the second 35
        with pytest.raises(Killed):
            train(
                settings,
                tmp_path / "killed",
                resume=step > 14,
                progress=kill_at(step),
                splits=splits,
            )
    killed = RunDirectory(tmp_path / "killed")
    assert sorted(p.name for p in killed.checkpoints.iterdir()) == [
        "classifier.ckpt",
        "last.ckpt",
        "representation.ckpt",
    ]
    seen = []
    resumed = train(
        settings,
        killed.path,
        resume=True,
        progress=lambda step, _: seen.append(step),
        splits=splits,
    )
    assert min(seen) > 15 + 20
    assert same(whole.state_dict(), resumed.state_dict())
    assert same(whole.predictions(), resumed.predictions())
    assert records(whole) == records(resumed)
    assert list(resumed.checkpoints.iterdir()) == []


def test_the_backbone_of_the_finished_run_is_the_first_stages_batch_statistics_included(
    tmp_path, splits
):
    settings = config()
    run = train(settings, tmp_path / "run", splits=splits)
    first = train(settings.first_stage(), tmp_path / "first", splits=splits)
    ours, theirs = run.state_dict(), first.state_dict()
    backbone = [name for name in ours if name.startswith("backbone.")]
    assert any("running_var" in name for name in backbone)
    assert all(ours[name].equal(theirs[name]) for name in backbone)
    assert not ours["head.classifier.weight"].equal(theirs["head.classifier.weight"])
    assert first.config().head.name == "softmax"
    assert first.summary()["head"] == "softmax"


def test_the_second_stages_head_is_what_is_stored_measured_and_loaded(tmp_path, splits):
    run = train(config(), tmp_path / "run", splits=splits)
    classifier = load_classifier(run)
    assert torch.equal(classifier.head.class_counts, COUNTS)
    assert run.summary()["class_counts"] == COUNTS.tolist()
    assert isinstance(classifier.head, BalancedSoftmax)
    log_prob, _ = predict(classifier, splits.test.inputs)
    assert torch.equal(log_prob, run.predictions()["log_prob"])
    representation, stage = run.summary()["stages"]
    assert run.summary()["head"] == "balanced-softmax"
    assert representation == {"name": "representation", "head": "softmax", "steps": 15}
    assert stage == {
        "name": "classifier",
        "head": "balanced-softmax",
        "sampler": "meta",
        "train": "head",
        "steps": 35,
    }


def test_killed_after_its_last_step_a_second_stage_is_not_trained_on(tmp_path, splits, monkeypatch):
    settings = config(
        head={"name": "softmax"},
        classifier_stage={"sampler": "class-balanced", "train": "class-scales"},
    )
    whole = train(settings, tmp_path / "whole", splits=splits)

    def killed(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write_tensors", killed)
        with pytest.raises(Killed):
            train(settings, tmp_path / "killed", splits=splits)
    resumed = train(settings, tmp_path / "killed", resume=True, splits=splits)
    assert same(whole.state_dict(), resumed.state_dict())
    assert records(whole) == records(resumed)


def test_progress_is_told_of_every_step_of_both_stages_once(tmp_path, splits, monkeypatch):
    shares = []
    monkeypatch.setattr(LDAM, "set_progress", lambda self, share: shares.append(share))
    settings = config(
        head={"name": "ldam", "options": {"reweight_after": 0.5}},
        classifier_stage={"sampler": "instance"},
        training={"log_every": 1},
    )
    told = []
    train(settings, tmp_path / "run", progress=lambda step, _: told.append(step), splits=splits)
    assert told == list(range(1, 15 + 35 + 1))
    assert told[-1] == settings.total_steps
    # The first stage's softmax does not ask; the second stage's share is of its own steps.
    assert shares == [step / 35 for step in range(35)]


def test_a_second_stages_checkpoint_of_version_0_1_is_refused_with_what_to_do(tmp_path, splits):
    with pytest.raises(Killed):
        train(config(), tmp_path / "run", progress=kill_at(30), splits=splits)
    stage = RunDirectory(tmp_path / "run").checkpoints / "classifier.ckpt"
    torch.save({"done": 10, "head": {}, "scales": None, "optimizer": {}, "records": {}}, stage)
    with pytest.raises(ValueError, match=r"classifier\.ckpt was written by .*; remove it to train"):
        train(config(), tmp_path / "run", resume=True, splits=splits)
    stage.unlink()
    resumed = train(config(), tmp_path / "run", resume=True, splits=splits)
    assert same(
        train(config(), tmp_path / "whole", splits=splits).state_dict(), resumed.state_dict()
    )


def test_rates_are_recorded_from_the_first_to_the_last_step(tmp_path, splits):
    run = train(config(), tmp_path / "run", splits=splits)
    rates = [record for record in run.metrics() if record["split"] == "rates"]
    assert [record["step"] for record in rates] == [15 + step for step in (0, 7, 14, 21, 28, 35)]
    assert rates[0]["rates"] == [0.5] * 10
    assert rates[-1]["rates"] != rates[0]["rates"]
    terms = [record for record in run.metrics() if record["split"] == "train"]
    assert [record["step"] for record in terms] == [7, 14, 15, 22, 29, 36, 43, 50]
    assert all("meta_loss" in record for record in terms[3:])
    plain = train(
        config(head={"name": "softmax"}, classifier_stage={"sampler": "class-balanced"}),
        tmp_path / "plain",
        splits=splits,
    )
    assert all(record["split"] == "train" for record in plain.metrics())
    assert all("meta_loss" not in record for record in plain.metrics())


def test_rates_may_begin_at_a_power_of_the_frequencies(tmp_path, splits):
    settings = config(classifier_stage={"meta": {"initial_power": 1.0}})
    run = train(settings, tmp_path / "run", splits=splits)
    first = next(record["rates"] for record in run.metrics() if record["split"] == "rates")
    assert first == sorted(first)
    assert first[0] == pytest.approx(1 / 31, abs=1e-6)


def test_the_head_is_trained_on_the_features_that_it_meets_when_evaluated(tmp_path, splits):
    settings = config(
        head={"name": "softmax"},
        classifier_stage={
            "sampler": "instance",
            "steps": 1,
            "batch_size": 1000,
            "optimizer": {
                "lr": 0.5,
                "momentum": 0,
                "nesterov": False,
                "weight_decay": 0,
                "schedule": "constant",
            },
        },
    )
    run = train(settings, tmp_path / "run", splits=splits)
    from lastlayer.training.build import build_classifier

    fresh = build_classifier(settings, splits.input_shape, 10, num_examples=len(splits.train))
    trained = load_classifier(run)
    with torch.no_grad():
        features = trained.features(splits.train.inputs)
    F.cross_entropy(fresh.head.classifier(features), splits.train.target).backward()
    for ours, before in zip(
        trained.head.classifier.parameters(), fresh.head.classifier.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, before - 0.5 * before.grad)


def test_class_scales_are_factors_of_the_first_stages_layer(tmp_path, splits):
    settings = config(
        head={"name": "softmax"},
        classifier_stage={"sampler": "class-balanced", "train": "class-scales"},
    )
    run = train(settings, tmp_path / "run", splits=splits)
    first = train(settings.first_stage(), tmp_path / "first", splits=splits)
    ours, theirs = run.state_dict(), first.state_dict()
    factors = ours["head.classifier.weight"] / theirs["head.classifier.weight"]
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    torch.testing.assert_close(
        ours["head.classifier.bias"], factors[:, 0] * theirs["head.classifier.bias"]
    )
    assert float((factors[:, 0] - 1).abs().min()) > 1e-4
    log_prob, _ = predict(load_classifier(run), splits.test.inputs)
    assert torch.equal(log_prob, run.predictions()["log_prob"])


def test_class_balanced_draws_take_every_class_equally_often():
    target = torch.repeat_interleave(torch.arange(10), COUNTS)
    draws = StageDraws(target, 10, kind="class-balanced", batch_size=400, steps=100, seed=0)
    rows = torch.cat([draws.batch(step)[0] for step in range(100)])
    drawn = torch.bincount(target[rows], minlength=10)
    z = (drawn - 4000) / math.sqrt(40_000 * 0.1 * 0.9)
    assert float(z.abs().max()) < 5
    assert draws.batch(3)[0].equal(draws.batch(3)[0])
    assert not draws.meta_batch(3, 400).equal(draws.batch(3)[0])


def test_progressive_draws_begin_with_the_data_and_end_with_even_classes():
    target = torch.repeat_interleave(torch.arange(10), COUNTS)
    draws = StageDraws(target, 10, kind="progressive", batch_size=40_000, steps=50, seed=0)
    for step, prob in ((0, COUNTS / COUNTS.sum()), (49, torch.full((10,), 0.1))):
        drawn = torch.bincount(target[draws.batch(step)[0]], minlength=10)
        z = (drawn - 40_000 * prob) / (40_000 * prob * (1 - prob)).sqrt()
        assert float(z.abs().max()) < 5


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_progressive_draws_go_to_even_classes_by_equal_parts(steps):
    """In two steps from one end to the other; in three the middle one is half way."""
    target = torch.repeat_interleave(torch.arange(10), COUNTS)
    draws = StageDraws(target, 10, kind="progressive", batch_size=40_000, steps=steps, seed=0)
    for step in range(steps):
        done = step / (steps - 1)
        prob = (1 - done) * COUNTS / COUNTS.sum() + done / 10
        drawn = torch.bincount(target[draws.batch(step)[0]], minlength=10)
        z = (drawn - 40_000 * prob) / (40_000 * prob * (1 - prob)).sqrt()
        assert float(z.abs().max()) < 5


def test_counts_reach_the_heads_of_both_stages(tmp_path, splits):
    head = {"name": "ldam", "options": {"scale": 10.0}}
    settings = config(
        classifier_stage={"sampler": "class-balanced", "representation_head": head},
    )
    with pytest.warns(DoubleCorrectionWarning, match="sampling 1.00 \\+ loss offset 1.00"):
        run = train(settings, tmp_path / "run", splits=splits)
    assert run.summary()["prior_correction"] == pytest.approx({"sampling": 1, "loss offset": 1})
    assert run.summary()["stages"][0]["head"] == "ldam"


def test_learned_rates_are_not_part_of_the_account(tmp_path, splits):
    settings = config(classifier_stage={"steps": 2, "meta": {"initial_power": 1.0}})
    run = train(settings, tmp_path / "run", splits=splits)
    assert run.summary()["prior_correction"] == {"loss offset": 1.0}


def test_in_turn_every_example_comes_once_an_epoch():
    target = torch.repeat_interleave(torch.arange(10), COUNTS)
    draws = StageDraws(target, 10, kind="instance", batch_size=31, steps=6, seed=0)
    epochs = [
        torch.cat([draws.batch(3 * epoch + place)[0] for place in range(3)]) for epoch in range(2)
    ]
    for epoch in epochs:
        assert epoch.sort().values.equal(torch.arange(93))
    assert not epochs[0].equal(epochs[1])


def test_a_corrupt_checkpoint_of_either_stage_is_named(tmp_path, splits):
    with pytest.raises(Killed):
        train(config(), tmp_path / "run", progress=kill_at(30), splits=splits)
    run = RunDirectory(tmp_path / "run")
    for name in ("classifier.ckpt", REPRESENTATION_FILE):
        (run.checkpoints / name).write_bytes(b"garbage")
        with pytest.raises(ValueError, match=rf"{name} is corrupt"):
            train(config(), run.path, resume=True, splits=splits)


def test_a_loss_that_is_not_finite_stops_the_second_stage(tmp_path, splits):
    huge = {"lr": 1e38, "schedule": "constant"}
    settings = config(classifier_stage={"sampler": "instance", "optimizer": huge})
    with pytest.raises(FloatingPointError, match=r"at step \d+ \(nll="):
        train(settings, tmp_path / "run", splits=splits)


@pytest.mark.parametrize(
    ("changes", "entry"),
    [
        ({"sampler": "sideways"}, "classifier_stage.sampler"),
        ({"steps": 0}, "classifier_stage.steps"),
        ({"train": "class-scales"}, "classifier_stage"),
        ({"optimizer": {"warmup": 40}}, "classifier_stage"),
        ({"meta": {"lr": 0.0}}, "classifier_stage.meta.lr"),
        ({"meta": {"betas": [0.9, 1.0]}}, "classifier_stage.meta.betas.1"),
        ({"meta": {"temperature": -1}}, "classifier_stage.meta.temperature"),
        ({"representation_head": {"nome": "softmax"}}, "classifier_stage.representation_head"),
    ],
)
def test_a_wrong_entry_of_the_second_stage_is_named(changes, entry):
    with pytest.raises(ValueError, match=entry.replace(".", r"\.")):
        config(classifier_stage=changes)


def test_toml_replays_a_run_of_two_stages(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(config().to_toml())
    assert RunConfig.from_toml(path) == config()
    assert config().total_steps == 50
    assert RunConfig().total_steps == RunConfig().training.steps
    assert RunConfig().first_stage() == RunConfig()
