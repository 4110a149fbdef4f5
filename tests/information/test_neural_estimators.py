"""Neural estimators on small tasks of known information."""

from __future__ import annotations

import math

import pytest
import torch
from information_tasks import BivariateNormal, flip_labels, symmetric_channel, two_gaussians

from lastlayer.information import (
    ESTIMATORS,
    InformationWarning,
    build_estimator,
)
from lastlayer.information.neural.critics import (
    ConcatenatedCritic,
    CriticEstimator,
    SeparableCritic,
)
from lastlayer.information.neural.estimator import ClassifierEstimator

SMALL = {"hidden": (24, 24), "epochs": 12, "batch_size": 200, "learning_rate": 0.01}
TASK = two_gaussians(1.0)
TRAIN, TEST = TASK.sample(2000, seed=0), TASK.sample(4000, seed=1)


@pytest.mark.parametrize("name", ESTIMATORS.names())
def test_every_estimator_finds_the_information_of_two_gaussians(name):
    found = build_estimator(name, **SMALL).fit(*TRAIN).estimate(*TEST)
    assert abs(found.value - TASK.mutual_information) < 3 * found.standard_error + 0.03
    assert found.standard_error < 0.02
    assert found.n == 4000
    assert name.startswith(found.kind)


@pytest.mark.parametrize("kind", ["donsker-varadhan", "nwj", "info-nce", "mine"])
@pytest.mark.parametrize("critic", ["concatenated", "separable"])
def test_critics_take_continuous_pairs(kind, critic):
    task = BivariateNormal(0.8)
    # MINE sees one shuffled partner where the others see all.
    options = SMALL | {"batch_size": 50, "epochs": 30 if kind == "mine" else 8}
    estimator = CriticEstimator(kind, critic=critic, **options)
    found = estimator.fit(*task.sample(800, seed=0)).estimate(*task.sample(1000, seed=1))
    assert abs(found.value - task.mutual_information) < 4 * found.standard_error + 0.08


def test_symbols_are_taken_on_both_sides():
    channel = symmetric_channel(4, 0.2)
    for name in ("cross-entropy", "nwj"):
        fitted = build_estimator(name, **SMALL).fit(*channel.sample(2000, seed=0))
        found = fitted.estimate(*channel.sample(4000, seed=1))
        assert abs(found.value - channel.mutual_information) < 5 * found.standard_error + 0.02


@pytest.mark.parametrize("name", ["pc-softmax", "mine"])
def test_seed_alone_decides_the_result_and_the_global_generator_is_left_alone(name):
    options = SMALL | {"epochs": 2}
    torch.manual_seed(5)
    first = build_estimator(name, **options).fit(*TRAIN).estimate(*TEST)
    state = torch.get_rng_state()
    again = build_estimator(name, **options).fit(*TRAIN).estimate(*TEST)
    assert torch.equal(state, torch.get_rng_state())
    assert first == again
    other = build_estimator(name, seed=1, **options).fit(*TRAIN).estimate(*TEST)
    assert first.value != other.value


@pytest.mark.parametrize("name", ["cross-entropy", "mine"])
def test_fitting_again_forgets_the_first_time(name):
    options = SMALL | {"epochs": 2}
    once = build_estimator(name, **options).fit(*TRAIN).estimate(*TEST)
    twice = build_estimator(name, **options)
    twice.fit(TRAIN.x.flip(0), TRAIN.y)
    assert twice.fit(*TRAIN).estimate(*TEST) == once


def test_progress_is_told_after_every_epoch():
    told = []
    options = SMALL | {"epochs": 3}
    build_estimator("pc-softmax", **options).fit(*TRAIN, progress=lambda *args: told.append(args))
    assert [args[:2] for args in told] == [(1, 3), (2, 3), (3, 3)]
    assert told[-1][2] > told[0][2]


def test_info_nce_is_capped_at_the_log_of_its_batch():
    y = torch.arange(320) % 16
    options = SMALL | {"batch_size": 8, "epochs": 4}
    fitted = CriticEstimator("info-nce", **options).fit(y, y)
    found = fitted.estimate(y, y)
    assert found.value <= math.log(8) < math.log(16)
    assert "2.0794 nats" in found.notes[-1]


def test_training_pairs_are_warned_of():
    options = SMALL | {"epochs": 1}
    for name in ("cross-entropy", "nwj"):
        fitted = build_estimator(name, **options).fit(*TRAIN)
        with pytest.warns(InformationWarning, match="training examples"):
            assert fitted.estimate(*TRAIN, held_out=False).notes


