"""Class dropout and sampled softmax: softmax over the target and random other classes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from lastlayer.heads import ClassDropout, SampledSoftmax, Softmax

N, D, K = 5, 3, 4
FEATURES = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.tensor([0, 3, 1, 1, 2])


def make(cls, **options):
    torch.manual_seed(0)
    return cls(D, K, dtype=torch.float64, **options)


def subset_nll(logits: np.ndarray, label: int, others) -> float:
    kept = [label, *others]
    return float(np.log(np.exp(logits[kept]).sum()) - logits[label])


# --- class dropout -----------------------------------------------------------------------------


def test_class_dropout_is_the_softmax_loss_over_the_classes_kept():
    head = make(ClassDropout, retain_prob=0.4, reduction="none")
    noise = torch.rand(N, K, generator=torch.Generator().manual_seed(1))
    loss = head(FEATURES, TARGET, noise=noise).loss
    logits = head.classifier(FEATURES).detach().numpy()
    for row, label in enumerate(TARGET.tolist()):
        others = [k for k in range(K) if k != label and noise[row, k] < 0.4]
        assert loss[row].item() == pytest.approx(subset_nll(logits[row], label, others))


def test_retaining_every_class_is_the_softmax_loss_and_prediction():
    head, softmax = make(ClassDropout, retain_prob=1.0), make(Softmax)
    torch.testing.assert_close(head(FEATURES, TARGET).loss, softmax(FEATURES, TARGET).loss)
    for prediction in ("softmax", "monte-carlo"):
        log_prob = head.log_prob(FEATURES, prediction=prediction)
        torch.testing.assert_close(log_prob, softmax.log_prob(FEATURES))


def test_class_dropout_predicts_by_plain_softmax_and_draws_nothing_by_default():
    head, state = make(ClassDropout).eval(), torch.get_rng_state()
    torch.testing.assert_close(head(FEATURES), head.classifier(FEATURES).log_softmax(-1))
    assert torch.equal(state, torch.get_rng_state())


def test_monte_carlo_prediction_averages_masks_in_which_any_class_drops():
    rho, samples = 0.6, 4000
    head = make(ClassDropout, retain_prob=rho, prediction="monte-carlo", prediction_samples=samples)
    logits = head.classifier(FEATURES).detach().numpy()
    masks = np.array(list(itertools.product([0.0, 1.0], repeat=K)))[:, None]
    chance = np.where(masks == 1, rho, 1 - rho).prod(-1)[..., None]
    weight = (masks + 1e-20) * np.exp(logits)
    p = weight / weight.sum(-1, keepdims=True)
    mean = (chance * p).sum(0)
    error = np.sqrt((chance * (p - mean) ** 2).sum(0) / samples)
    draws = [
        head.log_prob(FEATURES, generator=torch.Generator().manual_seed(s)).exp().detach().numpy()
        for s in (0, 0, 1)
    ]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()
    assert (np.abs(draws[0] - mean) < 6 * error).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retain_prob": 0.0}, "retain_prob must be above 0"),
        ({"retain_prob": 1.1}, r"retain_prob must lie in \[0, 1\]; got 1.1"),
        ({"prediction": "plug-in"}, "prediction must be one of 'softmax', 'monte-carlo'"),
        ({"prediction_samples": 0}, "prediction_samples must be"),
    ],
)
def test_bad_options_of_class_dropout_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ClassDropout(D, K, **options)


# --- sampled softmax ---------------------------------------------------------------------------


@pytest.mark.parametrize("proposal", ["uniform", "learned"])
def test_sampling_every_negative_is_the_softmax_loss(proposal):
    head, softmax = make(SampledSoftmax, num_samples=K - 1, proposal=proposal), make(Softmax)
    torch.testing.assert_close(head(FEATURES, TARGET).loss, softmax(FEATURES, TARGET).loss)


def test_a_uniform_sample_is_class_dropout_given_the_number_of_negatives():
    # All sets of m negatives are equally likely, and every loss is one of theirs.
    m, rows = 2, 3000
    head = make(SampledSoftmax, num_samples=m, reduction="none")
    loss = (
        head(
            FEATURES[:1].expand(rows, D),
            torch.zeros(rows, dtype=torch.int64),
            generator=torch.Generator().manual_seed(0),
        )
        .loss.detach()
        .numpy()
    )
    logits = head.classifier(FEATURES[0]).detach().numpy()
    sets = list(itertools.combinations(range(1, K), m))
    counts = []
    for others in sets:
        counts.append(int(np.isclose(loss, subset_nll(logits, 0, others), atol=1e-10).sum()))
    assert sum(counts) == rows
    share = 1 / len(sets)
    assert max(abs(c - rows * share) for c in counts) < 6 * math.sqrt(rows * share * (1 - share))


def test_sampled_softmax_predicts_by_plain_softmax():
    head = make(SampledSoftmax).eval()
    torch.testing.assert_close(head(FEATURES), head.classifier(FEATURES).log_softmax(-1))


@pytest.mark.parametrize(
    ("num_classes", "num_samples", "count"),
    [(10, 0.2, 2), (10, 0.4, 4), (10, 0.6, 6), (10, 9, 9), (10, 1, 1), (2, 0.6, 1), (1, 0.6, 0)],
)
def test_a_fraction_is_of_all_classes(num_classes, num_samples, count):
    assert SampledSoftmax(D, num_classes, num_samples=num_samples).num_samples == count


@pytest.mark.parametrize("num_samples", [0, 10, 1.5, 0.01, -1, 0.99])
def test_a_number_of_samples_that_does_not_fit_is_refused(num_samples):
    with pytest.raises(ValueError, match=r"num_samples must be a whole number in \[1, 9\]"):
        SampledSoftmax(D, 10, num_samples=num_samples)


def test_an_unknown_proposal_is_refused():
    with pytest.raises(ValueError, match="proposal must be one of 'uniform', 'learned'"):
        SampledSoftmax(D, K, proposal="unigram")


def test_the_learned_proposal_counts_the_labels_of_training_only():
    head = make(SampledSoftmax, proposal="learned", ignore_index=-1)
    assert head.label_count.tolist() == [1, 1, 1, 1]
    head(FEATURES, torch.tensor([0, 3, -1, 1, 3])).loss.backward()
    assert head.label_count.tolist() == [2, 2, 1, 3]
    head.eval()(FEATURES, TARGET).loss.backward()
    assert head.label_count.tolist() == [2, 2, 1, 3]
    other = make(SampledSoftmax, proposal="learned")
    other.load_state_dict(head.state_dict())
    assert other.label_count.tolist() == [2, 2, 1, 3]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_label_counts_are_whole_numbers_in_low_precision_too(dtype):
    head = SampledSoftmax(D, K, proposal="learned").to(dtype)
    features = FEATURES[:1].to(dtype).expand(5000, D)
    head(features, torch.zeros(5000, dtype=torch.int64)).loss.backward()
    head(FEATURES[:1].to(dtype), torch.tensor([0])).loss.backward()
    assert head.label_count.tolist() == [5002, 1, 1, 1]


def test_the_learned_proposal_samples_frequent_labels_more():
    head = SampledSoftmax(D, 3, num_samples=1, proposal="learned", reduction="none")
    head.label_count.copy_(torch.tensor([1, 30, 10]))
    with torch.no_grad():
        head.classifier.weight.zero_()
        head.classifier.bias.zero_()
    rows = 4000
    target = torch.zeros(rows, dtype=torch.int64)
    noise = torch.rand(rows, 3, generator=torch.Generator().manual_seed(0))
    loss = head.eval()(torch.zeros(rows, D), target, noise=noise).loss
    # Of two values of the loss, the smaller one is the more frequent negative's, whose larger
    # expected count is subtracted. It is drawn 3 times in 4.
    frequent = int((loss < loss.mean()).sum())
    assert abs(frequent - 0.75 * rows) < 6 * math.sqrt(rows * 0.75 * 0.25)
