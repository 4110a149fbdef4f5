"""What is held out is class-balanced, and nothing is lost."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lastlayer.data import Split
from lastlayer.incremental.bias_correction import hold_out_balanced

COUNTS = st.lists(st.integers(0, 25), min_size=1, max_size=6).filter(any)


def examples(counts, seed=0):
    """Examples in a random order; the only input tells which one it is."""
    target = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    target = target[torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))]
    return Split(torch.arange(len(target)).float().unsqueeze(1), target)


@given(counts=COUNTS, share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_both_parts_together_are_the_examples_once(counts, share, seed):
    data = examples(counts, seed)
    rest, held_out = hold_out_balanced(data, share, seed)
    parts = [rest] if held_out is None else [rest, held_out]
    found = sorted(
        (float(x), int(y)) for part in parts for x, y in zip(part.inputs, part.target, strict=True)
    )
    assert found == [(float(x), int(y)) for x, y in zip(data.inputs, data.target, strict=True)]


@given(counts=COUNTS, share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_as_many_of_every_class_are_held_out_but_none_of_a_single_example(counts, share, seed):
    rest, held_out = hold_out_balanced(examples(counts, seed), share, seed)
    fewest = min(count for count in counts if count)
    each = max(1, int(share * fewest))
    taken = [0 if count < 2 else min(each, count - 1) for count in counts]
    if not any(taken):
        assert held_out is None
        taken = [0] * len(counts)
    else:
        assert torch.bincount(held_out.target, minlength=len(counts)).tolist() == taken
    left = torch.bincount(rest.target, minlength=len(counts)).tolist()
    assert left == [count - gone for count, gone in zip(counts, taken, strict=True)]
    assert all(remaining > 0 for remaining, count in zip(left, counts, strict=True) if count)


@pytest.mark.parametrize(
    ("counts", "share", "taken"),
    [
        ([100, 100], 0.1, [10, 10]),
        ([100, 40], 0.1, [4, 4]),
        ([100, 5], 0.1, [1, 1]),
        ([100, 1], 0.5, [1, 0]),
        ([3, 0, 3], 0.9, [2, 0, 2]),
        ([2, 2], 0.99, [1, 1]),
    ],
)
def test_known_sizes(counts, share, taken):
    _, held_out = hold_out_balanced(examples(counts), share, seed=1)
    assert torch.bincount(held_out.target, minlength=len(counts)).tolist() == taken


def test_single_examples_are_all_for_training():
    data = examples([1, 1, 0, 1])
    rest, held_out = hold_out_balanced(data, 0.5, seed=0)
    assert held_out is None
    assert torch.equal(rest.inputs, data.inputs)


def test_the_seed_decides_and_nothing_else_is_drawn():
    data = examples([30, 30])
    before = torch.random.get_rng_state()
    first, again, other = (
        hold_out_balanced(data, 0.3, seed)[1].inputs.flatten() for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert set(first.tolist()) != set(other.tolist())
    assert torch.equal(before, torch.random.get_rng_state())


def test_every_example_of_a_class_is_held_out_as_often():
    data, runs = examples([20, 40]), 600
    times = torch.zeros(60)
    for seed in range(runs):
        times[hold_out_balanced(data, 0.25, seed)[1].inputs.flatten().long()] += 1
    for label, rate in ((0, 5 / 20), (1, 5 / 40)):
        z = (times[data.target == label] - runs * rate) / (runs * rate * (1 - rate)) ** 0.5
        assert float(z.abs().max()) < 5
