"""Samplers: their rates, their seeds, and that processes and resumed runs draw what one would."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

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
    later = sampler()
    later.set_epoch(1)
    assert list(later) != first
    later.set_epoch(0)
    assert list(later) == first == list(later)


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
    resumed = sampler(seed=7)
    resumed.load_state_dict(state)
    assert seen + list(resumed) == expected
    assert resumed.state_dict() == {"epoch": 3, "position": 0}
    assert list(resumed) == expected  # the next iteration is whole again


def test_it_is_an_ordinary_sampler_of_a_loader():
    loader = DataLoader(TensorDataset(LABELS), batch_size=100, sampler=sampler(num_samples=4000))
    labels = torch.cat([batch[0] for batch in loader])
    assert len(labels) == 4000
    assert (torch.bincount(labels) - 1000).abs().max() < 5 * (4000 * 0.25 * 0.75) ** 0.5
    assert len(ClassSampler(LABELS, "square-root")) == 400


def test_a_draw_never_leaves_its_class():
    draw = ClassDraw(torch.tensor([2, 0, 2, 0]))
    index = draw(1000, torch.tensor([0.0, 0.0, 1.0]), torch.Generator().manual_seed(0))
    assert set(index.tolist()) == {0, 2}


def test_bad_arguments_are_named():
    for options, message in (
        ({"kind": "tail-only"}, "sampler must be one of"),
        ({"seed": -1}, "seed must be"),
        ({"rank": 2, "world_size": 2}, r"rank must lie in \[0, 1\]"),
        ({"world_size": 0}, "world_size must be"),
        ({"num_samples": 0}, "num_samples must be"),
        ({"kind": "progressive", "epochs": None}, "epochs must be"),
    ):
        with pytest.raises(ValueError, match=message):
            sampler(**options)
    with pytest.raises(ValueError, match="progress must lie"):
        sampling_prior(COUNTS, "progressive", 2.0)
