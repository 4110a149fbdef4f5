"""Long-tailed subsets: exact counts, the same in every stage; labels counted wherever they are."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from lastlayer.data import Split, Splits
from lastlayer.longtail import (
    class_counts,
    exponential_counts,
    long_tail_counts,
    long_tail_indices,
    long_tail_subset,
)

LABELS = torch.arange(10).repeat(50)[
    torch.randperm(500, generator=torch.Generator().manual_seed(0))
]
INPUTS = torch.arange(500.0)[:, None]
SPLIT = Split(INPUTS, LABELS)


def test_the_subset_has_the_profiles_counts_in_label_order():
    part = long_tail_subset(SPLIT, 10)
    assert class_counts(part).tolist() == exponential_counts(10, 50, 10)
    rows = part.inputs[:, 0].long()
    assert torch.equal(LABELS[rows], part.target)
    assert (rows.diff() > 0).all()


def test_a_random_order_permutes_the_same_counts_by_the_seed():
    counts = [long_tail_counts([50] * 10, 10, order="random", seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(counts[0], counts[1])
    assert not torch.equal(counts[0], counts[2])
    assert sorted(counts[0].tolist(), reverse=True) == exponential_counts(10, 50, 10)


def test_every_stage_draws_the_same_examples_and_other_seeds_draw_others():
    first = long_tail_subset(SPLIT, 10, seed=3).inputs
    torch.manual_seed(99)
    torch.rand(1000)  # what happens in between does not matter
    assert torch.equal(first, long_tail_subset(SPLIT, 10, seed=3).inputs)
    assert not torch.equal(first, long_tail_subset(SPLIT, 10, seed=4).inputs)


def test_a_fuller_tail_holds_the_examples_of_a_thinner_one():
    thin, full = (
        set(long_tail_indices(LABELS, long_tail_counts([50] * 10, r), seed=1).tolist())
        for r in (50, 5)
    )
    assert thin < full


def test_draws_are_uniform_over_a_classs_examples():
    labels = torch.zeros(20, dtype=torch.int64)
    chosen = torch.zeros(20)
    trials = 2000
    for seed in range(trials):
        chosen[long_tail_indices(labels, torch.tensor([5]), seed=seed)] += 1
    z = (chosen - trials / 4) / (trials * 0.25 * 0.75) ** 0.5
    assert z.abs().max() < 5


def test_an_imbalance_of_one_leaves_the_data_as_they_are():
    uneven = Split(torch.zeros(5, 1), torch.tensor([0, 0, 0, 1, 1]))
    part = long_tail_subset(uneven, 1)
    assert torch.equal(part.target, uneven.target)
    assert class_counts(long_tail_subset(uneven, 1, n_max=2)).tolist() == [2, 2]


def test_more_than_there_is_is_an_error():
    with pytest.raises(ValueError, match="n_max=51 asks for 51 examples of class 0, which has 50"):
        long_tail_subset(SPLIT, 10, n_max=51)
    with pytest.raises(ValueError, match="keeps none"):
        long_tail_subset(SPLIT, 100)
    assert class_counts(long_tail_subset(SPLIT, 100, small="clamp")).min() == 1
    with pytest.raises(ValueError, match="counts ask for 3 examples of class 1; it has 1"):
        long_tail_indices(torch.tensor([0, 1]), torch.tensor([1, 3]))
    with pytest.raises(ValueError, match="order must be one of"):
        long_tail_subset(SPLIT, 10, order="size")


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
