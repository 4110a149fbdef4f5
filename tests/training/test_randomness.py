import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lastlayer._random import derive_seed
from lastlayer.training import RunConfig
from lastlayer.training.batches import Batches, ShuffledBatches
from lastlayer.training.build import build_classifier, load_splits


def shuffled(size=23, batch_size=5, seed=0, epoch=0, **share):
    inputs = torch.arange(size, dtype=torch.float32)[:, None]
    return ShuffledBatches(
        inputs,
        torch.arange(size),
        batch_size=batch_size,
        seed=seed,
        epoch=lambda: epoch,
        **share,
    )


def order(batches):
    return torch.cat([target for _, target in batches]).tolist()


def test_derived_seeds_are_what_they_always_were():
    # A run made by an earlier version must be resumed and replayed with its own numbers.
    assert derive_seed(0, "step", 0, 0) == 2304360856495448237
    assert derive_seed(7, "order", 3) == 5668033773290554967


@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_derived_seed_fits_torch(seed, step):
    value = derive_seed(seed, "step", step)
    assert 0 <= value < 2**63
    torch.Generator().manual_seed(value)


def test_neighboring_seeds_steps_ranks_and_purposes_do_not_collide():
    purposes = ("step", "order", "initial weights")
    seeds = {
        derive_seed(seed, purpose, step, rank)
        for seed in range(8)
        for purpose in purposes
        for step in range(40)
        for rank in range(3)
    }
    assert len(seeds) == 8 * len(purposes) * 40 * 3


def test_neighboring_seeds_give_uncorrelated_draws():
    draws = torch.stack(
        [
            torch.randn(1000, generator=torch.Generator().manual_seed(derive_seed(0, "step", k)))
            for k in range(30)
        ]
    )
    correlation = torch.corrcoef(draws) - torch.eye(30)
    # 435 pairs of standard deviation 1000 ** -0.5: five of them are passed once in 4,000 tries.
    assert correlation.abs().max() < 5 / 1000**0.5


def test_an_epoch_is_a_permutation_without_its_last_partial_batch():
    batches = shuffled()
    sizes = [len(target) for _, target in batches]
    assert sizes == [5] * 4
    assert len(batches) == 4
    assert len(set(order(batches))) == 20
    assert set(order(shuffled(size=20))) == set(range(20))


def test_inputs_and_labels_stay_together():
    for inputs, target in shuffled():
        assert torch.equal(inputs[:, 0].long(), target)


def test_order_depends_on_seed_and_epoch_alone():
    torch.manual_seed(1)
    first = order(shuffled(seed=3, epoch=2))
    torch.manual_seed(2)
    assert order(shuffled(seed=3, epoch=2)) == first
    assert order(shuffled(seed=4, epoch=2)) != first
    assert order(shuffled(seed=3, epoch=3)) != first


def test_drawing_an_order_leaves_torchs_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    order(shuffled())
    assert torch.equal(torch.rand(3), expected)


@given(
    size=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    world_size=st.integers(1, 4),
    epoch=st.integers(0, 5),
)
def test_processes_partition_every_batch(size, batch_size, world_size, epoch):
    if min(size, batch_size) < world_size:
        with pytest.raises(ValueError, match=f"number of processes, {world_size}"):
            shuffled(size, batch_size, epoch=epoch, world_size=world_size)
        return
    whole = list(shuffled(size, batch_size, epoch=epoch))
    shares = [
        list(shuffled(size, batch_size, epoch=epoch, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    for step, (_, target) in enumerate(whole):
        together = torch.cat([share[step][1] for share in shares])
        assert sorted(together.tolist()) == sorted(target.tolist())
        assert all(len(share[step][1]) > 0 for share in shares)


def test_fewer_examples_than_a_batch_make_one_batch():
    assert [len(target) for _, target in shuffled(size=3, batch_size=10)] == [3]


def test_held_out_batches_keep_the_order_and_the_last_partial_one():
    batches = Batches(torch.zeros(7, 2), torch.arange(7), 3)
    assert order(batches) == list(range(7))
    assert len(batches) == len(list(batches)) == 3


def config(head="softmax", seed=0, **changes):
    base = {"seed": seed, "head": {"name": head}, "data": {"train_size": 50}}
    return RunConfig().updated(base).updated(changes)


@pytest.mark.parametrize("head", ["sparsemax", "dropmax", "sampled", "attention"])
def test_every_head_of_a_seed_sees_the_same_examples_and_starts_from_the_same_backbone(head):
    ours, theirs = config(), config(head)
    a, b = load_splits(ours), load_splits(theirs)
    assert torch.equal(a.train.inputs, b.train.inputs)
    assert torch.equal(a.validation.inputs, b.validation.inputs)
    first = build_classifier(ours, a.input_shape, a.num_classes)
    second = build_classifier(theirs, b.input_shape, b.num_classes)
    assert first.backbone.state_dict().keys() == second.backbone.state_dict().keys()
    for name, weight in first.backbone.state_dict().items():
        assert torch.equal(weight, second.backbone.state_dict()[name])


def test_another_seed_changes_subset_and_weights_unless_the_data_have_their_own():
    a, b = load_splits(config(seed=0)), load_splits(config(seed=1))
    assert not torch.equal(a.train.inputs, b.train.inputs)
    assert torch.equal(a.test.inputs, b.test.inputs)
    fixed = [load_splits(config(seed=seed, data={"seed": 9})).train.inputs for seed in (0, 1)]
    assert torch.equal(*fixed)
    weights = [
        build_classifier(config(seed=seed), a.input_shape, a.num_classes).head.classifier.weight
        for seed in (0, 1)
    ]
    assert not torch.equal(*weights)


def test_building_leaves_torchs_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_classifier(config(), (1, 8, 8), 10)
    assert torch.equal(torch.rand(3), expected)
