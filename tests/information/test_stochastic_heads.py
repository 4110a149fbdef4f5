"""The information of heads that draw masks, against their own Monte Carlo and exact predictions."""

from __future__ import annotations

import math

import pytest
import torch

from lastlayer.functional import information as fi
from lastlayer.heads import ClassDropout, DropMax, Softmax
from lastlayer.heads.mixed_dropmax import MixedDropMax
from lastlayer.information import InformationWarning, estimate_information, stochastic_information

FEATURES = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
TARGET = torch.arange(60) % 4


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def head(kind=DropMax, **options):
    torch.manual_seed(0)
    made = kind(6, 4, **options).eval()
    if isinstance(made, DropMax):
        torch.nn.init.constant_(made.retain.bias, 1.0)
    return made


HEADS = {
    "dropmax": lambda: head(),
    "iclr": lambda: head(DropMax.iclr, eps=1e-2),
    "mixed": lambda: head(MixedDropMax),
    "class dropout": lambda: head(ClassDropout),
}


@pytest.mark.parametrize("name", HEADS)
def test_bracket_is_that_of_the_heads_own_masks(name):
    made = HEADS[name]()
    found = stochastic_information(made, FEATURES, TARGET, 7, generator())
    draws = generator()
    log_prob = torch.cat(
        [
            made.log_prob(
                FEATURES.expand(count, 60, 6),
                prediction="monte-carlo",
                num_samples=1,
                generator=draws,
            )
            for count in (1, 6)
        ]
    ).detach()
    prior = torch.full((4,), 0.25)
    bracket = fi.information_bracket(log_prob.double(), TARGET, prior)
    assert found.lower.value == pytest.approx(float(bracket.lower.mean()), abs=1e-6)
    assert found.upper.value == pytest.approx(float(bracket.upper.mean()), abs=1e-6)
    assert found.upper.standard_error == pytest.approx(
        float(bracket.upper.std()) / math.sqrt(60), abs=1e-6
    )
    assert found.num_samples == 7
    assert found.lower.value < found.upper.value


@pytest.mark.parametrize("name", ["dropmax", "mixed"])
def test_upper_end_rises_to_the_exact_prediction(name):
    made = HEADS[name]()
    with torch.no_grad():
        exact = estimate_information(made.log_prob(FEATURES, prediction="exact"), TARGET).value
    few, many = (
        stochastic_information(made, FEATURES, TARGET, s, generator()).upper.value
        for s in (1, 3000)
    )
    assert few < exact - 0.1
    assert many == pytest.approx(exact, abs=0.02)


def test_one_mask_has_no_width_and_no_masks_make_a_softmax():
    one = stochastic_information(head(), FEATURES, TARGET, 1, generator())
    assert one.lower.value == pytest.approx(one.upper.value)
    kept = head(ClassDropout, retain_prob=1.0)
    found = stochastic_information(kept, FEATURES, TARGET, 4)
    plain = estimate_information(kept.log_prob(FEATURES).detach(), TARGET)
    assert found.lower.value == pytest.approx(plain.value, abs=1e-6)
    assert found.upper.standard_error == pytest.approx(plain.standard_error, abs=1e-6)


def test_masks_follow_the_generator():
    first, again, other = (
        stochastic_information(head(), FEATURES, TARGET, 5, generator(seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.lower.value != other.lower.value


def test_known_prior_replaces_the_frequencies():
    prior = torch.tensor([0.1, 0.2, 0.3, 0.4])
    found = stochastic_information(head(), FEATURES, TARGET, 5, generator(), prior=prior)
    plain = stochastic_information(head(), FEATURES, TARGET, 5, generator())
    shift = float(fi.entropy(prior)) - math.log(4)
    assert found.lower.value - plain.lower.value == pytest.approx(shift, abs=1e-6)


def test_training_examples_are_warned_of():
    with pytest.warns(InformationWarning, match="training examples"):
        found = stochastic_information(head(), FEATURES, TARGET, 2, held_out=False)
    assert found.lower.notes == found.upper.notes != ()


def test_heads_without_masks_and_bad_arguments_are_refused():
    with pytest.raises(TypeError, match=r"head must draw masks.*got Softmax"):
        stochastic_information(head(Softmax), FEATURES, TARGET)
    with pytest.raises(ValueError, match="num_samples must be a whole number"):
        stochastic_information(head(), FEATURES, TARGET, 0)
    with pytest.raises(ValueError, match=r"features must have shape \(N, D\)"):
        stochastic_information(head(), FEATURES[0], TARGET[:1])
    with pytest.raises(ValueError, match="target must lie in"):
        stochastic_information(head(), FEATURES, TARGET + 1)
