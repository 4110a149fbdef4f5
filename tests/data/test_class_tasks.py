"""The order in which classes arrive, their groups and their rows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.data import ClassTasks, class_order, class_tasks, task_indices

# (number of classes, base, steps) that fit
FITTING = st.tuples(st.integers(0, 6), st.integers(1, 5), st.integers(1, 6)).map(
    lambda t: (t[1] + t[0] * t[2], t[1], t[0])
)


def test_the_order_of_a_seed_never_changes():
    assert class_order(10, seed=0) == (4, 1, 7, 5, 3, 9, 0, 8, 6, 2)
    assert class_order(10, seed=1) == (5, 6, 1, 2, 0, 8, 9, 3, 7, 4)


def test_a_random_order_leaves_the_global_generator_alone_and_does_not_read_it():
    torch.manual_seed(5)
    first = class_order(20, seed=3)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)
    torch.manual_seed(6)
    assert class_order(20, seed=3) == first


def test_every_class_comes_first_at_its_rate():
    firsts = Counter(class_order(5, seed=seed)[0] for seed in range(2000))
    assert sorted(firsts) == [0, 1, 2, 3, 4]
    z = [(count - 400) / (2000 * 0.2 * 0.8) ** 0.5 for count in firsts.values()]
    assert max(map(abs, z)) < 5


@given(FITTING, st.integers(0, 2**31))
@settings(max_examples=50)
def test_base_and_equal_steps_hold_every_class_once(shape, seed):
    num_classes, base, steps = shape
    tasks = class_tasks(num_classes, base=base, steps=steps, seed=seed)
    assert tasks.num_tasks == 1 + steps
    assert tasks.sizes[0] == base
    assert len(set(tasks.sizes[1:])) <= 1
    assert sorted(tasks.order) == list(range(num_classes))
    assert tasks.order == class_order(num_classes, seed=seed)


@given(FITTING, st.integers(0, 1000))
@settings(max_examples=50)
def test_rows_and_labels_undo_each_other_and_agree_with_a_search(shape, seed):
    num_classes, base, steps = shape
    tasks = class_tasks(num_classes, base=base, steps=steps, seed=seed)
    target = torch.randint(num_classes, (3, 4), generator=torch.Generator().manual_seed(seed))
    rows = tasks.to_rows(target)
    assert rows.dtype == torch.int64
    assert torch.equal(tasks.to_labels(rows), target)
    assert rows.flatten().tolist() == [tasks.order.index(k) for k in target.flatten().tolist()]
    for label in range(num_classes):
        (task,) = [t for t, group in enumerate(tasks.groups) if label in group]
        assert tasks.task_of(label) == task
        assert tasks.row_of(label) == tasks.order.index(label)


def test_rows_of_the_classes_seen_are_the_first_ones_and_never_change():
    tasks = class_tasks(10, base=4, steps=3, seed=7)
    for task in range(tasks.num_tasks):
        seen = tasks.seen(task)
        assert seen == tasks.order[: 4 + 2 * task]
        assert tasks.to_rows(torch.tensor(seen)).tolist() == list(range(len(seen)))


def test_no_steps_are_one_task_of_all_classes():
    assert class_tasks(4, base=4, steps=0, order="label").groups == ((0, 1, 2, 3),)


def test_a_given_order_is_kept_whatever_holds_it():
    wanted = (2, 0, 3, 1)
    for order in (list(wanted), np.array(wanted), torch.tensor(wanted)):
        assert class_tasks(4, base=2, steps=1, order=order).groups == ((2, 0), (3, 1))
    assert all(type(label) is int for label in class_order(4, order=np.array(wanted)))


def test_groups_may_leave_classes_out():
    tasks = ClassTasks.from_groups([[9, 3], [0]], num_classes=10)
    assert tasks == ClassTasks(((9, 3), (0,)))
    assert tasks.order == (9, 3, 0)
    with pytest.raises(ValueError, match="label 4 is in none"):
        tasks.to_rows(torch.tensor([9, 4]))


def test_the_examples_of_a_task_are_those_of_its_classes():
    target = torch.randint(6, (200,), generator=torch.Generator().manual_seed(0))
    tasks = class_tasks(6, base=2, steps=2, seed=3)
    found = [task_indices(target, group) for group in tasks.groups]
    for group, indices in zip(tasks.groups, found, strict=True):
        assert indices.tolist() == [i for i, label in enumerate(target.tolist()) if label in group]
    assert torch.cat(found).sort().values.tolist() == list(range(200))
    assert task_indices(target, [17]).tolist() == []
    assert task_indices(torch.tensor([], dtype=torch.int64), [0]).tolist() == []


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        ("shuffled", ValueError, r"order must be one of 'random', 'label'; got 'shuffled'"),
        ([0, 1, 1], ValueError, "labels 0 to 2 once; label 1 comes twice"),
        ([0, 1], ValueError, "label 2 is missing"),
        ([0, 1, 2, 3], ValueError, "labels 0 to 2 once; got 3"),
        ([0, 1, -1], ValueError, "got -1"),
        ([0, 1, 2.0], TypeError, "order must hold integer labels"),
        (7, TypeError, "order must hold integer labels; got 7"),
    ],
)
def test_an_order_that_is_no_permutation_is_refused(order, error, message):
    with pytest.raises(error, match=message):
        class_order(3, order=order)


def test_uneven_steps_are_refused_with_those_that_fit():
    with pytest.raises(ValueError, match=r"50 classes.*got 7, of which these fit: 1, 2, 5, 10, 25"):
        class_tasks(100, base=50, steps=7)
    with pytest.raises(ValueError, match=r"got 0, of which these fit: 1, 3$"):
        class_tasks(5, base=2, steps=0)
    with pytest.raises(ValueError, match=r"got 2, of which these fit: 0$"):
        class_tasks(5, base=5, steps=2)
    with pytest.raises(ValueError, match="steps must share"):
        class_tasks(5, base=2, steps=-1)
    with pytest.raises(ValueError, match=r"got 3\.0"):
        class_tasks(5, base=2, steps=3.0)
    with pytest.raises(ValueError, match="base must be at most the 5 classes there are; got 6"):
        class_tasks(5, base=6, steps=0)
    with pytest.raises(ValueError, match="base must be a whole number of at least 1; got 0"):
        class_tasks(5, base=0, steps=5)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "at least one task"),
        ([[0], []], r"groups\[1\] must hold at least one class"),
        ([[0, 1], [2, 1]], r"label 1 is in groups\[0\] and groups\[1\]"),
        ([[0, 0]], r"label 0 is in groups\[0\] and groups\[0\]"),
        ([[0], [4]], r"groups must hold labels in \[0, 3\]; got 4"),
        ([[-1]], "at least 0; got -1"),
    ],
)
def test_groups_that_are_no_tasks_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        ClassTasks.from_groups(groups, num_classes=4)


def test_labels_rows_and_tasks_out_of_range_are_named():
    tasks = ClassTasks(((5, 2), (0,)))
    for label in (-100, 1, 6):
        with pytest.raises(ValueError, match=f"label {label} is in none"):
            tasks.to_rows(torch.tensor([5, label]))
    with pytest.raises(TypeError, match="target must hold int64"):
        tasks.to_rows(torch.tensor([0.0]))
    with pytest.raises(ValueError, match=r"rows must lie in \[0, 2\]; got 3"):
        tasks.to_labels(torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"task must lie in \[0, 1\]; got -1"):
        tasks.seen(-1)
    with pytest.raises(ValueError, match="1 is in none"):
        tasks.task_of(1)
    with pytest.raises(ValueError, match="classes must hold at least one label"):
        task_indices(torch.tensor([0]), [])
    with pytest.raises(TypeError, match="target must hold integer labels"):
        task_indices(torch.tensor([0.0]), [0])
