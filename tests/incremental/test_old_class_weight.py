"""The learned weight of old classes: its steps, its bounds, its state."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch

from lastlayer.functional.incremental import old_weight_gradient, rehearsal_counts
from lastlayer.incremental import MetaOldWeight
from lastlayer.incremental.old_class_weight import MAX_ALPHA, MIN_ALPHA

K, D, OLD = 4, 3, 2
COUNTS = torch.tensor([2, 2, 50, 50])


def problem(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    weight, bias = randn(K, D), randn(K)
    return {
        "classifier_weight": weight,
        "classifier_bias": bias,
        "features": randn(12, D),
        "target": torch.arange(12) % K,
        "class_counts": COUNTS,
        "num_old": OLD,
        "meta_features": randn(8, D),
        "meta_target": torch.arange(8) % K,
        "lr": 0.5,
    }


def steps(old_weight, seeds):
    for seed in seeds:
        old_weight.meta_step(**problem(seed))
    return old_weight


def test_the_first_step_is_adams_sign_step_down_the_closed_forms_gradient():
    given = problem()
    expected = old_weight_gradient(
        given["classifier_weight"],
        given["features"],
        given["target"],
        COUNTS,
        OLD,
        given["meta_features"],
        given["meta_target"],
        lr=0.5,
        bias=given["classifier_bias"],
    )
    old_weight = MetaOldWeight(lr=0.02)
    loss = old_weight.meta_step(**given)
    assert loss.equal(expected.loss)
    assert not loss.requires_grad
    moved = -0.02 * math.copysign(1, float(expected.gradient))
    assert math.log(old_weight.alpha) == pytest.approx(moved, rel=1e-3)


def test_the_arguments_stay_as_they_are():
    given = problem()
    given["classifier_weight"] = torch.nn.Parameter(given["classifier_weight"])
    given["features"].requires_grad_()
    before = {k: v.detach().clone() for k, v in given.items() if isinstance(v, torch.Tensor)}
    MetaOldWeight().meta_step(**given)
    assert all(given[name].detach().equal(value) for name, value in before.items())
    assert given["classifier_weight"].grad is None
    assert given["features"].grad is None


def test_many_steps_find_the_weight_with_the_smallest_meta_loss():
    given = problem() | {"lr": 1.0}
    names = ("features", "target", "class_counts", "num_old", "meta_features", "meta_target", "lr")

    def loss(alpha):
        rest = {name: given[name] for name in names}
        found = old_weight_gradient(
            weight=given["classifier_weight"], bias=given["classifier_bias"], alpha=alpha, **rest
        )
        return float(found.loss)

    grid = torch.logspace(-1.9, 1.9, 400).tolist()
    old_weight = MetaOldWeight(lr=0.05)
    for _ in range(400):
        old_weight.meta_step(**given)
    assert loss(old_weight.alpha) <= min(map(loss, grid)) + 1e-4


@pytest.mark.parametrize("num_old", [0, K])
def test_with_classes_of_one_kind_only_the_weight_stays_whatever_its_momentum(num_old):
    old_weight = steps(MetaOldWeight(), range(3))
    before = old_weight.alpha
    loss = old_weight.meta_step(**(problem() | {"num_old": num_old}))
    assert loss.isfinite()
    assert old_weight.alpha == before


@pytest.mark.parametrize(("initial", "bound"), [(0.011, MIN_ALPHA), (99.0, MAX_ALPHA)])
def test_the_weight_stops_at_its_bounds(initial, bound):
    ends = []
    for seed in range(8):  # some of them go beyond
        old_weight = steps(MetaOldWeight(initial=initial, lr=1.0), [seed])
        ends.append(old_weight.alpha)
    assert all(MIN_ALPHA * (1 - 1e-6) <= end <= MAX_ALPHA * (1 + 1e-6) for end in ends)
    assert min(abs(math.log(end / bound)) for end in ends) < 1e-6


def test_a_saved_weight_goes_on_to_the_same_bits():
    whole = steps(MetaOldWeight(), range(6))
    half = steps(MetaOldWeight(), range(3))
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    resumed = MetaOldWeight()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    twin = copy.deepcopy(half)
    assert steps(resumed, range(3, 6)).log_alpha.equal(whole.log_alpha)
    assert steps(twin, range(3, 6)).log_alpha.equal(whole.log_alpha)
    assert not half.log_alpha.equal(whole.log_alpha)


def test_the_counts_are_the_rehearsal_counts_with_the_weight():
    old_weight = MetaOldWeight(initial=0.5, epsilon=0.1)
    counts = old_weight.counts([0, 4, 9], num_old=2)
    torch.testing.assert_close(counts, rehearsal_counts([0, 4, 9], 2, alpha=0.5, epsilon=0.1))


def test_half_precision_is_computed_in_float32_and_a_bias_is_optional():
    given = problem(dtype=torch.bfloat16)
    exact = {
        k: v.float() if torch.is_tensor(v) and v.is_floating_point() else v
        for k, v in given.items()
    }
    one, other = MetaOldWeight(), MetaOldWeight()
    assert one.meta_step(**given).equal(other.meta_step(**exact))
    assert one.alpha == other.alpha
    assert MetaOldWeight().meta_step(**(given | {"classifier_bias": None})).dtype == torch.float32


def test_a_gradient_that_is_not_finite_stops_before_the_weight_is_lost():
    old_weight, given = MetaOldWeight(), problem()
    given["features"] = given["features"] * torch.inf
    with pytest.raises(FloatingPointError, match="learning rate"):
        old_weight.meta_step(**given)
    assert old_weight.alpha == 1.0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"initial": 0.0}, "initial"),
        ({"initial": 1e3}, "initial"),
        ({"lr": 0.0}, "lr"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"epsilon": -1.0}, "epsilon"),
    ],
)
def test_a_bad_argument_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        MetaOldWeight(**arguments)
