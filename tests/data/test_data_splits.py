"""Split and Splits refuse what training could not use."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lastlayer.data import Split, Splits

NAMES = ("ant", "bee")


def vectors(*labels: int, inputs: torch.Tensor | None = None) -> Split:
    inputs = torch.zeros(len(labels), 3) if inputs is None else inputs
    return Split(inputs, torch.tensor(labels))


@pytest.mark.parametrize(
    ("inputs", "target", "error", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(3).long(), ValueError, "2 inputs but 3 labels"),
        (torch.zeros(2, 3).double(), torch.zeros(2).long(), TypeError, "must be float32"),
        (torch.zeros(2, 3), torch.zeros(2).int(), TypeError, "target must be int64"),
        (torch.zeros(2, 3), torch.zeros(2, 1).long(), TypeError, r"of shape \(2, 1\)"),
        (torch.zeros(0, 3), torch.zeros(0).long(), ValueError, "at least one example"),
        (torch.tensor([[0.0], [torch.nan]]), torch.zeros(2).long(), ValueError, "example 1 holds"),
        (torch.tensor([[torch.inf], [0.0]]), torch.zeros(2).long(), ValueError, "example 0 holds"),
    ],
)
def test_split_refuses(inputs, target, error, message):
    with pytest.raises(error, match=message):
        Split(inputs, target)


def test_splits_derives_classes_and_shape():
    splits = Splits("toy", vectors(0, 1), None, vectors(1), NAMES, "vector")
    assert (splits.num_classes, splits.input_shape, len(splits.train)) == (2, (3,), 2)


def test_splits_is_frozen():
    splits = Splits("toy", vectors(0, 1), None, vectors(1), NAMES, "vector")
    with pytest.raises(dataclasses.FrozenInstanceError):
        splits.name = "other"


def test_a_class_without_training_example_is_named():
    with pytest.raises(ValueError, match=r"train split: class 'bee' \(label 1\) has no example"):
        Splits("toy", vectors(0, 0), None, vectors(1), NAMES, "vector")


@pytest.mark.parametrize("label", [-1, 2])
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_label_out_of_range_is_named_with_its_split(part, label):
    parts = {"train": vectors(0, 1), "validation": vectors(0), "test": vectors(1)}
    parts[part] = vectors(0, 1, label)
    with pytest.raises(ValueError, match=rf"{part} split.*\[0, 1\]; example 2 has label {label}"):
        Splits("toy", **parts, class_names=NAMES, kind="vector")


@pytest.mark.parametrize(
    ("kind", "train", "test", "message"),
    [
        ("vector", torch.zeros(2, 3), torch.zeros(2, 4), r"inputs must have shape \(3,\) each"),
        ("vector", torch.zeros(2, 3, 1), torch.zeros(2, 3, 1), r"vectors must be \(N, D\)"),
        ("image", torch.zeros(2, 3), torch.zeros(2, 3), r"images must be \(N, C, H, W\)"),
        ("image", torch.full((2, 1, 1, 1), 1.5), torch.zeros(2, 1, 1, 1), "values 1.5 to 1.5"),
        ("image", torch.zeros(2, 1, 1, 1), torch.full((2, 1, 1, 1), -1.0), "test split.*-1 to -1"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(kind, train, test, message):
    with pytest.raises(ValueError, match=message):
        Splits("toy", vectors(0, 1, inputs=train), None, vectors(0, 1, inputs=test), NAMES, kind)


def test_one_class_is_not_enough():
    with pytest.raises(ValueError, match="at least two classes"):
        Splits("toy", vectors(0), None, vectors(0), ("ant",), "vector")
