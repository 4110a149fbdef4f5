"""Learners of networks in double precision, and of batches that normalization cannot take."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lastlayer.heads import HEADS
from lastlayer.incremental import IncrementalClassifier

INPUTS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
TARGET = torch.arange(40) % 4


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU())


def learned(backbone, method, tasks=((0, 1), (2, 3))):
    learner = IncrementalClassifier(method, backbone=backbone, steps=5, memory=3)
    for classes in tasks:
        own = torch.isin(TARGET, torch.tensor(classes))
        learner.learn(INPUTS[own], TARGET[own])
    return learner


def test_a_network_in_double_precision_learns_as_one_in_single():
    """A task on which nothing is drawn in the network's precision: one without old classes."""
    found = [
        learned(backbone, "icarl", [(0, 1, 2, 3)]).predict_log_prob(INPUTS)
        for backbone in (network(), network().double())
    ]
    assert found[1].dtype == torch.float64
    torch.testing.assert_close(found[1].float(), found[0], atol=1e-5, rtol=1e-5)


METHODS = ["balanced", "icarl", "softmax+bias-correction", "balanced-softmax+meta", "dropmax"]


@pytest.mark.parametrize("method", METHODS)
def test_a_learner_in_double_precision_is_saved_and_goes_on(method, tmp_path):
    double = learned(network().double(), method)
    assert {p.dtype for p in double.model.parameters()} == {torch.float64}
    found = double.predict_log_prob(INPUTS)
    assert found.dtype == torch.float64
    loaded = IncrementalClassifier.load(
        double.save(tmp_path / "learner"), backbone=network().double()
    )
    assert loaded.predict_log_prob(INPUTS).equal(found)
    again = [each.learn(INPUTS, TARGET).predict_log_prob(INPUTS) for each in (loaded, double)]
    assert again[0].equal(again[1])


def test_every_head_takes_the_precision_of_the_network():
    for name in HEADS.names():
        learner = IncrementalClassifier(name, backbone=network().double(), steps=1, memory=0)
        learner.learn(INPUTS, TARGET)
        assert learner.predict_log_prob(INPUTS).dtype == torch.float64, name


class Normalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8))

    def forward(self, inputs):
        return self.layers(inputs)


def test_a_batch_of_one_example_is_named_where_the_network_normalizes_over_it():
    message = "must be 2 or more where a network normalizes over the batch"
    learner = IncrementalClassifier(backbone=Normalized(), steps=3, memory=1)
    with pytest.raises(ValueError, match=message):
        learner.learn(INPUTS[:1], TARGET[:1])
    learner.learn(INPUTS[:2], TARGET[:2])
    assert learner.classes == [0, 1]
    # One more example, beside the memory's, is a batch of three.
    assert learner.learn(INPUTS[2:3], TARGET[2:3]).classes == [0, 1, 2]
    ones = {"training": {"batch_size": 1}}
    with pytest.raises(ValueError, match=message):
        IncrementalClassifier(backbone=Normalized(), steps=3, settings=ones).learn(INPUTS, TARGET)
