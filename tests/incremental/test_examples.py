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
        ([(INPUTS[0], 1, 2)], None, TypeError, r"\(input, label\) pairs; it gave tuple"),
        ([], None, ValueError, "at least one example; got none"),
        (7, None, TypeError, "with a length; got int"),
        ([(INPUTS[0], 1), (INPUTS[0, :1], 1)], None, ValueError, r"one shape; got \(2,\) and \(1"),
        ([("a", 1)], None, TypeError, "can't convert"),
    ],
)
def test_what_is_no_task_is_refused(data, target, error, message):
    with pytest.raises(error, match=message):
        labelled_examples(data, target)


def test_a_loader_is_no_data_set():
    loader = DataLoader(TensorDataset(INPUTS, torch.arange(3)), 2)
    with pytest.raises(TypeError, match="with a length; got DataLoader"):
        labelled_examples(loader)


def test_inputs_of_another_shape_are_told_apart():
    assert as_inputs(INPUTS, (2,)).shape == (3, 2)
    with pytest.raises(ValueError, match=r"shape \(3,\) each, as those learned; got \(2,\)"):
        as_inputs(INPUTS, (3,))
    with pytest.raises(ValueError, match=r"shape \(1, 2\) each"):
        labelled_examples(INPUTS, [0, 1, 2], shape=(1, 2))
