"""class_counts of whatever holds labels, against a count of what the data set yields."""

from collections import Counter, UserDict

import numpy as np
import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from lastlayer.data import Split, Splits
from lastlayer.longtail import class_counts


class Pairs(Dataset):
    def __init__(self, labels):
        self.hidden = labels

    def __len__(self):
        return len(self.hidden)

    def __getitem__(self, index):
        if index >= len(self.hidden):
            raise IndexError
        return torch.zeros(2), int(self.hidden[index])


class WithTargets(Pairs):
    def __init__(self, labels):
        super().__init__([9] * len(labels))
        self.targets = list(labels)


TAIL = [0, 2, 2, 0, 0]
TENSORS = TensorDataset(torch.zeros(5, 2), torch.tensor(TAIL))
SOURCES = {
    "tensor": torch.tensor(TAIL),
    "matrix": torch.tensor([TAIL]),
    "list": TAIL,
    "split": Split(torch.zeros(5, 2), torch.tensor(TAIL)),
    "tensors": TENSORS,
    "pairs": Pairs(TAIL),
    "targets": WithTargets(TAIL),
    "subset": Subset(Pairs([1, *TAIL]), [1, 2, 3, 4, 5]),
    "subset of tensors": Subset(
        TensorDataset(torch.zeros(6), torch.tensor([1, *TAIL])), range(1, 6)
    ),
    "two": ConcatDataset([Pairs(TAIL[:2]), WithTargets(TAIL[2:])]),
    "loader": DataLoader(TENSORS, batch_size=2, shuffle=True, drop_last=True),
}


@pytest.mark.parametrize("data", SOURCES.values(), ids=SOURCES)
def test_labels_are_counted_wherever_they_are(data):
    counts = class_counts(data, num_classes=4)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [3, 0, 2, 0]
    assert class_counts(data).tolist() == [3, 0, 2]


def test_splits_are_counted_by_their_training_part_with_their_classes():
    train = Split(torch.zeros(3, 1), torch.tensor([0, 1, 1]))
    test = Split(torch.zeros(1, 1), torch.tensor([0]))
    assert class_counts(Splits("toy", train, None, test, ("a", "b"), "vector")).tolist() == [1, 2]


def test_what_holds_no_labels_is_refused():
    with pytest.raises(TypeError, match="labels must be integers"):
        class_counts(torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 1\]; got 2"):
        class_counts([0, 2], num_classes=2)
    with pytest.raises(ValueError, match="num_classes must be given"):
        class_counts([])
    with pytest.raises(TypeError, match="data must hold labels"):
        class_counts(3)
    with pytest.raises(ValueError, match="num_classes must be"):
        class_counts([0, 1], num_classes=-1)


def counted(data):
    """Count what the data set yields, one example after another."""
    found = Counter(int(data[i][1]) for i in range(len(data)))
    return [found[label] for label in range(max(found) + 1)]


class Kept(Dataset):
    """A data set as torchvision has them: labels beside the examples, and transforms of both."""

    def __init__(self, targets, target_transform=None, transforms=None):
        self.targets, self.target_transform, self.transforms = targets, target_transform, transforms

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        inputs, target = torch.full((2,), index), int(self.targets[index])
        if self.target_transform is not None:
            target = self.target_transform(target)
        if self.transforms is not None:
            return self.transforms(inputs, target)
        return inputs, target


class Separate:
    """torchvision's StandardTransform: what a data set makes of two transforms of its own."""

    def __init__(self, target_transform):
        self.target_transform = target_transform

    def __call__(self, inputs, target):
        return inputs, target


