"""Measures of class-incremental learning against counting over raw predictions."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.evaluation import TaskMatrix, confusion_counts, task_confusion

NAN = math.nan


@st.composite
def histories(draw, max_tasks=4):
    """Sizes, labels of the test examples, and after each task the predictions of those seen."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=max_tasks))
    classes = sum(sizes)
    labels = [0, *draw(st.lists(st.integers(0, classes - 1), max_size=30))]
    predictions = []
    for task in range(len(sizes)):
        seen = sum(sizes[: task + 1])
        predictions.append(
            {
                example: draw(st.one_of(st.just(label), st.integers(0, seen - 1)))
                for example, label in enumerate(labels)
                if label < seen
            }
        )
    return sizes, labels, predictions


def confusions_of(sizes, labels, predictions):
    tables = []
    for task, predicted in enumerate(predictions):
        target = torch.tensor([labels[example] for example in predicted])
        prediction = torch.tensor(list(predicted.values()))
        tables.append(confusion_counts(prediction, target, sum(sizes[: task + 1])))
    return tables


def task_of(label, sizes):
    return next(task for task in range(len(sizes)) if label < sum(sizes[: task + 1]))


def share(facts):
    facts = list(facts)
    return sum(facts) / len(facts) if facts else NAN


def same(ours, theirs):
    return ours == pytest.approx(theirs, nan_ok=True, abs=1e-12)


@given(histories())
@settings(max_examples=150)
def test_every_share_is_what_counting_the_examples_gives(history):
    sizes, labels, predictions = history
    tasks = TaskMatrix.from_confusions(confusions_of(*history), sizes)
    of = [task_of(label, sizes) for label in labels]
    assert tasks.examples == tuple(of.count(task) for task in range(len(sizes)))
    for t, predicted in enumerate(predictions):
        right = {i: predicted[i] == labels[i] for i in predicted}
        into = {i: task_of(predicted[i], sizes) for i in predicted}
        for j in range(len(sizes)):
            row = share(right[i] for i in predicted if of[i] == j) if j <= t else NAN
            assert same(float(tasks.matrix[t, j]), row)
        assert same(tasks.accuracy(t), share(right.values()))
        assert same(tasks.new_accuracy[t], share(right[i] for i in predicted if of[i] == t))
        assert same(tasks.old_accuracy[t], share(right[i] for i in predicted if of[i] < t))
        old = share(into[i] == t for i in predicted if of[i] < t)
        new = share(into[i] < t for i in predicted if of[i] == t) if t else NAN
        assert same(tasks.old_as_new[t], old)
        assert same(tasks.new_as_old[t], new)


@given(histories())
@settings(max_examples=150)
def test_the_averages_are_what_their_definitions_say(history):
    sizes, labels, predictions = history
    tasks = TaskMatrix.from_confusions(confusions_of(*history), sizes)
    steps = [share(p[i] == labels[i] for i in p) for p in predictions]
    assert same(tasks.average_incremental_accuracy, sum(steps) / len(steps))
    assert same(tasks.final_accuracy, steps[-1])
    falls, changes = [], []
    for j in range(len(sizes) - 1):
        if tasks.examples[j]:
            column = [float(tasks.matrix[t, j]) for t in range(j, len(sizes))]
            falls.append(max(column) - column[-1])
            changes.append(column[-1] - column[0])
    assert same(tasks.forgetting, sum(falls) / len(falls) if falls else NAN)
    assert same(tasks.backward_transfer, sum(changes) / len(changes) if changes else NAN)


@given(histories())
@settings(max_examples=150)
def test_forgetting_is_never_negative_and_bounds_the_backward_transfer(history):
    tasks = TaskMatrix.from_confusions(confusions_of(*history), history[0])
    if len(history[0]) == 1:
        assert math.isnan(tasks.forgetting)
        assert math.isnan(tasks.backward_transfer)
    else:
        assert tasks.forgetting >= 0
        assert -tasks.forgetting - 1e-12 <= tasks.backward_transfer <= 1


@given(histories())
@settings(max_examples=100)
def test_the_table_of_tasks_is_the_confusion_of_the_tasks(history):
    sizes, labels, predictions = history
    final = predictions[-1]
    rows = torch.tensor([task_of(labels[i], sizes) for i in final])
    columns = torch.tensor([task_of(p, sizes) for p in final.values()])
    table = task_confusion(confusions_of(*history)[-1], sizes)
    assert torch.equal(table, confusion_counts(columns, rows, len(sizes)))


def test_a_history_worked_by_hand():
    # Base of 2 classes with 10 test examples each, then two steps of one class with 10 each.
    confusions = [
        [[9, 1], [1, 9]],
        [[8, 0, 2], [1, 5, 4], [0, 0, 10]],
        [[6, 1, 1, 2], [0, 6, 2, 2], [1, 0, 7, 2], [0, 1, 1, 8]],
    ]
    tasks = TaskMatrix.from_confusions(confusions, [2, 1, 1])
    assert tasks.examples == (20, 10, 10)
    expected = [[0.9, NAN, NAN], [0.65, 1.0, NAN], [0.6, 0.7, 0.8]]
    assert all(same(a, b) for a, b in zip(tasks.matrix.tolist(), expected, strict=True))
    assert same(tasks.accuracies, (18 / 20, 23 / 30, 27 / 40))
    assert same(tasks.average_incremental_accuracy, (18 / 20 + 23 / 30 + 27 / 40) / 3)
    assert same(tasks.forgetting, ((0.9 - 0.6) + (1.0 - 0.7)) / 2)
    assert same(tasks.backward_transfer, -0.3)
    assert same(tasks.old_accuracy, (NAN, 13 / 20, 19 / 30))
    assert same(tasks.new_accuracy, (0.9, 1.0, 0.8))
    assert same(tasks.old_as_new, (NAN, 6 / 20, 6 / 30))
    assert same(tasks.new_as_old, (NAN, 0.0, 2 / 10))


