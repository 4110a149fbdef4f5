"""Loss modules: they pass on exactly what they were given, and refuse what has no meaning."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from lastlayer import losses
from lastlayer.functional.class_sampling import class_dropout_loss, sampled_softmax_loss
from lastlayer.functional.fenchel_young import entmax_loss
from lastlayer.losses import (
    ClassDropoutLoss,
    Entmax15Loss,
    EntmaxLoss,
    SampledSoftmaxLoss,
    SparsemaxLoss,
)

TARGET = torch.tensor([0, 3, -1, 2])
WEIGHT = torch.tensor([1.0, 0.5, 2.0, 0.3])

DETERMINISTIC = {
    "sparsemax": (SparsemaxLoss, 2.0),
    "entmax15": (Entmax15Loss, 1.5),
    "entmax1.3": (lambda **options: EntmaxLoss(1.3, **options), 1.3),
}
RANDOM = {
    "class_dropout": (
        lambda **options: ClassDropoutLoss(0.5, **options),
        lambda o, t, **options: class_dropout_loss(o, t, 0.5, **options),
    ),
    "sampled_uniform": (
        lambda **options: SampledSoftmaxLoss(2, **options),
        lambda o, t, **options: sampled_softmax_loss(o, t, 2, **options),
    ),
    "sampled_learned": (
        lambda **options: SampledSoftmaxLoss(2, "learned", 4, **options),
        lambda o, t, **options: sampled_softmax_loss(o, t, 2, torch.ones(4), **options),
    ),
}


def random_logits(*shape: int):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(23))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_entmax_modules_are_their_function_with_every_argument(name, reduction):
    make, alpha = DETERMINISTIC[name]
    options = {
        "weight": WEIGHT,
        "ignore_index": -1,
        "reduction": reduction,
        "label_smoothing": 0.1,
    }
    logits = random_logits(4, 4)
    expected = entmax_loss(logits, TARGET, alpha, **options)
    assert torch.equal(make(**options)(logits, TARGET), expected)


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_random_modules_are_their_function_with_every_argument_in_training(name, reduction):
    make, function = RANDOM[name]
    options = {"weight": WEIGHT, "ignore_index": -1, "reduction": reduction}
    logits = random_logits(4, 4)
    ours = make(**options)(logits, TARGET, generator=seeded())
    assert torch.equal(ours, function(logits, TARGET, generator=seeded(), **options))


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_random_modules_are_torch_cross_entropy_in_eval_mode(name, reduction):
    make, _ = RANDOM[name]
    options = {"weight": WEIGHT, "ignore_index": -1, "reduction": reduction}
    logits = random_logits(4, 4)
    loss = make(**options).eval()
    torch.testing.assert_close(loss(logits, TARGET), F.cross_entropy(logits, TARGET, **options))


@pytest.mark.parametrize("name", RANDOM)
def test_random_modules_refuse_label_smoothing_with_the_reason(name):
    with pytest.raises(ValueError, match=r"label_smoothing must be 0 .* log-probability -inf"):
        RANDOM[name][0](label_smoothing=0.1)


@pytest.mark.parametrize("name", [*DETERMINISTIC, *RANDOM])
def test_bad_arguments_are_refused_at_construction(name):
    make = (DETERMINISTIC | RANDOM)[name][0]
    with pytest.raises(ValueError, match="reduction must be one of"):
        make(reduction="average")
    with pytest.raises(ValueError, match=r"weight must have shape \(K,\)"):
        make(weight=torch.ones(1, 2))
    with pytest.raises(ValueError, match="weight must hold finite numbers of at least 0"):
        make(weight=torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="label_smoothing must lie"):
        make(label_smoothing=-0.1)


def test_bad_own_arguments_are_refused_at_construction():
    with pytest.raises(ValueError, match="alpha must be"):
        EntmaxLoss(0.5)
    with pytest.raises(ValueError, match="retain_prob must lie"):
        ClassDropoutLoss(1.5)
    with pytest.raises(ValueError, match="num_samples must be"):
        SampledSoftmaxLoss(-1)
    with pytest.raises(ValueError, match="num_samples must be at most"):
        SampledSoftmaxLoss(4, num_classes=4)
    with pytest.raises(ValueError, match="proposal must be one of"):
        SampledSoftmaxLoss(1, proposal="loguniform")
    with pytest.raises(ValueError, match="num_classes must be given"):
        SampledSoftmaxLoss(1, proposal="learned")
    with pytest.raises(ValueError, match="logits must have num_classes=4"):
        SampledSoftmaxLoss(1, "learned", 4)(torch.zeros(2, 5), torch.tensor([0, 1]))


def test_learned_proposal_counts_kept_labels_when_their_gradient_is_taken():
    loss = SampledSoftmaxLoss(1, "learned", 4, ignore_index=-1)
    assert loss.label_counts.tolist() == [1, 1, 1, 1]
    loss(random_logits(4, 4).requires_grad_(), TARGET).backward()
    assert loss.label_counts.tolist() == [2, 1, 2, 2]
    loss(random_logits(2, 4, 3).requires_grad_(), torch.full((2, 3), 1)).backward()
    assert loss.label_counts.tolist() == [2, 7, 2, 2]
    loss.eval()(random_logits(4, 4).requires_grad_(), TARGET).backward()
    assert loss.label_counts.tolist() == [2, 7, 2, 2]


def test_learned_proposal_is_what_the_next_batch_draws_from():
    loss = SampledSoftmaxLoss(1, "learned", 4, ignore_index=-1, reduction="none")
    logits = random_logits(4, 4)
    loss(logits.clone().requires_grad_(), TARGET).sum().backward()
    assert loss.label_counts.tolist() == [2, 1, 2, 2]
    counts = loss.label_counts.float()
    expected = sampled_softmax_loss(
        logits, TARGET, 1, counts, ignore_index=-1, reduction="none", generator=seeded()
    )
    assert torch.equal(loss(logits, TARGET, generator=seeded()), expected)


def test_state_travels_with_the_module():
    loss = SampledSoftmaxLoss(1, "learned", 4, weight=WEIGHT)
    loss(random_logits(1, 4).requires_grad_(), torch.tensor([2])).backward()
    twin = SampledSoftmaxLoss(1, "learned", 4, weight=torch.ones(4))
    twin.load_state_dict(loss.state_dict())
    assert twin.label_counts.tolist() == [1, 1, 2, 1]
    assert twin.weight.equal(WEIGHT)
    assert copy.deepcopy(loss).label_counts.tolist() == [1, 1, 2, 1]
    assert list(SparsemaxLoss().state_dict()) == []


def test_repr_shows_what_differs_from_the_defaults():
    assert repr(SparsemaxLoss()) == "SparsemaxLoss(alpha=2)"
    assert (
        repr(EntmaxLoss(1.3, weight=WEIGHT, ignore_index=0, reduction="sum", label_smoothing=0.1))
        == "EntmaxLoss(alpha=1.3, weight of 4 classes, ignore_index=0, reduction='sum', "
        "label_smoothing=0.1)"
    )
    assert repr(ClassDropoutLoss(0.2)) == "ClassDropoutLoss(retain_prob=0.2)"
    assert repr(SampledSoftmaxLoss(3)) == "SampledSoftmaxLoss(num_samples=3, proposal='uniform')"


@pytest.mark.parametrize("name", [*DETERMINISTIC, *RANDOM])
def test_autocast_computes_the_loss_in_float32(name):
    loss = (DETERMINISTIC | RANDOM)[name][0]().eval()
    features, weight = random_logits(8, 16), random_logits(16, 4).requires_grad_()
    target = torch.arange(8) % 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = features @ weight
        value = loss(logits, target)
    assert logits.dtype == torch.bfloat16
    assert value.dtype == torch.float32
    assert value.equal(loss(logits.float(), target))
    value.backward()
    assert weight.grad.isfinite().all()


OWN = {
    "BalancedSoftmaxLoss": {"class_counts": [4, 3], "tau": 1.0, "zero_counts": "error"},
    "ClassBalancedLoss": {"class_counts": [4, 3], "beta": 0.9},
    "LDAMLoss": {"class_counts": [4, 3], "max_margin": 0.5, "scale": 30.0},
    "PCSoftmaxLoss": {"prior": torch.tensor([0.5, 0.5])},
    "ClassDropoutLoss": {"retain_prob": 0.5},
    "SampledSoftmaxLoss": {"num_samples": 1, "proposal": "uniform", "num_classes": 2},
    "EntmaxLoss": {"alpha": 1.3},
    "SparsemaxLoss": {},
    "Entmax15Loss": {},
}


def test_every_loss_is_known_here():
    assert {*OWN, "ClassificationLoss"} == {name for name in dir(losses) if name.endswith("Loss")}


@pytest.mark.parametrize("name", OWN)
def test_the_options_of_other_losses_are_refused_by_name(name):
    build, own = getattr(losses, name), OWN[name]
    build(**own)
    for option, value in {key: v for options in OWN.values() for key, v in options.items()}.items():
        if option not in own:
            with pytest.raises(TypeError, match=rf"\b{option}\b"):
                build(**own, **{option: value})
