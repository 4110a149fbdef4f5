"""Samplers: their rates, their seeds, and that processes and resumed runs draw what one would."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from lastlayer.longtail import SAMPLERS, ClassDraw, ClassSampler, sampling_prior

COUNTS = torch.tensor([300, 80, 15, 5])
LABELS = torch.repeat_interleave(torch.arange(4), COUNTS)[
    torch.randperm(400, generator=torch.Generator().manual_seed(0))
]
DRAWS = 40_000


def sampler(kind="class-balanced", **options):
    return ClassSampler(LABELS, kind, **({"epochs": 5, "num_samples": 1000} | options))


def test_the_priors_are_their_formulas():
    n = COUNTS.double()
    torch.testing.assert_close(sampling_prior(COUNTS, "instance"), n / n.sum())
    assert sampling_prior(COUNTS, "class-balanced").tolist() == [0.25] * 4
    torch.testing.assert_close(sampling_prior(COUNTS, "square-root"), n.sqrt() / n.sqrt().sum())
    start, middle, end = (sampling_prior(COUNTS, "progressive", t) for t in (0.0, 0.5, 1.0))
    torch.testing.assert_close(start, n / n.sum())
    torch.testing.assert_close(end, torch.full((4,), 0.25).double())
    torch.testing.assert_close(middle, (start + end) / 2)
    assert sampling_prior([3, 0, 1], "class-balanced").tolist() == [0.5, 0.0, 0.5]


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("epoch", [0, 2, 4])
def test_classes_and_examples_are_drawn_at_their_rates(kind, epoch):
    drawn = sampler(kind, num_samples=DRAWS)
    drawn.set_epoch(epoch)
    index = torch.tensor(list(drawn))
    prior = sampling_prior(COUNTS, kind, epoch / 4)
    rate = prior[LABELS] / COUNTS[LABELS]  # of each example
    for seen, expected in (
        (torch.bincount(LABELS[index], minlength=4), prior),
        (torch.bincount(index, minlength=400), rate),
    ):
        z = (seen - DRAWS * expected) / (DRAWS * expected * (1 - expected)).sqrt()
        assert z.abs().max() < 5


def test_the_seed_and_the_epoch_decide_the_draws():
    first = list(sampler())
    torch.manual_seed(5)
    assert list(sampler()) == first
    assert list(sampler(seed=1)) != first
    for labels in (LABELS.tolist(), LABELS.numpy(), LABELS.to(torch.uint8)):  # as data sets have
        assert list(ClassSampler(labels, num_samples=1000)) == first
    later = sampler()
    later.set_epoch(1)
    assert list(later) != first
    later.set_epoch(0)
    assert list(later) == first


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_together_draw_what_one_process_would(world_size):
    parts = [
        list(sampler(num_samples=998, rank=r, world_size=world_size)) for r in range(world_size)
    ]
    assert len({len(part) for part in parts}) == 1
    together = [index for row in zip(*parts, strict=True) for index in row]
    total = world_size * len(parts[0])
    assert together == list(sampler(num_samples=total))
    assert len(sampler(num_samples=998, rank=0, world_size=world_size)) == len(parts[0])


def test_a_resumed_sampler_goes_on_where_it_was():
    whole = sampler(seed=7)
    whole.set_epoch(3)
    expected = list(whole)
    killed = sampler(seed=7)
    killed.set_epoch(3)
    draws = iter(killed)
    seen = [next(draws) for _ in range(400)]
    state = killed.state_dict()
    assert (state["epoch"], state["position"]) == (3, 400)
    resumed = sampler(seed=7)
    resumed.load_state_dict(state)
    resumed.set_epoch(3)  # as a loop over the rest of the epochs does
    assert seen + list(resumed) == expected
    assert resumed.state_dict() == state | {"epoch": 4, "position": 0}
    assert list(resumed) == list(whole)  # the next iteration is the next epoch, and whole


def test_it_is_an_ordinary_sampler_of_a_loader():
    loader = DataLoader(TensorDataset(LABELS), batch_size=100, sampler=sampler(num_samples=4000))
    labels = torch.cat([batch[0] for batch in loader])
    assert len(labels) == 4000
    assert (torch.bincount(labels) - 1000).abs().max() < 5 * (4000 * 0.25 * 0.75) ** 0.5
    assert len(ClassSampler(LABELS, "square-root")) == 400


EPOCHS = 10


def distinct(sampler, **options):
    """How many of the examples a loader gives in ten epochs."""
    loader = DataLoader(range(400), batch_size=50, sampler=sampler, **options)
    return len({index for _ in range(EPOCHS) for batch in loader for index in batch.tolist()})


@pytest.mark.parametrize("kind", ["class-balanced", "square-root"])
def test_ten_epochs_reach_as_many_examples_as_independent_draws_do(kind):
    rate = (sampling_prior(COUNTS, kind) / COUNTS)[LABELS]
    reached = 1 - (1 - rate) ** (400 * EPOCHS)  # of each example, in 400 draws an epoch
    # Whether two examples are reached is negatively correlated, so the variance is below this.
    margin = 5 * float((reached * (1 - reached)).sum()) ** 0.5
    torch_own = WeightedRandomSampler(rate, 400, generator=torch.Generator().manual_seed(0))
    for drawn in (
        ClassSampler(LABELS, kind),
        ClassSampler(LABELS, kind, generator=torch.Generator().manual_seed(0)),
        torch_own,
    ):
        assert abs(distinct(drawn) - float(reached.sum())) <= margin


@pytest.mark.parametrize("options", [{}, {"num_workers": 1, "persistent_workers": True}], ids=str)
def test_an_epoch_is_whole_after_a_peek_and_after_a_break(options):
    drawn = sampler(num_samples=400)
    loader = DataLoader(range(400), batch_size=40, sampler=drawn, **options)
    next(iter(loader))
    for batch in loader:
        del batch
        break
    seen = [[index for batch in loader for index in batch.tolist()] for _ in range(3)]
    assert [len(each) for each in seen] == [400] * 3
    assert seen == [list(epoch_of(drawn, epoch)) for epoch in (2, 3, 4)]


def epoch_of(drawn, epoch):
    drawn.set_epoch(epoch)
    return drawn


def test_a_loader_without_batches_draws_an_epoch_at_a_time():
    """It asks for two iterators where it has workers, and uses one."""
    drawn = sampler(num_samples=20)
    loader = DataLoader(range(400), None, sampler=drawn, num_workers=1)
    seen = [[int(index) for index in loader] for _ in range(2)]
    assert seen == [list(epoch_of(sampler(num_samples=20), epoch)) for epoch in (0, 1)]


@pytest.mark.parametrize("told", [False, True])
def test_a_progressive_sampler_progresses_from_epoch_to_epoch(told):
    """Share of each class against (1 - t) n_j / n + t / K, with t from 0 to 1."""
    drawn = sampler("progressive", num_samples=DRAWS)
    loader = DataLoader(TensorDataset(LABELS), batch_size=1000, sampler=drawn)
    for epoch in range(7):
        if told:
            drawn.set_epoch(epoch)
        t = min(1.0, epoch / 4)
        assert drawn.progress == t
        counts = torch.bincount(torch.cat([labels for (labels,) in loader]), minlength=4)
        share = (1 - t) * COUNTS.double() / 400 + t / 4
        z = (counts - DRAWS * share) / (DRAWS * share * (1 - share)).sqrt()
        assert z.abs().max() < 5


def test_set_epoch_fixes_the_next_iteration_and_later_ones_count_on():
    drawn = sampler()
    first, second, third = (list(drawn) for _ in range(3))
    assert first != second != third
    drawn.set_epoch(1)
    next(iter(drawn))
    assert list(drawn) == third
    drawn.set_epoch(0)
    assert [list(drawn), list(drawn)] == [first, second]


def test_of_a_loaded_state_another_epoch_begins_at_its_beginning():
    drawn = sampler()
    second = list(epoch_of(drawn, 1))
    state = drawn.state_dict()
    drawn.load_state_dict(state | {"epoch": 0, "position": 30})
    assert list(epoch_of(drawn, 1)) == second
    drawn.load_state_dict(state | {"epoch": 1, "position": 30})
    assert list(epoch_of(drawn, 1)) == second[30:]


def test_a_generator_decides_the_draws_and_is_resumed():
    def fresh():
        return sampler("progressive", generator=torch.Generator().manual_seed(3))

    whole = fresh()
    epochs = [list(whole) for _ in range(3)]
    assert epochs[0] != epochs[1]
    torch.manual_seed(5)
    assert list(fresh()) == epochs[0]
    killed = fresh()
    list(killed)
    draws = iter(killed)
    seen = [next(draws) for _ in range(400)]
    resumed = sampler("progressive", generator=torch.Generator())
    resumed.load_state_dict(killed.state_dict())
    assert seen + list(resumed) == epochs[1]
    again = sampler("progressive", generator=torch.Generator())
    again.load_state_dict(resumed.state_dict())
    assert list(again) == list(resumed) == epochs[2]
    parts = [
        sampler("progressive", generator=torch.Generator().manual_seed(3), rank=r, world_size=2)
        for r in range(2)
    ]
    for epoch in epochs:
        assert [i for pair in zip(*parts, strict=True) for i in pair] == epoch


def test_a_draw_never_leaves_its_class():
    draw = ClassDraw(torch.tensor([2, 0, 2, 0]))
    index = draw(1000, torch.tensor([0.0, 0.0, 1.0]), torch.Generator().manual_seed(0))
    assert set(index.tolist()) == {0, 2}


class Column:
    """Numbers as a table's column holds them: an array on request."""

    def __array__(self, dtype=None, copy=None):
        return LABELS.numpy()


