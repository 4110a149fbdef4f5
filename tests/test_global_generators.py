"""Whatever trains or tries leaves the generators of torch, NumPy and Python as they were."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from lastlayer._random import seed_all, seeded
from lastlayer.incremental import IncrementalClassifier
from lastlayer.information import build_estimator, feature_report
from lastlayer.longtail import ClassSampler
from lastlayer.regularizers import insert
from lastlayer.training import RunConfig, train

TARGET = torch.arange(12) % 3
INPUTS = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
NETWORK = nn.Sequential(nn.Linear(6, 4), nn.Dropout(), nn.Linear(4, 3))
SHORT = {"training": {"steps": 3, "batch_size": 10}, "data": {"train_size": 60}}
STAGED = {"classifier_stage": {"sampler": "meta", "steps": 2, "batch_size": 8}}


def config(**changes):
    return RunConfig().updated(SHORT).updated(changes)


def learned(seed=0):
    learner = IncrementalClassifier(backbone="mlp", steps=3, memory=2, seed=seed)
    learner.learn(INPUTS[TARGET < 2], TARGET[TARGET < 2]).learn(INPUTS, TARGET)
    return learner.predict_log_prob(INPUTS)


def trained(folder, **changes):
    return train(config(**changes), folder).predictions()["log_prob"]


def stopped(folder):
    def stop(step, values):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(training={"log_every": 1}), folder, progress=stop)


CALLS = {
    "learn": lambda _: learned(),
    "train": trained,
    "train in two stages": lambda folder: trained(folder, **STAGED),
    "a train that is stopped": stopped,
    "estimator": lambda _: build_estimator("mine", epochs=1, hidden=(4,)).fit(INPUTS, TARGET),
    "sampler": lambda _: list(ClassSampler(TARGET)),
    "feature report": lambda _: feature_report(NETWORK, TARGET, inputs=INPUTS),
    "insert": lambda _: insert(copy.deepcopy(NETWORK), "dropout", where="0", example=INPUTS),
}


def states():
    return [
        torch.get_rng_state().tolist(),
        torch.initial_seed(),
        [str(part) for part in np.random.get_state()],  # noqa: NPY002
        random.getstate(),
    ]


@pytest.mark.parametrize("call", CALLS)
def test_no_generator_moves(call, tmp_path):
    torch.manual_seed(17)
    torch.rand(3)
    before = states()
    CALLS[call](tmp_path / "run")
    assert states() == before


MONTE_CARLO = {"name": "dropmax", "options": {"prediction": "monte-carlo", "num_samples": 2}}


def test_a_run_depends_on_its_own_seed_alone(tmp_path):
    """Also where training and prediction draw masks."""
    found = []
    for name, seed in (("a", 1), ("b", 2)):
        torch.manual_seed(seed)
        found.append(trained(tmp_path / name, head=MONTE_CARLO))
        found.append(learned())
    assert found[0].equal(found[2])
    assert found[1].equal(found[3])
    assert not found[0].equal(trained(tmp_path / "c", head=MONTE_CARLO, seed=1))


def test_seeded_draws_what_torch_would_and_gives_the_generator_back():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(9)
    following = torch.rand(2)
    torch.manual_seed(9)
    with seeded(5):
        assert torch.rand(4).equal(expected)
    assert torch.rand(2).equal(following)
    seed_all(5)
    assert torch.rand(4).equal(expected)


def test_the_generator_is_given_back_after_an_error():
    torch.manual_seed(9)
    following = torch.rand(2)
    torch.manual_seed(9)
    with pytest.raises(ZeroDivisionError), seeded(5):
        torch.rand(1 // 0)
    assert torch.rand(2).equal(following)


class Accelerator:
    """A module of a device as torch has them, with generators that come with the first use."""

    def __init__(self, awake):
        self.default_generators = (torch.Generator(), torch.Generator()) if awake else ()
        self.seeds = []

    def manual_seed_all(self, seed):
        self.seeds.append(seed)
        for generator in self.default_generators:
            generator.manual_seed(seed)

    manual_seed = None


@pytest.mark.parametrize("awake", [False, True])
def test_generators_of_an_accelerator_are_given_back_too(awake, monkeypatch):
    device = Accelerator(awake)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch, "get_device_module", lambda: device)
    torch.default_generator.manual_seed(17)
    for generator, seed in zip(device.default_generators, (3, 4), strict=False):
        generator.manual_seed(seed)
    with seeded(5):
        device.default_generators = device.default_generators or (torch.Generator(),)
        assert device.seeds == [5]
    if awake:
        assert [generator.initial_seed() for generator in device.default_generators] == [3, 4]
        assert device.seeds == [5]
    else:  # none had drawn: seeded as the processor's was, as torch.manual_seed does
        assert device.seeds == [5, 17]