def test_an_accuracy_counts_classes_alike_and_not_tasks():
    # A base of 4 classes all right and a step of one class all wrong: 4 of 5 classes.
    after = torch.diag(torch.tensor([10, 10, 10, 10, 0]))
    after[4, 0] = 10
    tasks = TaskMatrix.from_confusions([torch.eye(4) * 10, after], [4, 1])
    assert tasks.final_accuracy == 0.8
    assert float(tasks.matrix[1].mean()) == 0.5


def test_accuracy_that_comes_back_is_no_forgetting():
    tasks = TaskMatrix.from_confusions(
        [[[1, 1], [0, 2]], [[2, 0, 0], [0, 2, 0], [0, 0, 1]]], [2, 1]
    )
    assert tasks.forgetting == 0
    assert tasks.backward_transfer == 0.25


def test_the_base_alone_has_no_old_classes_and_nothing_to_forget():
    tasks = TaskMatrix.from_confusions([[[3, 1], [0, 4]]], [2])
    assert tasks.average_incremental_accuracy == tasks.final_accuracy == 0.875
    for value in (
        tasks.forgetting,
        tasks.backward_transfer,
        *tasks.old_accuracy,
        *tasks.old_as_new,
        *tasks.new_as_old,
    ):
        assert math.isnan(value)


def test_a_task_without_test_examples_is_left_out_and_is_not_zero():
    confusions = [[[2]], [[1, 1], [0, 0]], [[1, 0, 1], [0, 0, 0], [0, 0, 2]]]
    tasks = TaskMatrix.from_confusions(confusions, [1, 1, 1])
    assert math.isnan(tasks.new_accuracy[1])
    assert math.isnan(tasks.new_as_old[1])
    assert same(tasks.accuracies, (1.0, 0.5, 0.75))
    assert tasks.forgetting == 0.5
    assert tasks.backward_transfer == -0.5


@given(histories())
@settings(max_examples=50)
def test_the_record_is_json_and_names_every_measure(history):
    tasks = TaskMatrix.from_confusions(confusions_of(*history), history[0])
    record = json.loads(json.dumps(tasks.as_dict(), allow_nan=False))
    for name, value in record.items():
        ours = getattr(tasks, name)
        ours = ours.tolist() if name == "matrix" else ours
        for theirs, mine in zip(_flat(value), _flat(ours), strict=True):
            assert same(mine, NAN if theirs is None else theirs)
    assert len(record) == 12


def _flat(value):
    return (
        [x for entry in value for x in _flat(entry)] if isinstance(value, list | tuple) else [value]
    )


def test_tables_that_are_not_of_one_history_are_refused():
    base, after = torch.eye(2) * 5, torch.eye(3) * 5
    with pytest.raises(ValueError, match="2 tables, one after each task; got 1"):
        TaskMatrix.from_confusions([base], [2, 1])
    with pytest.raises(ValueError, match=r"confusions\[0\] must have shape \(1, 1\)"):
        TaskMatrix.from_confusions([base, after], [1, 2])
    # The whole test set from the first task on: classes to come are tested.
    with pytest.raises(ValueError, match=r"confusions\[0\] must have shape \(2, 2\).*got \(3, 3\)"):
        TaskMatrix.from_confusions([after, after], [2, 1])
    with pytest.raises(ValueError, match=r"class 1 in .* has 4 in confusions\[0\], 5 in the last"):
        TaskMatrix.from_confusions([torch.diag(torch.tensor([5, 4])), after], [2, 1])
    with pytest.raises(ValueError, match="examples must be at least 0, and at least 1 of the base"):
        TaskMatrix.from_confusions([torch.zeros(2, 2)], [2])
    for wrong in (-1.0, 0.5, NAN):
        with pytest.raises(ValueError, match=r"confusions\[0\] must hold counts"):
            TaskMatrix.from_confusions([torch.full((1, 1), wrong)], [1])
    with pytest.raises(ValueError, match=r"sizes\[1\] must be a whole number of at least 1; got 0"):
        TaskMatrix.from_confusions([base, base], [2, 0])
    with pytest.raises(ValueError, match="at least one task"):
        task_confusion(base, [])


def test_a_matrix_that_is_no_history_is_refused():
    good = torch.tensor([[0.9, NAN], [0.5, 0.8]])
    rest = {"examples": (2, 2), "sizes": (1, 1), "old_as_new": (NAN, 0.1), "new_as_old": (NAN, 0.1)}
    assert TaskMatrix(good, **rest).final_accuracy == pytest.approx(0.65)
    for wrong in ([[0.9, 0.0], [0.5, 0.8]], [[0.9, NAN], [NAN, 0.8]], [[90.0, NAN], [50.0, 80.0]]):
        with pytest.raises(ValueError, match=r"matrix must hold accuracies in \[0, 1\]"):
            TaskMatrix(torch.tensor(wrong), **rest)
    with pytest.raises(ValueError, match=r"matrix must have shape \(2, 2\)"):
        TaskMatrix(good[:1], **rest)
    with pytest.raises(ValueError, match="old_as_new must hold 2 values"):
        TaskMatrix(good, **(rest | {"old_as_new": (NAN,)}))
    with pytest.raises(ValueError, match=r"task must lie in \[0, 1\]; got 2"):
        TaskMatrix(good, **rest).accuracy(2)