LABELS = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3]
HALVED = {
    "a target transform": Kept(LABELS, lambda label: label // 2),
    "of a tensor": Kept(torch.tensor(LABELS), lambda label: label // 2),
    "to tensors": Kept(LABELS, lambda label: torch.tensor(label // 2)),
    "as torchvision": Kept(LABELS, lambda label: label // 2, Separate(lambda label: label // 2)),
    "of input and label": Kept(LABELS, transforms=lambda inputs, label: (inputs, label // 2)),
}


@pytest.mark.parametrize("data", HALVED.values(), ids=HALVED)
def test_a_target_transform_is_counted_as_the_loader_gives_it(data):
    assert class_counts(data).tolist() == counted(data) == [5, 5]
    part = Subset(data, [9, 0, 4])
    assert class_counts(part).tolist() == counted(part) == [2, 1]
    two = ConcatDataset([part, data])
    assert class_counts(DataLoader(two, 4)).tolist() == counted(two) == [7, 6]


def test_examples_are_read_only_where_no_labels_are_kept():
    class Unreadable(Kept):
        def __getitem__(self, index):
            raise AssertionError("read")

    halved = Unreadable(LABELS, lambda label: label // 2)
    assert class_counts(Subset(halved, range(5))).tolist() == [5]

    class Sparing(Kept):
        targets = None

        def __init__(self):
            self.read = []

        def __len__(self):
            return 100

        def __getitem__(self, index):
            self.read.append(index)
            return torch.zeros(1), index % 2

    sparing = Sparing()
    assert class_counts(Subset(sparing, [3, 8])).tolist() == [1, 1]
    assert sorted(sparing.read) == [3, 8]


def test_an_attribute_of_another_meaning_is_no_label():
    """Names of classes, a mask, and counts, none of them one whole number an example."""
    for name, value in (
        ("labels", ["cat", "dog"]),
        ("targets", torch.ones(5, dtype=torch.bool)),
        ("target", [7, 7]),
        ("labels", {"cat": 0}),
        ("targets", None),
    ):
        data = Pairs(TAIL)
        setattr(data, name, value)
        assert class_counts(data).tolist() == counted(data) == [3, 0, 2]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(1), 0), (torch.zeros(1), 1), (torch.zeros(1), 1)])


def mapping(label):
    return {"ids": torch.tensor([5, 6]), "mask": torch.tensor([1, 1]), "label": label}


def test_mappings_streams_arrays_and_several_inputs_are_counted():
    ids = torch.tensor([[5, 6, 0], [7, 0, 0], [8, 9, 1]])
    labels = torch.tensor([0, 1, 1])
    for data in (
        [mapping(0), mapping(1), mapping(1)],
        [UserDict(mapping(0)), UserDict(mapping(torch.tensor(1))), UserDict(mapping(np.int64(1)))],
        {"ids": ids, "labels": labels},
        UserDict(data=ids.numpy(), target=labels.numpy(), target_names=["a", "b"]),
        Stream(),
        labels.numpy(),
        labels.numpy().astype(np.int32),
        TensorDataset(ids, ids > 0, labels),
        TensorDataset(ids, ids, labels),
        DataLoader([mapping(0), mapping(1), mapping(1)], 2),
        [(torch.zeros(3), np.int64(0), 17), (torch.zeros(3), 1, 18), (torch.zeros(3), 1, 19)],
        [(ids, labels)],  # a batch
        [{"ids": ids, "labels": labels}],
    ):
        assert class_counts(data).tolist() == [1, 2]


def test_empty_parts_have_no_example_of_any_class():
    for data in (Subset(Pairs(TAIL), []), Subset(Kept(LABELS), []), Subset(TENSORS, [])):
        assert class_counts(data, num_classes=3).tolist() == [0, 0, 0]
        with pytest.raises(ValueError, match="num_classes must be given"):
            class_counts(data)


def test_labels_that_are_no_whole_numbers_are_named():
    ids = torch.zeros(3, 4, dtype=torch.int64)
    for data, message in (
        (["cat", "dog"], "labels must be integers; got 'cat'"),
        ([(0.0, "cat")], "labels must be integers; got 'cat'"),
        (np.array(["cat"]), "labels must be integers"),
        ([mapping(0.5)], "labels must be integers; got torch.float"),
        ([mapping(torch.eye(3, dtype=torch.int64)[0])], r"one whole number .* shape \(3,\)"),
        ([(ids[0], ids[0] > 0, 1)], r"one whole number .* shape \(4,\)"),
        (Kept([0, 1], lambda label: torch.eye(2).long()[label]), r"one whole .* shape \(2,\)"),
        (TensorDataset(ids), "one tensor of labels behind"),
        (TensorDataset(ids, ids[:, 0], torch.arange(3)), "2 could be: give the labels"),
    ):
        with pytest.raises(TypeError, match=message):
            class_counts(data)
    with pytest.raises(ValueError, match="must hold its labels under one of labels, label"):
        class_counts({"train": Pairs(TAIL), "test": Pairs(TAIL)})
