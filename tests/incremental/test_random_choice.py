"""Random choices: the textbook's reservoir, numbers by position, and the rates they keep."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.incremental import RehearsalMemory
from lastlayer.incremental.exemplar_choice import reservoir_positions, stream_uniforms


def textbook_reservoir(stream, capacity, uniform):
    """Algorithm R, one example after another."""
    places = []
    for position, (example, u) in enumerate(zip(stream, uniform, strict=True)):
        if position < capacity:
            places.append(example)
        else:
            place = int(u * (position + 1))
            if place < capacity:
                places[place] = example
    return places


@given(st.integers(0, 8), st.integers(0, 30), st.integers(0, 30), st.integers(0, 9))
@settings(max_examples=100)
def test_the_reservoir_is_the_textbooks(capacity, first, second, seed):
    uniform = stream_uniforms(seed, (0,), 0, first + second)
    expected = textbook_reservoir(range(first + second), capacity, uniform.tolist())
    places = torch.arange(first)[reservoir_positions(capacity, 0, uniform[:first])]
    pool = torch.cat((places, torch.arange(first, first + second)))
    assert pool[reservoir_positions(capacity, first, uniform[first:])].tolist() == expected


def test_a_streams_numbers_are_fixed_by_their_positions():
    whole = stream_uniforms(1, (2, 5), 0, 100)
    assert stream_uniforms(1, (2, 5), 37, 20).equal(whole[37:57])
    assert not stream_uniforms(1, (2, 6), 0, 100).equal(whole)
    assert not stream_uniforms(2, (2, 5), 0, 100).equal(whole)
    assert 0 <= float(whole.min()) < float(whole.max()) < 1


def check_equal_rates(times, trials, keep):
    """Each of n examples is kept in keep / n of the trials, as far as chance goes."""
    num, rate = len(times), keep / len(times)
    z = (times - trials * rate) / (trials * rate * (1 - rate)) ** 0.5
    assert float(z.abs().max()) < 5
    # In every trial the same number is kept, hence one degree of freedom less.
    chi_square = float(z.square().sum()) * (num - 1) / num
    assert abs(chi_square - (num - 1)) < 5 * (2 * (num - 1)) ** 0.5


@pytest.mark.parametrize("selection", ["random", "reservoir"])
def test_every_example_of_a_class_is_kept_with_equal_probability(selection):
    target = torch.arange(100).repeat_interleave(20)
    inputs = torch.arange(20).repeat(100)
    early, times = inputs < 12, torch.zeros(20)
    for seed in range(20):
        memory = RehearsalMemory(per_class=5, selection=selection, seed=seed)
        memory.update(inputs[early], target[early])
        memory.update(inputs[~early], target[~early])
        times += torch.bincount(memory.inputs, minlength=20)
    check_equal_rates(times, trials=2000, keep=5)


def test_every_example_of_the_stream_is_kept_with_equal_probability():
    inputs, target = torch.arange(20), torch.zeros(20, dtype=torch.int64)
    times = torch.zeros(20)
    for seed in range(600):
        memory = RehearsalMemory(total=5, selection="reservoir", seed=seed)
        memory.update(inputs[:12], target[:12])
        memory.update(inputs[12:], target[12:])
        times[memory.inputs] += 1
    check_equal_rates(times, trials=600, keep=5)


def test_one_reservoir_over_all_keeps_classes_at_their_rates():
    target = torch.tensor([0] * 30 + [1] * 10)
    held = torch.zeros(2)
    for seed in range(500):
        memory = RehearsalMemory(total=8, selection="reservoir", seed=seed)
        memory.update(target, target)
        held += memory.counts(2)
    # Hypergeometric: 6 of 8 on average, variance 8 * 3/4 * 1/4 * 32/39.
    z = (float(held[0]) - 3000) / (500 * 8 * 3 / 16 * 32 / 39) ** 0.5
    assert abs(z) < 5