@pytest.mark.parametrize("critic", [ConcatenatedCritic, SeparableCritic])
def test_diagonal_of_all_pairs_is_the_pairs(critic):
    torch.manual_seed(0)
    made = critic(2, 3, hidden=(5, 4))
    x, y = torch.randn(6, 2), torch.randn(6, 3)
    torch.testing.assert_close(made.all_pairs(x, y).diagonal(), made.pairs(x, y))


def test_divergence_is_an_error_not_a_number():
    wild = CriticEstimator("nwj", **(SMALL | {"learning_rate": 1e6}))
    with pytest.raises(RuntimeError, match="nwj diverged in epoch 1 of 12"):
        wild.fit(*TRAIN)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="kind must be one of"):
        CriticEstimator("smile")
    with pytest.raises(ValueError, match="critic must be one of"):
        CriticEstimator("mine", critic="bilinear")
    with pytest.raises(ValueError, match="rate must lie in"):
        CriticEstimator("mine", rate=0.0)
    with pytest.raises(ValueError, match="hidden must name"):
        ClassifierEstimator(hidden=())
    with pytest.raises(ValueError, match="epochs must be a whole number"):
        ClassifierEstimator(epochs=0)
    with pytest.raises(ValueError, match="learning_rate must be"):
        ClassifierEstimator(learning_rate=0.0)
    with pytest.raises(ValueError, match="unknown information estimator"):
        build_estimator("mune")
    with pytest.raises(ValueError, match="estimator 'mine' does not take"):
        build_estimator("mine", depth=3)


def test_bad_variables_are_refused():
    estimator = CriticEstimator("nwj", **(SMALL | {"epochs": 1}))
    with pytest.raises(RuntimeError, match="must be fitted first"):
        estimator.estimate(*TEST)
    with pytest.raises(ValueError, match="x must be"):
        estimator.fit(TRAIN.x.squeeze(-1), TRAIN.y)
    with pytest.raises(ValueError, match="x and y must be pairs"):
        estimator.fit(TRAIN.x[1:], TRAIN.y)
    with pytest.raises(ValueError, match="x must be finite"):
        estimator.fit(torch.full_like(TRAIN.x, math.nan), TRAIN.y)
    with pytest.raises(ValueError, match="y must hold symbols of at least 0"):
        estimator.fit(TRAIN.x, TRAIN.y - 1)
    estimator.fit(*TRAIN)
    with pytest.raises(ValueError, match="y must be as it was fitted"):
        estimator.estimate(TEST.x, TEST.y + 1)
    with pytest.raises(ValueError, match="x must be as it was fitted"):
        estimator.estimate(TEST.x.expand(-1, 2), TEST.y)
    with pytest.raises(ValueError, match=r"y must be .* labels for a classifier"):
        ClassifierEstimator(**SMALL).fit(TRAIN.x, TRAIN.y.float().unsqueeze(-1))


def test_a_feature_never_tells_more_than_its_input():
    """The sign of x makes of the two Gaussians a symmetric channel of error Phi(-1)."""
    train, test = TASK.sample(4000, seed=2), TASK.sample(8000, seed=3)
    whole = build_estimator("cross-entropy", **SMALL).fit(*train).estimate(*test)
    found = build_estimator("cross-entropy", **SMALL).fit(train[0].sign(), train[1])
    sign = found.estimate(test[0].sign(), test[1])
    error = 0.5 * math.erfc(1 / math.sqrt(2))
    assert abs(sign.value - symmetric_channel(2, error).mutual_information) < (
        4 * sign.standard_error
    )
    assert sign.value < whole.value - 3 * whole.standard_error
    assert sign.value <= TASK.mutual_information


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_label_noise_lowers_the_estimate_to_that_of_both_channels(noise):
    channel = symmetric_channel(4, 0.2)
    (x, y), (held_out, label) = channel.sample(4000, seed=2), channel.sample(8000, seed=3)
    estimator = build_estimator("cross-entropy", **SMALL)
    fitted = estimator.fit(x, flip_labels(y, 4, noise, seed=4))
    found = fitted.estimate(held_out, flip_labels(label, 4, noise, seed=5))
    error = 1 - (0.8 * (1 - noise) + 0.2 * noise / 3)
    both = symmetric_channel(4, error).mutual_information
    assert abs(found.value - both) < 4 * found.standard_error
    assert both < channel.mutual_information
