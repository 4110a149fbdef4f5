"""Inputs and labels from whatever holds them."""

import re

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lastlayer.data import Split
from lastlayer.incremental.examples import as_inputs, as_labels, labelled_examples

INPUTS = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])


class Images(Dataset):
    """Pairs as image data sets give them."""

    def __init__(self, label=int, image=torch.from_numpy):
        self.pixels = np.arange(3 * 2 * 4 * 4, dtype=np.float32).reshape(3, 2, 4, 4)
        self.label, self.image = label, image

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.image(self.pixels[index]), self.label(index % 2)


@pytest.mark.parametrize(
    "inputs",
    [
        INPUTS,
        INPUTS.double(),
        INPUTS.long(),
        INPUTS.clone().requires_grad_(),
        INPUTS.numpy(),
        INPUTS.numpy().astype(np.uint8),
        INPUTS.tolist(),
        tuple(map(tuple, INPUTS.int().tolist())),
        [*INPUTS],
    ],
    ids=str,
)
def test_inputs_become_the_same_float32_tensor(inputs):
    found = as_inputs(inputs)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert torch.equal(found, INPUTS)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (torch.tensor([3, 1]), [3, 1]),
        (torch.tensor([3, 1], dtype=torch.uint8), [3, 1]),
        (np.array([3, 1], dtype=np.int16), [3, 1]),
        (np.array(["b", "a"]), ["b", "a"]),
        (np.array(["b", 1], dtype=object), ["b", 1]),
        ([np.int64(3), np.str_("a")], [3, "a"]),
        ([torch.tensor(3), np.array(1)], [3, 1]),
        ((3, "3"), [3, "3"]),
        (iter([3, 1]), [3, 1]),
        ([], []),
    ],
    ids=lambda given: re.sub(r" at 0x\w+", "", repr(given)),
)
def test_labels_become_plain_numbers_and_words(labels, expected):
    found = as_labels(labels)
    assert found == expected
    assert all(type(label) in (int, str) for label in found)


@pytest.mark.parametrize(
    "labels",
    [
        [0.0],
        torch.tensor([1.0]),
        np.array([1.5]),
        [True],
        torch.tensor([True]),
        [None],
        [[1, 2]],
        torch.tensor([[1]]),
        [torch.tensor([1, 2])],
        [b"a"],
        torch.tensor(3),
        np.int64(3),
        3,
        "cat",
        None,
    ],
    ids=lambda given: re.sub(r" at 0x\w+", "", repr(given)),
)
def test_what_is_no_label_is_refused(labels):
    with pytest.raises(TypeError, match=r"labels must be (whole numbers or strings|a sequence)"):
        as_labels(labels)


@pytest.mark.parametrize(
    "label",
    [int, np.int64, torch.tensor, lambda k: np.array(k), lambda k: torch.tensor(k).to(torch.int8)],
    ids=["int", "numpy", "tensor", "array", "int8"],
)
@pytest.mark.parametrize("image", [torch.from_numpy, np.asarray, np.ndarray.tolist])
def test_a_data_set_of_images_gives_its_images_and_labels(label, image):
    inputs, labels = labelled_examples(Images(label, image))
    assert torch.equal(inputs, torch.from_numpy(Images().pixels))
    assert labels == [0, 1, 0]
    assert all(type(each) is int for each in labels)


def test_data_sets_and_splits_are_as_tensors():
    target = torch.tensor([5, 6, 5])
    expected = (INPUTS, [5, 6, 5])
    for given in (
        (INPUTS, target),
        (Split(INPUTS, target),),
        (TensorDataset(INPUTS, target),),
        (list(zip(INPUTS, target, strict=True)),),
        ([[x, int(y)] for x, y in zip(INPUTS, target, strict=True)],),
        (torch.utils.data.Subset(TensorDataset(INPUTS, target), [0, 1, 2]),),
    ):
        inputs, labels = labelled_examples(*given)
        assert torch.equal(inputs, expected[0])
        assert labels == expected[1]


def test_labels_of_both_kinds_may_be_mixed():
    assert labelled_examples(INPUTS, ["cat", 1, np.int64(2)])[1] == ["cat", 1, 2]


@pytest.mark.parametrize(
    ("data", "target", "error", "message"),
    [
        (INPUTS, [0, 1], ValueError, "3 inputs but 2 labels"),
        (INPUTS[0], [0, 1], ValueError, r"shape \(N, ...\).*got \(2,\)"),
        (INPUTS[:0], [], ValueError, "at least one example; got none"),
        (INPUTS[:0], [0], ValueError, r"at least one example; got \(0, 2\)"),
        (INPUTS / 0, [0, 1, 2], ValueError, "example 0 holds NaN or infinity"),
        (Split(INPUTS, torch.arange(3)), [0, 1, 2], ValueError, "holds its labels; got target"),
        (INPUTS, None, TypeError, r"\(input, label\) pairs; it gave Tensor"),
        ([(INPUTS[0], 1, 2)], None, TypeError, r"it gave tuple of 3; several .* \(\(a, b\), lab"),
        ([], None, ValueError, "at least one example; got none"),
        (7, None, TypeError, "with a length; got int"),
        (
            [(INPUTS[0], 1), (INPUTS[0, :1], 1)],
            None,
            ValueError,
            r"one shape and dtype; got float32 of shape \(2,\) and float32 of shape \(1,\)",
        ),
        ([("a", 1)], None, TypeError, "can't convert"),
    ],
)
def test_what_is_no_task_is_refused(data, target, error, message):
    with pytest.raises(error, match=message):
        labelled_examples(data, target)


