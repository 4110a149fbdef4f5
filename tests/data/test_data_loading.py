"""load: draws, seeds, statistics, errors, on the bundled digits."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lastlayer.data import SOURCES, Examples, Raw, load


def rows(split) -> list[bytes]:
    return [image.tobytes() for image in split.inputs.numpy()]


def test_digits_have_1297_and_500_images_of_8x8_in_the_unit_interval():
    splits = load("digits")
    assert (len(splits.train), splits.validation, len(splits.test)) == (1297, None, 500)
    assert splits.input_shape == (1, 8, 8)
    assert splits.kind == "image"
    assert (splits.train.inputs.min(), splits.train.inputs.max()) == (0.0, 1.0)
    assert splits.class_names == tuple("0123456789")


def test_digits_splits_hold_every_bundled_image_once_with_its_label():
    bunch = load_digits()
    splits = load("digits")
    bundled = sorted(
        zip(bunch.images.astype(np.float32).reshape(-1, 64).tolist(), bunch.target, strict=True)
    )
    found = [
        (image, label)
        for split in (splits.train, splits.test)
        for image, label in zip(
            (split.inputs.reshape(-1, 64) * 16).tolist(), split.target.tolist(), strict=True
        )
    ]
    assert sorted(found) == bundled


def test_digits_may_have_as_many_test_images_of_every_class():
    options = {"test_per_class": 34}
    splits = load("digits", options=options)
    assert torch.bincount(splits.test.target).tolist() == [34] * 10
    assert int(torch.bincount(splits.train.target).min()) == 140
    assert torch.equal(splits.test.inputs, load("digits", seed=3, options=options).test.inputs)
    rows = {row.numpy().tobytes() for row in splits.train.inputs}
    assert len(splits.train) + len(splits.test) == 1797
    assert not rows & {row.numpy().tobytes() for row in splits.test.inputs}
    for wrong in (0, 174):
        with pytest.raises(ValueError, match=r"test_per_class must lie in \[1, 173\]"):
            load("digits", options={"test_per_class": wrong})


def test_digits_test_part_is_always_the_same():
    test = load("digits", seed=0).test
    content = (test.inputs * 16).to(torch.uint8).numpy().tobytes() + bytes(test.target.tolist())
    assert hashlib.sha256(content).hexdigest()[:16] == "0a836ea0963d278f"
    assert torch.equal(test.inputs, load("digits", seed=7, train_size=20).test.inputs)


def test_digits_test_part_keeps_the_proportions():
    splits = load("digits")
    both = torch.bincount(splits.train.target) + torch.bincount(splits.test.target)
    assert (torch.bincount(splits.test.target) - both * 500 / 1797).abs().max() < 1


def test_train_size_draws_equal_classes_with_the_remainder_spread():
    counts = torch.bincount(load("digits", train_size=103).train.target)
    assert sorted(counts.tolist()) == [10] * 7 + [11] * 3


def test_validation_is_balanced_and_shares_no_example_with_train_or_test():
    splits = load("digits", train_size=100, validation_size=205)
    counts = torch.bincount(splits.validation.target)
    assert sorted(counts.tolist()) == [20] * 5 + [21] * 5
    everything = load("digits")
    ours, available = rows(splits.train) + rows(splits.validation), rows(everything.train)
    assert all(ours.count(row) <= available.count(row) for row in ours)
    assert not set(ours) & set(rows(everything.test))


def test_without_train_size_validation_keeps_the_proportions_and_train_the_rest():
    splits, everything = load("digits", validation_size=297), load("digits")
    assert (len(splits.train), len(splits.validation)) == (1000, 297)
    assert sorted(rows(splits.train) + rows(splits.validation)) == sorted(rows(everything.train))
    share = torch.bincount(everything.train.target) * 297 / 1297
    assert (torch.bincount(splits.validation.target) - share).abs().max() < 1


def test_validation_size_does_not_change_the_train_subset():
    train = [load("digits", train_size=50, validation_size=n).train for n in (0, 10, 500)]
    assert all(torch.equal(train[0].inputs, other.inputs) for other in train[1:])


def test_a_fraction_is_of_the_source_training_examples():
    assert len(load("digits", train_size=50, validation_size=0.25).validation) == round(1297 / 4)


@pytest.mark.parametrize(("train_size", "size"), [(None, 130), (100, 100), (1000, 148)])
def test_by_default_a_tenth_is_held_out_or_as_many_as_train_but_half_of_the_rest(train_size, size):
    """Of the 1,297: 129.7; 100 as there is room; (1297 - 1000) / 2."""
    splits = load("digits", train_size=train_size, validation_size=None)
    assert len(splits.validation) == size
    assert len(splits.train) == (1297 - size if train_size is None else train_size)


def test_the_seed_fixes_both_draws_and_another_seed_changes_them():
    first, again, other = (
        load("digits", train_size=50, validation_size=50, seed=seed) for seed in (1, 1, 2)
    )
    for part in ("train", "validation"):
        same = getattr(first, part).inputs
        assert torch.equal(same, getattr(again, part).inputs)
        assert not torch.equal(same, getattr(other, part).inputs)


def test_drawing_leaves_the_global_seeds_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    load("digits", train_size=50, validation_size=50)
    assert torch.equal(state, torch.get_rng_state())


def test_mean_and_std_are_those_of_the_train_split():
    splits = load("digits", train_size=100, validation_size=100)
    inputs = splits.train.inputs.double().numpy()
    np.testing.assert_allclose(splits.mean, inputs.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(splits.std, inputs.std(axis=(0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_size": 5}, "train_size must be at least 10, one example of each class; got 5"),
        ({"train_size": 100.0}, "train_size must be an int or None; got 100.0"),
        ({"train_size": True}, "train_size must be an int or None"),
        ({"train_size": 1290}, "train_size 1290 needs at least 129 .* class '8' has 126"),
        ({"train_size": 9999}, "train_size 9999 needs"),
        ({"train_size": 1000, "validation_size": 298}, "298 is too large: 297 of 1297"),
        ({"validation_size": 1297}, "cannot take 1297 of 1297 examples"),
        ({"validation_size": -1}, "validation_size must be a count of at least 0"),
        ({"validation_size": True}, "validation_size must be"),
        ({"validation_size": 1.0}, "as a float is a fraction"),
        ({"validation_size": float("nan")}, "as a float is a fraction"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"options": {"size": 8}}, "'digits' has no option 'size'; its options: test_per_class"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load("digits", **arguments)


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"unknown data source 'digit'. Did you mean 'digits'"):
        load("digit")


def test_every_source_has_a_description():
    described = SOURCES.describe()
    assert list(described)[:4] == ["digits", "mnist", "fashion-mnist", "kmnist"]
    assert all(described.values())


@pytest.fixture
def third_party(monkeypatch):
    """Let a test add a source for its own time."""
    monkeypatch.setattr(SOURCES, "_parts", dict(SOURCES._parts))
    monkeypatch.setattr(SOURCES, "_descriptions", dict(SOURCES._descriptions))
    return SOURCES


def test_a_source_of_another_package_is_loaded_by_name(third_party):
    @third_party.register("theirs", description="two vectors")
    def theirs(data_dir=None, *, value=0.0):
        examples = Examples(torch.full((2, 3), value), torch.tensor([0, 1]))
        return Raw(train=examples, test=examples, class_names=("a", "b"), kind="vector")

    splits = load("theirs", options={"value": 2.0})
    assert splits.mean is None
    assert splits.train.inputs.unique().tolist() == [2.0]


def test_a_source_with_a_bad_label_is_refused_before_the_draw(third_party):
    @third_party.register("bad", description="a label too many")
    def bad(data_dir=None):
        examples = Examples(torch.zeros(3, 3), torch.tensor([0, 1, 2]))
        return Raw(train=examples, test=examples, class_names=("a", "b"), kind="vector")

    with pytest.raises(ValueError, match=r"bad, training part: .* example 2 has label 2"):
        load("bad", train_size=2)


def test_a_source_with_no_example_is_refused():
    with pytest.raises(ValueError, match="at least one example"):
        Examples(torch.zeros(0, 3), torch.zeros(0).long())
