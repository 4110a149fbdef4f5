"""What a rehearsal memory keeps, for every budget and every way to choose."""

from __future__ import annotations

import copy
import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.functional.incremental import herding_order
from lastlayer.incremental import RehearsalMemory
from lastlayer.incremental.exemplar_choice import SELECTIONS


def examples(target, dim=3):
    """Examples whose inputs tell which they are: 1000 times the label, plus the number in it."""
    target = torch.as_tensor(target, dtype=torch.int64)
    number = torch.zeros_like(target)
    for label in target.unique():
        index = target == label
        number[index] = torch.arange(int(index.sum()))
    generator = torch.Generator().manual_seed(len(target))
    return target * 1000 + number, target, torch.randn(len(target), dim, generator=generator)


def task(*labels, per_class=10):
    return examples([label for label in labels for _ in range(per_class)])


def kept(memory):
    return memory.inputs.tolist()


def update(memory, data, **options):
    inputs, target, features = data
    memory.update(inputs, target, features, **options)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_budget_per_class_is_kept_of_every_class(selection):
    memory = RehearsalMemory(per_class=4, selection=selection)
    update(memory, task(0, 1), classes=[0, 1])
    first = kept(memory)
    update(memory, task(2, per_class=3), classes=[2])
    assert memory.counts(4).tolist() == [4, 4, 3, 0]
    assert kept(memory)[:8] == first
    assert memory.target.equal(memory.inputs // 1000)
    assert memory.arrival.equal(memory.inputs % 1000)
    assert memory.classes == (0, 1, 2)
    assert memory.num_seen == {0: 10, 1: 10, 2: 3}
    assert len(memory) == 11


@pytest.mark.parametrize("selection", ["herding", "random"])
def test_a_total_budget_is_shared_and_old_classes_shrink_to_the_front(selection):
    memory, before = RehearsalMemory(total=10, selection=selection), {}
    for label, quota in enumerate([10, 5, 3, 2]):
        update(memory, task(label))
        counts = memory.counts(label + 1).tolist()
        assert counts == [quota] * (label + 1)
        now = {c: memory.inputs[memory.target == c].tolist() for c in memory.classes}
        assert all(now[c] == before[c][:quota] for c in before)
        before = now


def test_herding_keeps_the_order_of_herding_and_the_rest_of_a_small_class():
    memory = RehearsalMemory(per_class=6)
    inputs, target, features = task(0, 1)
    update(memory, (inputs, target, features))
    for label in (0, 1):
        of_class = target == label
        expected = inputs[of_class][herding_order(features[of_class], 6)]
        assert memory.inputs[memory.target == label].equal(expected)
    small = RehearsalMemory(per_class=50)
    update(small, (inputs, target, features))
    assert sorted(kept(small)) == inputs.tolist()
    assert small.inputs[:10].equal(inputs[:10][herding_order(features[:10], 10)])


def test_herding_chooses_a_class_seen_again_among_the_kept_and_the_new():
    memory = RehearsalMemory(per_class=4)
    inputs, target, features = task(0, 1)
    update(memory, (inputs, target, features))
    old_inputs, old_features = memory.inputs, features[memory.inputs % 1000]  # of class 0
    again, label, new_features = inputs[:10] + 10, target[:10], features[10:]
    with pytest.raises(ValueError, match=r"memory_features must .*\(8, D\).* class 0 is seen"):
        memory.update(again, label, new_features)
    with pytest.raises(ValueError, match=r"\(m, 3\)"):
        memory.update(again, label, new_features, memory_features=old_features[:, :2])
    assert memory.num_seen == {0: 10, 1: 10}  # nothing happened
    memory.update(again, label, new_features, memory_features=old_features)
    order = herding_order(torch.cat((old_features[:4], new_features)), 4)
    assert memory.inputs[:4].equal(torch.cat((old_inputs[:4], again))[order])
    assert memory.inputs[4:].equal(old_inputs[4:])
    assert memory.arrival.equal(memory.inputs % 1000)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.lists(st.integers(0, 40), max_size=4),
    st.sampled_from(["random", "reservoir", "unlimited"]),
    st.sampled_from([{"per_class": 3}, {"total": 7}]),
    st.integers(0, 5),
)
@settings(max_examples=80)
def test_the_batches_in_which_examples_come_do_not_matter(labels, cuts, selection, budget, seed):
    inputs, target, _ = examples(labels)

    def built(bounds):
        memory = (
            RehearsalMemory.unlimited()
            if selection == "unlimited"
            else RehearsalMemory(**budget, selection=selection, seed=seed)
        )
        for start, stop in itertools.pairwise(bounds):
            memory.update(inputs[start:stop], target[start:stop])
        return memory

    whole, parts = built([0, len(labels)]), built(sorted([0, *cuts, 40]))
    assert kept(whole) == kept(parts)
    assert whole.num_seen == parts.num_seen
    assert whole.arrival.equal(parts.arrival)
    for memory in (whole, parts):
        assert len(set(kept(memory))) == len(memory)
        counts = memory.counts(4)
        if "per_class" in budget and selection != "unlimited":
            seen = torch.bincount(target, minlength=4)
            assert counts.equal(seen.clamp_max(3))
        if selection == "unlimited":
            assert sorted(kept(memory)) == sorted(inputs.tolist())


