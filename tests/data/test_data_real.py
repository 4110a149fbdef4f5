"""The real data sets, where LASTLAYER_DATA names their folder."""

from __future__ import annotations

import os

import pytest
import torch

from lastlayer.data import load

# Reading all of CIFAR takes many seconds and a gigabyte.
slow = pytest.mark.skipif(
    not os.environ.get("LASTLAYER_SLOW"), reason="slow: runs if LASTLAYER_SLOW is set"
)


def require(real_data, folder):
    if not (real_data / folder).is_dir():
        pytest.skip(f"LASTLAYER_DATA has no folder {folder}")
    return real_data


def test_mnist_has_its_published_class_counts_and_mean(real_data):
    splits = load("mnist", data_dir=require(real_data, "mnist"))
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(splits.train.target).tolist() == counts
    assert splits.mean == pytest.approx([0.1307], abs=5e-5)
    assert splits.std == pytest.approx([0.3081], abs=5e-5)
    assert splits.notes == ()


def test_mnist_1k_draws_a_hundred_of_each_digit(real_data):
    data_dir = require(real_data, "mnist")
    splits = load("mnist", data_dir=data_dir, train_size=1000, validation_size=5000)
    assert torch.bincount(splits.train.target).tolist() == [100] * 10
    assert torch.bincount(splits.validation.target).tolist() == [500] * 10
    assert len(splits.test) == 10_000


def test_banking77_has_its_published_counts(real_data):
    splits = load("banking77", data_dir=require(real_data, "banking77"), train_size=385)
    assert (splits.num_classes, len(splits.train), len(splits.test)) == (77, 385, 3080)
    assert torch.bincount(splits.test.target).tolist() == [40] * 77
    assert torch.bincount(splits.train.target).tolist() == [5] * 77


def test_sst2_has_its_published_counts(real_data):
    splits = load("sst-2", data_dir=require(real_data, "sst-2"), train_size=2000)
    assert (splits.class_names, len(splits.train)) == (("0", "1"), 2000)
    assert torch.bincount(splits.test.target).tolist() == [428, 444]


def test_cifar10_without_all_batches_is_refused(real_data):
    folder = require(real_data, "cifar-10-batches-py")
    if any((folder / "cifar-10-batches-py").glob("data_batch_5*")):
        pytest.skip("all batches are there")
    with pytest.raises(FileNotFoundError, match="data_batch_5"):
        load("cifar10", data_dir=folder)


@slow
def test_cifar10_test_part_has_a_thousand_of_each_class(real_data):
    options = {"allow_missing_batches": True}
    data_dir = require(real_data, "cifar-10-batches-py")
    splits = load("cifar10", data_dir=data_dir, options=options, train_size=100)
    assert torch.bincount(splits.test.target).tolist() == [1000] * 10
    assert splits.class_names[3] == "cat"


@slow
def test_cifar100_has_its_published_mean_and_counts(real_data):
    splits = load("cifar100", data_dir=require(real_data, "cifar-100-python"))
    assert torch.bincount(splits.train.target).tolist() == [500] * 100
    assert torch.bincount(splits.test.target).tolist() == [100] * 100
    assert splits.mean == pytest.approx([0.507075, 0.486549, 0.440918], abs=1e-5)
    assert splits.std == pytest.approx([0.267334, 0.256438, 0.276150], abs=1e-5)
