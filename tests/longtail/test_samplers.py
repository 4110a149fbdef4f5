"""Samplers: their rates, their seeds, and that processes and resumed runs draw what one would."""

from __future__ import annotations

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
    assert state == {"epoch": 3, "position": 400}
    resumed = sampler(seed=7)
    resumed.load_state_dict(state)
    resumed.set_epoch(3)  # as a loop over the rest of the epochs does
    assert seen + list(resumed) == expected
    assert resumed.state_dict() == {"epoch": 4, "position": 0}
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
    drawn.load_state_dict({"epoch": 0, "position": 30})
    assert list(epoch_of(drawn, 1)) == second
    drawn.load_state_dict({"epoch": 1, "position": 30})
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
    for state, message in (
        ({"epoch": 0, "position": 1000}, r"position of the state must lie in \[0, 999\].*got 1000"),
        ({"epoch": 0, "position": 0, "generator": torch.empty(0)}, "has a generator, this .* none"),
    ):
        with pytest.raises(ValueError, match=message):
            sampler().load_state_dict(state)
    with pytest.raises(ValueError, match="epoch must be"):
        sampler().set_epoch(-1)
    with pytest.raises(ValueError, match="progress must lie"):
        sampling_prior(COUNTS, "progressive", 2.0)