def test_labels_are_taken_as_data_sets_hold_them_and_nothing_else():
    expected = list(ClassSampler(LABELS))
    for labels in (LABELS.tolist(), LABELS.numpy(), Column(), tuple(LABELS.tolist())):
        assert list(ClassSampler(labels)) == expected
    data = TensorDataset(torch.zeros(400), LABELS)
    for labels, got in ((["cat", "dog"], "list"), (data, "TensorDataset"), (iter([1]), "iterator")):
        with pytest.raises(TypeError, match=f"labels must hold integer labels.* got .*{got}"):
            ClassSampler(labels)
    with pytest.raises(ValueError, match="labels must hold at least one example"):
        ClassSampler([])


def test_bad_arguments_are_named():
    for options, message in (
        ({"kind": "tail-only"}, "sampler must be one of"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 1.5}, "seed must be"),
        ({"seed": 1, "generator": torch.Generator()}, "seed or generator, not both"),
        ({"rank": 2, "world_size": 2}, r"rank must be a whole number in \[0, 1\]"),
        ({"world_size": 0}, "world_size must be"),
        ({"num_samples": 0}, "num_samples must be"),
        ({"kind": "progressive", "epochs": None}, "epochs must be"),
    ):
        with pytest.raises(ValueError, match=message):
            sampler(**options)
    with pytest.raises(TypeError, match="labels must hold integer labels"):
        ClassSampler(LABELS.float())
    with pytest.raises(ValueError, match="epoch must be"):
        sampler().set_epoch(-1)
    with pytest.raises(ValueError, match="progress must lie"):
        sampling_prior(COUNTS, "progressive", 2.0)


