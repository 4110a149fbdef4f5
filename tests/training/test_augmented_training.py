"""Augmentation in a run: which draws, on which images, in which steps."""

from __future__ import annotations

import pytest
import torch

from lastlayer._random import derive_seed
from lastlayer.data import AUGMENTATIONS, RandomCrop, RandomFlip, Split, Splits
from lastlayer.training import RunConfig, train
from lastlayer.training.augmentation import SeededAugmentation, build_augmentations
from lastlayer.training.build import load_splits
from lastlayer.training.module import TrainingModule

BASE = {
    "data": {"train_size": 100, "validation_size": 100},
    "model": {"name": "digits-cnn"},
    "training": {"steps": 12, "batch_size": 20, "validate_every": 4},
}


def config(*augment, **training):
    return RunConfig().updated(BASE).updated({"training": {"augment": list(augment), **training}})


def test_draws_are_a_function_of_seed_step_and_rank():
    images = torch.rand(16, 3, 8, 8)
    augment = SeededAugmentation([RandomCrop(padding=2), RandomFlip()], seed=3)
    first = augment(images, step=5)
    augment(images, step=6)
    torch.rand(7)
    assert torch.equal(augment(images, step=5), first)
    other = SeededAugmentation(augment.augmentations, seed=4)
    for found in (augment(images, step=6), augment(images, step=5, rank=1), other(images, step=5)):
        assert not torch.equal(found, first)


def test_one_generator_of_the_derived_seed_serves_all_in_their_order():
    images = torch.rand(16, 3, 8, 8)
    generator = torch.Generator().manual_seed(derive_seed(3, "augmentation", 5, 0))
    expected = RandomCrop()(images, generator=generator)
    expected = RandomFlip()(expected, generator=generator)
    found = SeededAugmentation([RandomCrop(), RandomFlip()], seed=3)(images, step=5)
    assert torch.equal(found, expected)


@pytest.fixture
def seen(monkeypatch):
    """What the augmentations of a run were given, by step."""
    calls = []
    plain = SeededAugmentation.__call__

    def spy(self, images, *, step, rank=0):
        calls.append((step, rank, images.clone()))
        return plain(self, images, step=step, rank=rank)

    monkeypatch.setattr(SeededAugmentation, "__call__", spy)
    return calls


def test_every_training_step_is_augmented_once_and_nothing_else(tmp_path, seen):
    run = train(config("crop", "flip"), tmp_path / "run")
    assert [(step, rank) for step, rank, _ in seen] == [(step, 0) for step in range(12)]
    images = torch.cat([batch for _, _, batch in seen]).flatten(1)
    training = load_splits(run.config()).train.inputs.flatten(1)
    assert len(torch.unique(torch.cat([images, training]), dim=0)) == len(
        torch.unique(training, dim=0)
    )


def test_the_network_sees_the_changed_images(tmp_path, monkeypatch, seen):
    from lastlayer.training import module

    given = []
    plain = module._like_weights

    def spy(inputs, classifier):
        given.append(inputs.clone())
        return plain(inputs, classifier)

    monkeypatch.setattr(module, "_like_weights", spy)
    train(config({"name": "crop", "padding": 1}, validate_every=None), tmp_path / "run")
    augment = SeededAugmentation([RandomCrop(padding=1)], seed=0)
    assert len(given) == len(seen) == 12
    for inputs, (step, _, images) in zip(given, list(seen), strict=True):
        assert torch.equal(inputs, augment(images, step=step))


def test_augmentation_changes_the_weights_and_the_seed_repeats_them(tmp_path):
    plain, first, again = (
        train(settings, tmp_path / name).state_dict()
        for name, settings in {
            "plain": config(),
            "first": config("rotate"),
            "again": config("rotate"),
        }.items()
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], plain[name]) for name in first)


def test_options_reach_the_augmentation():
    built = build_augmentations(config({"name": "crop", "padding": 2}, "flip"), (1, 8, 8))
    assert built.augmentations == (RandomCrop(padding=2), RandomFlip())
    assert build_augmentations(config(), (1, 8, 8)) is None


def test_a_third_partys_augmentation_is_named_like_ours(monkeypatch):
    monkeypatch.setattr(AUGMENTATIONS, "_parts", {**AUGMENTATIONS._parts, "theirs": RandomFlip})
    built = build_augmentations(config({"name": "theirs", "p": 0.25}), (1, 8, 8))
    assert built.augmentations == (RandomFlip(p=0.25),)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("crops", "unknown augmentation 'crops'"),
        ({"name": "crop", "pad": 2}, "augmentation 'crop' has no option 'pad'"),
        ({"name": "flip", "p": 2}, "p must lie in"),
    ],
)
def test_what_cannot_be_built_ends_the_run_before_it_begins(tmp_path, monkeypatch, entry, message):
    monkeypatch.setattr(TrainingModule, "training_step", None)
    with pytest.raises(ValueError, match=message):
        train(config(entry), tmp_path / "run")


def test_vectors_cannot_be_augmented(tmp_path):
    half = Split(torch.rand(6, 5), torch.arange(6) % 2)
    splits = Splits("toy", half, None, half, ("no", "yes"), "vector")
    settings = RunConfig().updated({"training": {"augment": ["flip"], "steps": 2}})
    with pytest.raises(ValueError, match=r"training\.augment is for images .* shape \(5,\)"):
        train(settings, tmp_path / "run", splits=splits)


def test_the_command_line_takes_names_and_options(tmp_path, lastlayer):
    out = tmp_path / "run"
    words = ["train", "--head", "softmax", "--out", out, "--train-size", 50, "--steps", 3]
    words += ["--set", 'training.augment=["flip", {name = "crop", padding = 1}]']
    words += ["optimizer.schedule=step", "optimizer.warmup=2"]
    printed = lastlayer(*words)
    assert printed.status == 0, printed.err
    stored = RunConfig.from_toml(out / "config.toml")
    assert stored.training.augment == ("flip", {"name": "crop", "padding": 1})
    assert stored.optimizer.warmup == 2
    assert "rotate" in lastlayer("list", "augmentations").out