def test_a_class_has_its_random_order_whatever_else_comes():
    alone = RehearsalMemory(per_class=5, selection="random", seed=3)
    update(alone, task(2))
    among = RehearsalMemory(per_class=5, selection="random", seed=3)
    update(among, task(0, 2))
    update(among, task(1))
    assert kept(alone) == among.inputs[among.target == 2].tolist()
    other = RehearsalMemory(per_class=5, selection="random", seed=4)
    update(other, task(2))
    assert kept(other) != kept(alone)
    orders = {tuple((among.inputs[among.target == c] % 1000).tolist()) for c in range(3)}
    assert len(orders) == 3


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("budget", [{"per_class": 0}, {"total": 0}, {"total": 1}])
def test_a_memory_may_be_empty(selection, budget):
    memory = RehearsalMemory(**budget, selection=selection)
    assert memory.inputs.shape == (0,)
    inputs, target, features = task(0, 1)
    for _ in range(2):
        memory.update(inputs.reshape(-1, 1), target, features, memory_features=features[:0])
    assert len(memory) <= (selection == "reservoir" and budget == {"total": 1})
    assert memory.inputs.shape == (len(memory), 1)
    assert memory.counts(2).sum() == len(memory)
    assert memory.num_seen == {0: 20, 1: 20}


def test_an_empty_task_and_one_example_are_tasks():
    memory = RehearsalMemory(total=4)
    memory.update(torch.empty(0, 5), torch.empty(0, dtype=torch.int64), classes=[7])
    assert memory.classes == ()
    update(memory, examples([3]))
    update(memory, examples([]), classes=[4])
    assert memory.target.tolist() == [3]
    update(memory, task(5))
    assert memory.counts(6).tolist() == [0, 0, 0, 1, 0, 2]


def test_inputs_of_any_shape_and_dtype_are_kept_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    target = torch.tensor([0, 0, 1])
    for inputs in (
        torch.randint(256, (3, 2, 4, 4), generator=generator, dtype=torch.uint8),
        torch.randn(3, 2, generator=generator).bfloat16(),
        torch.tensor([True, False, True]),
    ):
        memory = RehearsalMemory(per_class=2, selection="random")
        memory.update(inputs, target)
        number = memory.target * 2 + memory.arrival
        assert memory.inputs.dtype == inputs.dtype
        assert memory.inputs.equal(inputs[number])