IDS = torch.tensor([[5, 6], [7, 8], [9, 1]])
SEVERAL = {
    "a tensor": (INPUTS, [(x,) for x in INPUTS]),
    "two of them": ((IDS, INPUTS), [((i, x),) for i, x in zip(IDS, INPUTS, strict=True)]),
    "by name": (
        {"ids": IDS, "mask": IDS > 5, "x": INPUTS},
        [({"ids": i, "mask": i > 5, "x": x},) for i, x in zip(IDS, INPUTS, strict=True)],
    ),
}


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.equal(other)
    if isinstance(one, tuple):
        pairs = zip(one, other, strict=True)
        return isinstance(other, tuple) and all(same(*pair) for pair in pairs)
    return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("inputs", "rows"), SEVERAL.values(), ids=SEVERAL)
@pytest.mark.parametrize("labels", [[3, 4, 3], ["a", "b", "a"]], ids=["numbers", "words"])
def test_inputs_are_the_same_whatever_holds_them(inputs, rows, labels):
    pairs = [(x, y) for (x,), y in zip(rows, labels, strict=True)]
    holders = [(inputs, labels), (pairs,), (DataLoader(pairs, 2),)]
    if isinstance(inputs, dict):
        for key in ("label", "labels", "target", "targets"):
            named = [x | {key: y} for x, y in pairs]
            holders += [(named,), (DataLoader(named, 2),), ({**inputs, key: labels},)]
    for held in holders:
        found, of = labelled_examples(*held)
        assert same(found, inputs)
        assert of == labels


def test_integers_of_one_tensor_stay_where_they_are_wanted():
    for ids in (IDS, IDS.int(), IDS.tolist(), IDS.numpy()):
        assert same(as_inputs(ids, keep_integers=True), IDS)
        assert same(as_inputs(ids), IDS.float())
    assert same(as_inputs(IDS.byte(), keep_integers=True), IDS.float())  # as of images


@pytest.mark.parametrize(
    ("data", "target", "error", "message"),
    [
        (DataLoader([], 2), None, ValueError, "at least one example; got none"),
        (DataLoader([(INPUTS[0], 1)], 2), [1], ValueError, "a DataLoader, which yields its labels"),
        (DataLoader([INPUTS[0]], 2), None, TypeError, "pairs; it gave Tensor"),
        ([{"x": INPUTS[0]}], None, ValueError, r"under one of labels, label.* keys are \['x'\]"),
        ([{"x": INPUTS[0], "label": 0, "target": 1}], None, ValueError, "must hold its labels"),
        ([({"x": INPUTS[0]}, 0), ({"z": INPUTS[0]}, 0)], None, ValueError, "x: .* and z: "),
        ({"x": INPUTS, "n": IDS[:2]}, [0, 1, 2], ValueError, r"inputs\['x'\]: 3, inputs\['n'\]: 2"),
        ({"x": ["one", "two"]}, [0, 1], TypeError, r"inputs\['x'\] must hold numbers"),
        ({"x": [[1], [1, 2]]}, [0, 1], ValueError, r"inputs\['x'\] must hold numbers of one shape"),
        ({"x": INPUTS / 0}, [0, 1, 2], ValueError, r"inputs\['x'\] must be finite; example 0"),
        ({}, [0], ValueError, "no tensor"),
        (tuple(INPUTS), [0, 1, 2], ValueError, "2 inputs but 3 labels; a tuple is several inputs"),
    ],
)
def test_inputs_that_do_not_fit_together_are_refused(data, target, error, message):
    with pytest.raises(error, match=message):
        labelled_examples(data, target)


def test_a_loader_holds_labels_so_it_is_no_input():
    with pytest.raises(TypeError, match="without labels; got a DataLoader"):
        as_inputs(DataLoader([(INPUTS[0], 1)]))


def test_inputs_of_another_shape_are_told_apart():
    assert as_inputs(INPUTS, torch.empty(0, 2)).shape == (3, 2)
    wanted = r"float32 of shape \(3,\) each, as those learned; got float32 of shape \(2,\)"
    with pytest.raises(ValueError, match=wanted):
        as_inputs(INPUTS, torch.empty(0, 3))
    with pytest.raises(ValueError, match=r"shape \(1, 2\) each"):
        labelled_examples(INPUTS, [0, 1, 2], torch.empty(0, 1, 2))
