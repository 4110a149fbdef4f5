"""Regularisers in a run: rates along the schedule, penalties, resumption, stored weights."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lastlayer.experiments import Recipe, parse_variant
from lastlayer.regularizers import Disout, Dropout, Regularizer, inserted
from lastlayer.training import RunConfig, RunDirectory, train
from lastlayer.training.build import build_classifier
from lastlayer.training.fit import load_classifier
from lastlayer.training.regularization import RateSchedule

BASE = {
    "data": {"train_size": 100, "validation_size": 100},
    "model": {"name": "digits-cnn"},
    "training": {"steps": 12, "batch_size": 20, "log_every": 1},
}
PLACES = [{"where": ["layers.conv", "layers.fc"]}]


def config(name: str, schedule: str = "linear", places=PLACES, **options) -> RunConfig:
    regularizer = {"name": name, "options": options, "places": places, "schedule": schedule}
    return RunConfig().updated(BASE).updated({"regularizer": regularizer})


def test_a_configuration_puts_them_into_the_backbone():
    classifier = build_classifier(config("disout", p=0.2, block_size=2), (1, 8, 8), 10)
    found = dict(inserted(classifier))
    assert list(found) == [
        "backbone.layers.conv.regularizer",
        "backbone.layers.fc.regularizer",
    ]
    first, second = found.values()
    assert isinstance(first, Disout)
    assert isinstance(second, Disout)
    assert first.p == second.p == 0.2
    assert first.next_layer is None  # no convolution follows
    assert second.next_layer is classifier.head.classifier


def test_a_place_may_be_a_kind_of_place():
    _, changes = parse_variant("softmax+drop-path:kind=branch,p=0.3")
    assert changes["regularizer"]["places"] == [{"kind": "branch"}]
    wanted = RunConfig().updated({"model": {"name": "resnet20"}}).updated(changes)
    classifier = build_classifier(wanted, (3, 16, 16), 10)
    names = [name for name, _ in inserted(classifier)]
    blocks = [f"backbone.layer{i}.{j}" for i in (1, 2, 3) for j in range(3)]
    assert names == [f"{block}.bn2.regularizer" for block in blocks]


def test_they_do_not_move_the_initial_weights():
    plain = build_classifier(RunConfig().updated(BASE), (1, 8, 8), 10)
    other = build_classifier(config("variational-dropout"), (1, 8, 8), 10)
    theirs = other.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in plain.state_dict().items())


def test_each_place_has_its_share_of_the_rate():
    places = [{"where": "layers.conv", "factor": 0.25}, {"where": "layers.fc"}]
    classifier = build_classifier(config("dropout", places=places, p=0.2), (1, 8, 8), 10)
    assert [regularizer.p for _, regularizer in inserted(classifier)] == [0.05, 0.2]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.4] * 5), ("linear", [0.0, 0.1, 0.2, 0.3, 0.4])],
)
def test_the_rate_of_every_step_follows_the_schedule(tmp_path, monkeypatch, schedule, expected):
    seen = []
    plain = Dropout.forward

    def spy(self, features):
        if self.training:
            seen.append(self.p)
        return plain(self, features)

    monkeypatch.setattr(Dropout, "forward", spy)
    places = [{"where": "layers.conv"}]
    run = train(
        config("dropout", schedule, places, p=0.4).updated({"training": {"steps": 5}}),
        tmp_path / "run",
    )
    assert seen == pytest.approx(expected)
    assert [r.p for _, r in inserted(load_classifier(run))] == [0.4]


def test_any_function_is_a_schedule_and_an_unknown_name_is_not():
    assert RateSchedule(lambda done: done**2, 101).factor(50) == 0.25
    assert RateSchedule("cosine", 101).factor(50) == pytest.approx(0.5)
    assert RateSchedule("linear", 1).factor(0) == 1.0
    with pytest.raises(ValueError, match="unknown schedule 'quadratic'; known: constant"):
        RateSchedule("quadratic", 10)


class _Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("disout", {"p": 0.3, "block_size": 2}),
        ("variational-dropout", {}),
    ],
)
def test_a_killed_run_ends_in_the_same_bits(tmp_path, name, options):
    wanted = config(name, **options).updated({"training": {"checkpoint_every": 5}})
    whole = train(wanted, tmp_path / "whole")

    def stop(step: int, record: dict[str, float]) -> None:
        if step == 8:
            raise _Killed

    with pytest.raises(_Killed):
        train(wanted, tmp_path / "killed", progress=stop)
    resumed = train(wanted, tmp_path / "killed", resume=True)
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_learned_rates_pay_their_penalty_and_are_not_decayed(tmp_path):
    wanted = config("variational-dropout").updated({"optimizer": {"weight_decay": 0.1}})
    run = train(wanted, tmp_path / "run")
    records = run.metrics()
    assert all("penalty" in record for record in records if "loss" in record)
    learned = [r for _, r in inserted(load_classifier(run))]
    assert all(r.num_examples == 100 for r in learned)
    assert all(r.p != r.initial_p for r in learned)

    from lastlayer.training.module import TrainingModule

    classifier = build_classifier(wanted, (1, 8, 8), 10, num_examples=100)
    optimizer = TrainingModule(classifier, wanted.optimizer, 10).configure_optimizers()
    groups = optimizer["optimizer"].param_groups
    rates = {id(p) for _, r in inserted(classifier) for p in r.parameters()}
    for group in groups:
        inside = [id(p) in rates for p in group["params"]]
        assert all(inside) or not any(inside)
        assert not any(inside) or group["weight_decay"] == 0.0
    assert sum(len(g["params"]) for g in groups) == len(list(classifier.parameters()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "dropout"}, "a regularizer needs places"),
        ({"name": "dropout", "places": [{"where": "x", "factor": 2.0}]}, "factor"),
        ({"name": "dropout", "places": [{"factor": 0.5}]}, "a place needs where=PATTERN or kind="),
        ({"schedule": "quadratic"}, "schedule"),
    ],
)
def test_a_wrong_section_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        RunConfig().updated({"regularizer": change})


@pytest.mark.parametrize(
    ("text", "name", "regularizer"),
    [
        ("softmax", "softmax", None),
        ("softmax+dropout", "softmax+dropout", {"name": "dropout", "options": {}}),
        (
            "softmax+disout:p=0.1,where=layer3",
            "softmax+disout",
            {"name": "disout", "options": {"p": 0.1}, "places": [{"where": "layer3"}]},
        ),
    ],
)
def test_a_variant_is_a_head_and_a_regulariser(text, name, regularizer):
    found, changes = parse_variant(text)
    assert found == name
    assert changes["head"] == {"name": "softmax", "options": {}}
    assert changes.get("regularizer") == regularizer


def test_a_number_with_a_plus_sign_is_no_second_part():
    name, changes = parse_variant("dropmax:entropy_weight=1e+1")
    assert name == "dropmax"
    assert changes["head"]["options"] == {"entropy_weight": 10.0}


@pytest.mark.parametrize("text", ["softmax+dropout+disout", "softmax+", "+dropout"])
def test_a_variant_has_one_head_and_one_regulariser(text):
    with pytest.raises(ValueError, match=r"one regularizer|needs a name"):
        parse_variant(text)


def test_a_recipe_gives_places_and_each_variant_its_options():
    recipe = Recipe(
        title="t",
        variants=("softmax", "softmax+dropout", "softmax+disout"),
        config={"regularizer": {"places": [{"where": "layers.conv"}], "schedule": "linear"}},
        variant_config={"softmax+disout": {"regularizer": {"options": {"alpha": 2.0}}}},
    )
    plain = recipe.run_config("softmax", {})
    dropout = recipe.run_config("softmax+dropout:p=0.3", {})
    disout = recipe.run_config("softmax+disout:p=0.3", {})
    assert plain.regularizer.name is None
    assert dropout.regularizer.options == {"p": 0.3}
    assert disout.regularizer.options == {"p": 0.3, "alpha": 2.0}
    assert disout.regularizer.places[0].where == "layers.conv"
    for variant in (plain, dropout, disout):
        classifier = build_classifier(variant, (1, 8, 8), 10)
        assert sum(isinstance(m, Regularizer) for m in classifier.modules()) == (
            variant.regularizer.name is not None
        )


def test_two_processes_train_one_classifier_with_regularisers(tmp_path):
    command = [sys.executable, "-m", "lastlayer.cli", "train", "--out", str(tmp_path / "run")]
    command += ["--train-size", "100", "--steps", "6", "--batch-size", "20", "--device", "cpu"]
    command += ["--head", "softmax+disout:where=layers.conv,p=0.3,block_size=2"]
    command += ["--set", "training.devices=2", "training.strategy=ddp"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "error:" not in done.stderr
    assert done.stdout.count("error") == 1  # the measure, told once
    run = RunDirectory(tmp_path / "run")
    assert run.finished
    assert [r.p for _, r in inserted(load_classifier(run))] == [0.3]


def test_the_imagenet_recipe_trains_on_a_folder_of_images(tmp_path):
    """With a small network in place of torchvision's, of the same stage names."""
    from PIL import Image

    for part, count in (("train", 6), ("val", 2)):
        for label in ("cat", "dog"):
            folder = tmp_path / "images" / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                shade = (40 * number, 90 if label == "cat" else 200, 30)
                Image.new("RGB", (40, 36), shade).save(folder / f"{number}.png")
    changes = {
        "data": {"data_dir": str(tmp_path / "images"), "options": {"size": [32, 32]}},
        "model": {"name": "preact-resnet20", "options": {"width": 4}},
        "regularizer": {
            "places": [
                {"where": "layer2.*.conv2", "position": "before", "factor": 0.25},
                {"where": ["layer3.*.bn2", "layer3.*.shortcut"]},
            ]
        },
        "training": {"steps": 3, "batch_size": 4},
    }
    recipe = Recipe.load("disout-imagenet-resnet50")
    run = train(recipe.run_config("softmax+disout", changes), tmp_path / "run")
    rates = {r.p for _, r in inserted(load_classifier(run))}
    assert rates == {0.07, 0.07 * 0.25}
    assert run.summary()["class_names"] == ["cat", "dog"]