def test_what_is_held_is_no_view_of_what_was_given():
    inputs, target, features = task(0)
    memory = RehearsalMemory(per_class=3)
    memory.update(inputs, target, features)
    before = memory.inputs.clone()
    inputs.zero_()
    target.fill_(9)
    assert memory.inputs.equal(before)
    assert memory.target.tolist() == [0] * 3


@pytest.mark.parametrize("several", [False, True])
def test_what_is_handed_out_is_no_view_of_what_is_held(several):
    inputs, target, features = task(0)
    memory = RehearsalMemory(per_class=3)
    memory.update({"a": inputs, "b": inputs} if several else inputs, target, features)
    before, counts = copy.deepcopy(memory), memory.counts(2)
    for part in memory.inputs.values() if several else [memory.inputs]:
        part.zero_()
    memory.target.fill_(1)
    memory.arrival.zero_()
    memory.num_seen[0] = 7
    assert memory.counts(2).equal(counts)
    assert memory.target.equal(before.target)
    assert memory.arrival.equal(before.arrival)
    assert memory.num_seen == before.num_seen
    parts = [each.inputs["b"] if several else each.inputs for each in (memory, before)]
    assert parts[0].equal(parts[1])


def test_a_budget_given_as_a_numpy_number_is_saved(tmp_path):
    inputs, target, features = task(0)
    memory = RehearsalMemory(total=np.int64(3), seed=np.int64(1))
    memory.update(inputs, target, features)
    memory.save(tmp_path / "memory.safetensors", class_order=[5])
    loaded = RehearsalMemory.load(tmp_path / "memory.safetensors")
    assert (loaded.total, loaded.seed, len(loaded)) == (3, 1, 3)


def test_the_global_generators_are_not_touched():
    torch.manual_seed(0)
    random.seed(0)
    states = torch.random.get_rng_state(), random.getstate()
    memory = RehearsalMemory(per_class=3, selection="random")
    update(memory, task(0))
    assert torch.random.get_rng_state().equal(states[0])
    assert random.getstate() == states[1]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "unlimited"),
        ({"per_class": 1, "total": 1}, "not both"),
        ({"per_class": -1}, "per_class"),
        ({"total": 2.0}, "total"),
        ({"total": 2, "selection": "best"}, "selection"),
        ({"total": 2, "seed": -1}, "seed"),
    ],
)
def test_a_bad_argument_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        RehearsalMemory(**arguments)


def test_a_task_that_does_not_fit_is_refused_and_leaves_the_memory_as_it_was():
    memory = RehearsalMemory(per_class=2)
    inputs, target, features = task(0, 1)
    memory.update(inputs, target, features)
    before = kept(memory)
    new = target + 2
    for arguments, error, named in [
        ((inputs, new, features, [2]), ValueError, r"among classes \[2\]; got 3"),
        ((inputs, target - 1, features), ValueError, "at least 0; got -1"),
        ((inputs, new[:3], features), ValueError, "target"),
        ((inputs, new.int(), features), TypeError, "int64"),
        ((inputs, new.float(), features), TypeError, "integer"),
        ((inputs, new), ValueError, "features must .* herding"),
        ((inputs, new, features[:3]), ValueError, "features"),
        ((inputs, new, features * torch.nan), ValueError, "finite"),
        ((inputs.float(), new, features), ValueError, "int64 of shape"),
        ((inputs.reshape(-1, 1), new, features), ValueError, r"got int64 of shape \(1,\)"),
    ]:
        with pytest.raises(error, match=named):
            memory.update(*arguments)
        assert kept(memory) == before
        assert memory.num_seen == {0: 10, 1: 10}
    with pytest.raises(ValueError, match="target"):
        memory.counts(1)


def test_a_memory_tells_what_it_is():
    memory = RehearsalMemory(total=5, selection="random", seed=2)
    update(memory, task(0))
    assert repr(memory) == (
        "RehearsalMemory(total=5, selection='random', seed=2): 5 examples of 1 classes"
    )
    assert repr(RehearsalMemory.unlimited()).startswith("RehearsalMemory.unlimited(): 0")
