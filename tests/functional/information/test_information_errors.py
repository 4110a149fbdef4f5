"""Standard errors, bias corrections and refusals of the estimates of information."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lastlayer.functional import information as fi

JOINT = torch.tensor([[0.25, 0.05, 0.02], [0.05, 0.2, 0.08], [0.02, 0.03, 0.3]]).double()
PRIOR = JOINT.sum(0)
CRITIC = torch.tensor([[1.0, -0.5, -1.0], [-0.4, 0.8, 0.2], [-1.2, -0.8, 0.9]]).double()


def samples(repeats: int, n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    for cells in rng.choice(9, size=(repeats, n), p=JOINT.numpy().ravel() / JOINT.sum().item()):
        yield CRITIC[torch.from_numpy(cells // 3)], torch.from_numpy(cells % 3)


def pairs(bound):
    return lambda scores, target: bound(scores[:, target])


ESTIMATES = {
    "cross-entropy": fi.cross_entropy_information,
    "cross-entropy, known prior": lambda s, t: fi.cross_entropy_information(s, t, prior=PRIOR),
    "barber-agakov": fi.barber_agakov_bound,
    "barber-agakov, known prior": lambda s, t: fi.barber_agakov_bound(s, t, prior=PRIOR),
    "donsker-varadhan": fi.donsker_varadhan_bound,
    "donsker-varadhan, known prior": lambda s, t: fi.donsker_varadhan_bound(s, t, prior=PRIOR),
    "donsker-varadhan, pairs": pairs(fi.donsker_varadhan_bound),
    "nwj": fi.nwj_bound,
    "nwj, known prior": lambda s, t: fi.nwj_bound(s, t, prior=PRIOR),
    "nwj, pairs": pairs(fi.nwj_bound),
    "info-nce": fi.info_nce_bound,
    "info-nce, pairs": pairs(fi.info_nce_bound),
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_stated_standard_error_is_the_spread_over_samples(name):
    repeats, n = 400, 150
    found = [ESTIMATES[name](*sample) for sample in samples(repeats, n)]
    spread = np.std([float(estimate.value) for estimate in found], ddof=1)
    stated = math.sqrt(np.mean([float(estimate.standard_error) ** 2 for estimate in found]))
    # A standard deviation from 400 draws has a relative error of 1 / sqrt(800) = 0.035.
    assert abs(stated / spread - 1) < 5 * 0.0355


@pytest.mark.parametrize("name", ESTIMATES)
def test_one_example_has_no_standard_error(name):
    if "pairs" in name:
        assert math.isnan(float(fi.info_nce_bound(torch.zeros(1, 1)).standard_error))
        return
    found = ESTIMATES[name](CRITIC[:1], torch.tensor([0]))
    assert math.isnan(float(found.standard_error))


def test_an_impossible_label_gives_minus_infinity_not_a_floor():
    scores = torch.tensor([[0.0, -torch.inf], [0.0, 0.0]])
    found = fi.cross_entropy_information(scores, torch.tensor([1, 0]))
    assert float(found.value) == -math.inf
    assert math.isnan(float(found.standard_error))


def test_a_bad_model_has_negative_information():
    wrong = torch.tensor([[0.0, 9.0], [9.0, 0.0]])
    assert float(fi.cross_entropy_information(wrong, torch.tensor([0, 1])).value) < -8


def test_training_examples_show_the_label_entropy_whatever_the_truth():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 200, generator=generator, dtype=torch.float64)
    target = torch.randint(3, (60,), generator=generator)
    wanted = 20.0 * torch.nn.functional.one_hot(target, 3).double()
    weights = torch.linalg.lstsq(features, wanted).solution
    on_training = fi.cross_entropy_information(features @ weights, target).value
    assert math.isclose(float(on_training), float(fi.label_entropy(target, 3)), abs_tol=1e-3)
    fresh = torch.randn(600, 200, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (600,), generator=generator)
    assert float(fi.cross_entropy_information(fresh @ weights, labels).value) < 0


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_balanced_draws_pass_and_skewed_labels_are_refused(num_classes):
    prior = torch.full((num_classes,), 1 / num_classes)
    logits = torch.zeros(2000, num_classes)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        target = torch.multinomial(prior, 2000, replacement=True, generator=generator)
        value = fi.log_num_classes_information(logits, target).value
        assert float(value) == pytest.approx(0.0, abs=1e-5)
    target = torch.where(torch.arange(2000) % 3 == 0, 0, target)
    with pytest.raises(ValueError, match=r"labels must be balanced for log K - CE.*use H\(Y\)"):
        fi.log_num_classes_information(logits, target)
    with pytest.warns(fi.InformationWarning, match="divergence from uniform"):
        fi.log_num_classes_information(logits, target, unbalanced="warn")
    skewed = torch.nn.functional.normalize(1.0 + torch.arange(num_classes), p=1, dim=0)
    with pytest.raises(ValueError, match="labels must be balanced"):
        fi.log_num_classes_information(logits, target, prior=skewed)


@pytest.mark.parametrize("correction", ["miller-madow", "jackknife"])
def test_corrections_remove_the_bias_of_the_plug_in_entropy(correction):
    rng = np.random.default_rng(5)
    p = np.array([0.4, 0.3, 0.2, 0.1])
    truth, n, repeats = -(p * np.log(p)).sum(), 80, 3000
    draws = [torch.from_numpy(rng.choice(4, n, p=p)) for _ in range(repeats)]
    plain = np.array([float(fi.label_entropy(x, 4)) for x in draws])
    better = np.array([float(fi.label_entropy(x, 4, correction=correction)) for x in draws])
    error = plain.std() / math.sqrt(repeats)
    assert abs(plain.mean() - truth + 3 / (2 * n)) < 5 * error + 2e-3
    assert abs(plain.mean() - truth) > 8 * error
    assert abs(better.mean() - truth) < 5 * error + 5e-4  # what second order leaves


def test_jackknife_is_the_definition_label_by_label():
    target = torch.tensor([0, 0, 0, 1, 1, 3])
    n, whole = len(target), float(fi.label_entropy(target, 4))
    left_out = [float(fi.label_entropy(target[torch.arange(n) != i], 4)) for i in range(n)]
    expected = n * whole - (n - 1) / n * sum(left_out)
    assert float(fi.label_entropy(target, 4, correction="jackknife")) == pytest.approx(expected)
    assert float(fi.label_entropy(torch.tensor([2]), 4, correction="jackknife")) == 0.0


def test_contingency_tables_are_biased_by_the_stated_amount():
    rng = np.random.default_rng(11)
    rows, columns = rng.dirichlet(np.full(8, 5.0)), rng.dirichlet(np.full(6, 5.0))
    counts = rng.multinomial(500, np.outer(rows, columns).ravel(), size=1500).reshape(-1, 8, 6)
    plain = np.array([float(fi.plug_in_information(torch.from_numpy(c))) for c in counts])
    better = [
        float(fi.plug_in_information(torch.from_numpy(c), correction="miller-madow"))
        for c in counts
    ]
    error = plain.std() / math.sqrt(len(plain))
    assert abs(plain.mean() - 35 / 1000) < 5 * error + 2e-3  # truth 0
    assert abs(np.mean(better)) < 5 * error + 2e-3


def test_one_class_carries_no_information():
    logits, target = torch.randn(4, 1), torch.zeros(4, dtype=torch.int64)
    for bound in (fi.cross_entropy_information, fi.barber_agakov_bound, fi.info_nce_bound):
        assert float(bound(logits, target).value) == 0.0
    assert float(fi.log_num_classes_information(logits, target).value) == 0.0


def test_a_class_without_examples_changes_nothing():
    scores = torch.cat((CRITIC, torch.full((3, 1), 0.5).double()), dim=1)
    target = torch.tensor([0, 1, 2])
    for bound in (fi.barber_agakov_bound, fi.donsker_varadhan_bound, fi.nwj_bound):
        torch.testing.assert_close(bound(scores, target), bound(CRITIC, target))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_scores_agree_with_their_float64_values(dtype):
    scores = torch.randn(64, 3, generator=torch.Generator().manual_seed(2)).to(dtype)
    target = torch.arange(64) % 3
    for bound in (
        fi.cross_entropy_information,
        fi.barber_agakov_bound,
        fi.donsker_varadhan_bound,
        fi.nwj_bound,
        fi.info_nce_bound,
    ):
        found, exact = bound(scores, target), bound(scores.double(), target)
        assert found.value.dtype == torch.float32
        for ours, reference in zip(found, exact, strict=True):
            assert math.isclose(float(ours), float(reference), rel_tol=1e-5, abs_tol=1e-6)


def test_large_scores_overflow_nowhere_but_in_nwj():
    scores = 2000.0 * torch.eye(3)
    target = torch.tensor([0, 1, 2])
    for bound in (fi.barber_agakov_bound, fi.donsker_varadhan_bound, fi.info_nce_bound):
        assert float(bound(scores, target).value) == pytest.approx(math.log(3), abs=1e-3)
    assert float(fi.nwj_bound(scores, target).value) == -math.inf


BAD = {
    "logits must have shape": (torch.zeros(3), torch.tensor([0])),
    r"target must have shape \(2,\)": (torch.zeros(2, 3), torch.tensor([0])),
    r"target must lie in \[0, 2\]": (torch.zeros(2, 3), torch.tensor([0, 3])),
}


@pytest.mark.parametrize("message", BAD)
@pytest.mark.parametrize(
    "bound",
    [fi.cross_entropy_information, fi.log_num_classes_information, fi.barber_agakov_bound],
)
def test_bad_scores_and_labels_are_refused(message, bound):
    with pytest.raises(ValueError, match=message):
        bound(*BAD[message])


def test_bad_options_are_refused():
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(TypeError, match="floating-point"):
        fi.cross_entropy_information(logits.long(), target)
    with pytest.raises(ValueError, match="correction must be one of"):
        fi.label_entropy(target, 3, correction="chao")
    with pytest.raises(ValueError, match="correction must be one of 'none'"):
        fi.cross_entropy_information(
            logits, target, prior=torch.full((3,), 1 / 3), correction="jackknife"
        )
    with pytest.raises(ValueError, match="row 1 has label 1 of prior 0"):
        fi.barber_agakov_bound(logits, target, prior=torch.tensor([0.5, 0.0, 0.5]))
    with pytest.raises(ValueError, match="unbalanced must be one of"):
        fi.log_num_classes_information(logits, target, unbalanced="ignore")
    with pytest.raises(ValueError, match="square matrix"):
        fi.donsker_varadhan_bound(logits)
    with pytest.raises(ValueError, match="at least 2 pairs"):
        fi.nwj_bound(torch.zeros(1, 1))
    with pytest.raises(ValueError, match="prior belongs to labels"):
        fi.nwj_bound(torch.zeros(2, 2), prior=torch.tensor([0.5, 0.5]))
