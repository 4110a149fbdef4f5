"""Bad arguments and bad inputs: every head names the argument, what it wanted and what came."""

from __future__ import annotations

import inspect
import math
import re

import pytest
import torch
from counted_heads import build_head

from lastlayer.heads import HEADS, DropMax, Head, SampledSoftmax, Softmax

N, D, K = 3, 5, 4
NAMES = [name for name, text in HEADS.describe().items() if not text.startswith("from ")]
SMOOTHABLE = {
    "softmax",
    "label-smoothing",
    "sparsemax",
    "entmax15",
    "balanced-softmax",
    "logit-adjusted",
    "class-balanced",
    "pc-softmax",
}
FEATURES, TARGET = torch.randn(N, D), torch.tensor([0, 3, 1])

KINDS = sorted({type(build_head(name, D, K)) for name in NAMES}, key=lambda kind: kind.__name__)

every_head = pytest.mark.parametrize("name", NAMES)


@every_head
@pytest.mark.parametrize("label", [K, -1, 1000])
def test_a_label_out_of_range_is_named(name, label):
    with pytest.raises(ValueError, match=rf"target must lie in \[0, 3\] .* got {label}"):
        build_head(name, D, K)(FEATURES, torch.tensor([0, label, 1]))


@every_head
def test_labels_of_another_integer_dtype_are_refused(name):
    with pytest.raises(TypeError, match=r"int64 class indices; got dtype torch\.int32"):
        build_head(name, D, K)(FEATURES, TARGET.int())


@every_head
@pytest.mark.parametrize("shape", [(N, 1), (N + 1,), (1, N), ()])
def test_a_target_of_another_shape_is_refused_even_with_the_right_count(name, shape):
    target = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"target must have shape \(3,\) to match features \(3, 5"):
        build_head(name, D, K)(FEATURES, target)


@every_head
def test_features_of_another_width_or_dtype_are_refused(name):
    head = build_head(name, D, K)
    for call in (lambda x: head(x, TARGET), head.log_prob, head.predict):
        with pytest.raises(ValueError, match=r"features must have shape \(\*, 5\); got \(3, 6\)"):
            call(torch.randn(N, D + 1))
        with pytest.raises(TypeError, match="features must have a floating-point dtype"):
            call(torch.ones(N, D, dtype=torch.int64))


@every_head
def test_noise_of_another_shape_is_refused(name):
    head = build_head(name, D, K)
    message = r"noise must have shape \(.*3, 4\)" if head.stochastic else "draws nothing; got noise"
    for shape in ((1, K, N), (N + 1, K), (2, N, K)):
        with pytest.raises(ValueError, match=message):
            head(FEATURES, TARGET, noise=torch.zeros(shape))


@every_head
def test_soft_targets_work_or_are_refused_with_the_reason(name):
    head = build_head(name, D, K)
    target = torch.full((N, K), 1 / K)
    if name in SMOOTHABLE:
        assert head(FEATURES, target).loss.isfinite()
        with pytest.raises(ValueError, match=r"target must have shape \(3, 4\)"):
            head(FEATURES, target[:, :3])
        with pytest.raises(ValueError, match=r"target must have shape \(3, 4\)"):
            head(FEATURES, target.reshape(1, N, K))
        return
    with pytest.raises(ValueError, match=f"got a target of dtype .*: {head.soft_target_refusal}"):
        head(FEATURES, target)


@every_head
def test_label_smoothing_works_or_is_refused_with_the_reason(name):
    if name in SMOOTHABLE:
        head = build_head(name, D, K, label_smoothing=0.2)
        assert head.label_smoothing == 0.2
        assert "label_smoothing=0.2" in head.extra_repr()
        return
    with pytest.raises(ValueError, match=r"label_smoothing=0\.2 is not defined for \w+: .{20,}"):
        build_head(name, D, K, label_smoothing=0.2)


@every_head
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "batchmean"}, "reduction must be one of 'none', 'mean', 'sum'"),
        ({"label_smoothing": 1.5}, r"label_smoothing must lie in \[0, 1\]; got 1.5"),
        ({"label_smoothing": math.nan}, r"label_smoothing must lie in \[0, 1\]"),
        ({"weight": torch.ones(K + 1)}, r"weight must have shape \(4,\).*got \(5,\)"),
        ({"weight": torch.tensor([1.0, 1.0, -1.0, 1.0])}, "weight must hold finite numbers"),
        ({"weight": torch.tensor([1.0, 1.0, math.nan, 1.0])}, "weight must hold finite numbers"),
        ({"weight": torch.tensor([1.0, 1.0, math.inf, 1.0])}, "weight must hold finite numbers"),
        ({"temprature": 1.0}, "does not take the options .*temprature"),
    ],
)
def test_bad_options_are_named_at_construction(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_head(name, D, K, **options)


def options_of(kind):
    """Name and default of every option that a class or one of its bases declares."""
    inits = [vars(base)["__init__"] for base in kind.__mro__[:-1] if "__init__" in vars(base)]
    parameters = [p for init in inits for p in inspect.signature(init).parameters.values()]
    named = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return {p.name: p.default for p in named if p.default is not inspect.Parameter.empty}


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_takes_the_options_that_its_page_explains_and_no_other(kind):
    page = (DropMax.__doc__ if issubclass(kind, DropMax) else "") + kind.__doc__
    counts = {"class_counts": [4, 3, 2, 1]} if "class_counts:" in page else {}
    everyones = {name: value for other in KINDS for name, value in options_of(other).items()}
    assert {"tau", "zero_counts", "alpha", "temperature", "share"} <= everyones.keys()
    for name, default in everyones.items():
        if re.search(rf"^\s+{name}: ", page, re.MULTILINE):
            kind(D, K, **counts, **{name: options_of(kind)[name]})
        else:
            with pytest.raises(TypeError, match=rf"\b{name}\b"):
                kind(D, K, **counts, **{name: default})


@every_head
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=r"in_features must be .* at least 1; got 0"):
        build_head(name, 0, K)
    with pytest.raises(ValueError, match=r"num_classes must be .* at least 1; got 0"):
        build_head(name, D, 0)


def test_a_refused_batch_leaves_the_label_counts_as_they_were():
    head = SampledSoftmax(D, K, proposal="learned")
    for target, error in ((torch.tensor([0, 9, 1]), ValueError), (TARGET.int(), TypeError)):
        with pytest.raises(error):
            head(FEATURES, target)
    assert head.label_count.tolist() == [1, 1, 1, 1]


def test_the_optimizer_groups_refuse_a_negative_decay():
    with pytest.raises(ValueError, match="weight_decay must be"):
        Softmax(D, K).param_groups(weight_decay=-1.0)


def test_a_head_of_a_third_party_says_what_it_lacks():
    class Bare(Head):
        def _log_prob(self, features):
            return self._logits(features).log_softmax(-1)

    with pytest.raises(NotImplementedError, match="Bare has no loss for soft targets"):
        Bare(D, K)(FEATURES, torch.full((N, K), 0.25))


def test_wrong_noise_of_a_sequence_is_told_by_the_sequences_own_shape():
    with pytest.raises(ValueError, match=r"noise must have shape \(1, 3, 2, 4\); got \(1, 6, 4\)"):
        DropMax(D, K)(
            torch.randn(N, 2, D), torch.zeros(N, 2, dtype=torch.int64), noise=torch.zeros(1, 6, K)
        )