OTHERS = {
    "num_samples 1000; this one has 10": {"num_samples": 10},
    "seed 0; this one has 2": {"seed": 2},
    "sampler 'class-balanced'; this one has 'square-root'": {"kind": "square-root"},
    "world_size 1; this one has 2": {"world_size": 2},
    "a generator, this sampler none": {"taken from": {"generator": torch.Generator()}},
    "no generator, this sampler one": {"generator": torch.Generator()},
    "epochs 3; this one has 5": {"kind": "progressive", "epochs": 5, "taken from": {"epochs": 3}},
}


@pytest.mark.parametrize(("message", "options"), OTHERS.items(), ids=OTHERS)
def test_a_state_of_a_sampler_that_draws_otherwise_is_refused_by_name(message, options):
    own = {"kind": options.get("kind", "class-balanced")} if "taken from" in options else {}
    taken = sampler(**own, **options.get("taken from", {})).state_dict()
    given = {name: value for name, value in options.items() if name != "taken from"}
    other = sampler(**given)
    expected = list(sampler(**given))
    if other.generator is not None:
        other.generator.manual_seed(0)
        expected = list(other)
        other.generator.manual_seed(0)
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(taken)
    assert list(other) == expected


def test_a_state_of_other_labels_or_of_something_else_is_refused():
    with pytest.raises(ValueError, match="checksum of the labels"):
        ClassSampler(LABELS.flip(0)).load_state_dict(ClassSampler(LABELS).state_dict())
    with pytest.raises(ValueError, match=r"not of a ClassSampler: it lacks .*checksum .*seed"):
        ClassSampler(LABELS).load_state_dict({"epoch": 0, "position": 0})


def test_a_state_made_with_numpy_numbers_is_plain(tmp_path):
    whole = np.int64(2)
    drawn = ClassSampler(
        LABELS, "progressive", num_samples=whole, epochs=whole, seed=whole, world_size=whole
    )
    drawn.set_epoch(whole)
    torch.save(drawn.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    ClassSampler(
        LABELS, "progressive", num_samples=2, epochs=2, seed=2, world_size=2
    ).load_state_dict(state)
    assert state["epoch"] == 2
