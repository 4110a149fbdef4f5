"""The hub source against a stand-in for the library ``datasets``; nothing is fetched."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from lastlayer.data import load


class Value:
    def __init__(self, dtype):
        self.dtype = dtype


class Image:
    pass


class ClassLabel:
    def __init__(self, *names):
        self.names = list(names)


class Part:
    """One split: columns with their types."""

    def __init__(self, features, **columns):
        self.features = features
        self.columns = columns

    def __getitem__(self, column):
        return self.columns[column]


@pytest.fixture
def hub(monkeypatch):
    """Return a function that makes ``datasets.load_dataset`` give these splits."""
    module = types.ModuleType("datasets")
    monkeypatch.setitem(sys.modules, "datasets", module)
    calls = []

    def give(**parts):
        def load_dataset(*args, **kwargs):
            calls.append((args, kwargs))
            return parts

        module.load_dataset = load_dataset
        return calls

    return give


def pictures(count):
    rng = np.random.default_rng(count)
    return [PillowImage.fromarray(rng.integers(0, 256, (4, 5), np.uint8)) for _ in range(count)]


PICTURE_FEATURES = {"image": Image(), "label": ClassLabel("ant", "bee")}
TEXT_FEATURES = {"text": Value("string"), "label": ClassLabel("ant", "bee"), "id": Value("int64")}


def picture_part(count):
    return Part(PICTURE_FEATURES, image=pictures(count), label=[row % 2 for row in range(count)])


def text_part(count):
    texts = [f"{('ants', 'bees')[row % 2]} are small" for row in range(count)]
    return Part(TEXT_FEATURES, text=texts, label=[row % 2 for row in range(count)], id=[0] * count)


def test_images_and_labels_are_found_by_type(hub):
    calls = hub(train=picture_part(6), test=picture_part(4))
    splits = load("hub:some/pets", options={"grayscale": True, "config": "small"})
    assert calls == [(("some/pets", "small"), {"revision": None, "cache_dir": None})]
    assert splits.name == "hub:some/pets"
    assert splits.class_names == ("ant", "bee")
    expected = np.stack([np.asarray(picture) for picture in pictures(6)])[:, None] / 255
    np.testing.assert_allclose(splits.train.inputs.numpy(), expected, rtol=1e-6)
    assert splits.notes == ()


def test_texts_become_vectors_with_their_vocabulary(hub, tmp_path):
    calls = hub(train=text_part(6), validation=text_part(4))
    splits = load("hub:texts", data_dir=tmp_path)
    assert calls[0][1]["cache_dir"] == str(tmp_path)
    assert {"ants", "bees", "are small"} <= set(splits.extras["vocabulary"])
    assert (len(splits.test), splits.notes) == (4, ("The test part is the split 'validation'.",))


def test_without_a_test_split_one_is_set_apart(hub):
    hub(train=picture_part(20))
    splits = load("hub:pets")
    assert (len(splits.train), len(splits.test)) == (16, 4)
    assert "set apart" in splits.notes[0]


def test_labels_that_are_strings_are_numbered(hub):
    features = {"text": Value("string"), "topic": Value("string")}
    part = Part(features, text=["red fish", "red bird"] * 3, topic=["fish", "bird"] * 3)
    hub(train=part, test=part)
    splits = load("hub:topics", options={"label_column": "topic"})
    assert splits.class_names == ("bird", "fish")
    assert torch.equal(splits.test.target, torch.tensor([1, 0] * 3))


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (
            {"a": Image(), "b": Image(), "y": ClassLabel("x", "z")},
            {},
            "option input_column; cand.* a, b",
        ),
        ({"a": Value("int64"), "y": ClassLabel("x", "z")}, {}, "option input_column; no candidate"),
        ({"a": Image(), "y": Value("int64")}, {}, "option label_column; no candidate among a, y"),
        (
            {"a": Image(), "y": ClassLabel("x", "z")},
            {"label_column": "q"},
            "no column 'q'; found a, y",
        ),
    ],
)
def test_columns_that_cannot_be_told_are_asked_for(hub, features, options, message):
    hub(train=Part(features), test=Part(features))
    with pytest.raises(ValueError, match=message):
        load("hub:pets", options=options)


def test_examples_without_a_label_are_refused(hub):
    blind = Part(TEXT_FEATURES, text=["red fish"], label=[-1])
    hub(train=text_part(6), test=blind, validation=text_part(4))
    with pytest.raises(ValueError, match="without a label; choose another test_split"):
        load("hub:texts")
    assert len(load("hub:texts", options={"test_split": "validation"}).test) == 4


def test_a_split_that_is_not_there_is_named(hub):
    hub(train=text_part(6))
    with pytest.raises(ValueError, match="no split 'dev'; found train"):
        load("hub:texts", options={"test_split": "dev"})


def test_without_the_extra_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install lastlayer\[hub\]"):
        load("hub:texts")


def test_the_data_set_must_be_named():
    with pytest.raises(ValueError, match="as in hub:NAME"):
        load("hub")
