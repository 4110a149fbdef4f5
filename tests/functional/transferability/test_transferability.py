"""LogME, LEEP, NCE, TransRate: closed forms, oracles, traps of public versions, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import linalg, optimize, stats
from sklearn.metrics import mutual_info_score

from lastlayer.functional.transferability import leep, log_evidence, log_me, nce, trans_rate


def problem(
    n: int = 60, d: int = 5, classes: int = 3, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (n,), generator=generator)
    target[:classes] = torch.arange(classes)
    means = torch.randn(classes, d, generator=generator, dtype=torch.float64)
    return means[target] + torch.randn(n, d, generator=generator, dtype=torch.float64), target


def gaussian_evidence(features: torch.Tensor, y: torch.Tensor, a: float, b: float) -> float:
    """The definition: log density of y under a normal with the marginal covariance."""
    rows = features.numpy()
    covariance = np.eye(len(rows)) / b + rows @ rows.T / a
    factor = linalg.cholesky(covariance, lower=True)
    whitened = linalg.solve_triangular(factor, y.numpy(), lower=True)
    return float(stats.norm.logpdf(whitened).mean() - np.log(np.diag(factor)).mean())


FEATURES = {
    "n > D": problem()[0],
    "n < D": problem(40, 120)[0],
    "n = D": problem(20, 20)[0],
    "duplicate columns": problem()[0].repeat(1, 3),
    "a zero column": F.pad(problem()[0], (0, 1)),
}


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_log_evidence_is_the_gaussian_density_at_its_precisions(features):
    generator = torch.Generator().manual_seed(1)
    responses = torch.randn(len(features), 3, generator=generator, dtype=torch.float64)
    for rounds in (1, 11):
        value, a, b = log_evidence(features, responses, max_rounds=rounds)
        for column in range(3):
            expected = gaussian_evidence(
                features, responses[:, column], float(a[column]), float(b[column])
            )
            assert float(value[column]) == pytest.approx(expected, abs=1e-9)


def largest_evidence(features: torch.Tensor, y: torch.Tensor) -> float:
    """By SciPy from many starts, over the logarithms of both precisions."""
    size = float(torch.linalg.svdvals(features)[0]) or 1.0
    starts = [(log_a + 2 * math.log(size), 0.0) for log_a in (-8, 0, 8, 16)]
    return max(
        -optimize.minimize(
            lambda p: -gaussian_evidence(features, y, *np.exp(np.clip(p, -60, 60))),
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-7, "fatol": 1e-11},
        ).fun
        for start in starts
    )


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_log_evidence_is_the_maximum_over_both_precisions(features):
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(len(features), generator=generator, dtype=torch.float64)
    for y in (noise, features[:, 0] + noise):
        found = float(log_evidence(features, y[:, None]).log_evidence[0])
        assert found == pytest.approx(largest_evidence(features, y), abs=1e-7)


def test_of_several_maxima_the_largest_is_found():
    """One large direction and twelve of 1e-3 its size: to explain the one, or all of them."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64))[0]
    features = basis[:, :13] * torch.tensor([1.0] + [1e-3] * 12)

    def profile(log_ratio: float, y: torch.Tensor) -> float:
        """The evidence for b / a, with b = n / Q: of the normal density, a grid over one number."""
        rows = features.numpy()
        covariance = np.eye(40) + math.exp(log_ratio) * rows @ rows.T
        b = 40 / float(y.numpy() @ np.linalg.solve(covariance, y.numpy()))
        return gaussian_evidence(features, y, b / math.exp(log_ratio), b)

    places = np.arange(-8.0, 30.0, 0.25)
    sides = set()
    for strength in (1.6, 2.0, 2.5, 3.0):
        y = basis @ torch.tensor([6.0] + [strength] * 12 + [1.0] * 27, dtype=torch.float64)
        heights = np.array([profile(place, y) for place in places])
        inner = heights[1:-1]
        peaks = np.nonzero((inner > heights[:-2]) & (inner > heights[2:]))[0] + 1
        assert len(peaks) == 2
        sides.add(int(heights[peaks].argmax()))
        value, a, b = log_evidence(features, y[:, None])
        assert float(value[0]) >= heights.max() - 1e-12
        assert abs(math.log(float(b / a)) - places[heights.argmax()]) < 0.3
    assert sides == {0, 1}  # now this one, now that one is the larger


@pytest.mark.parametrize("scale", [1e-8, 1e-6, 1e-3, 1e3, 1e6, 1e8])
@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_the_evidence_does_not_depend_on_the_scale_of_the_features(features, scale):
    """w is free in its scale: N(F w) with w of precision a is N(c F w') with precision c^2 a."""
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(len(features), 2, generator=generator, dtype=torch.float64)
    y[:, 0] += features[:, 0]
    one, other = log_evidence(features, y), log_evidence(scale * features, y)
    torch.testing.assert_close(other.log_evidence, one.log_evidence, rtol=0, atol=1e-10)
    precision = scale**2 * one.prior_precision
    torch.testing.assert_close(other.prior_precision, precision, rtol=1e-5, atol=0)
    a, b = float(other.prior_precision[0]), float(other.noise_precision[0])
    density = gaussian_evidence(scale * features, y[:, 0], a, b)
    assert float(other.log_evidence[0]) == pytest.approx(density, abs=1e-8)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_responses_times_c_have_log_c_less_evidence(scale):
    features, target = problem()
    y = F.one_hot(target).double()
    one, other = log_evidence(features, y), log_evidence(features, scale * y)
    torch.testing.assert_close(other.log_evidence, one.log_evidence - math.log(scale))
    torch.testing.assert_close(
        other.noise_precision, one.noise_precision / scale**2, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_useless_features_have_the_evidence_of_none(scale):
    """Of none: the normal density with the responses' own mean square as its variance."""
    y = torch.tensor([1.0, 1.0, -1.0, -1.0, 2.0], dtype=torch.float64)
    useless = torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0], dtype=torch.float64)[:, None]
    variance = float(y.square().mean())
    expected = stats.norm(scale=math.sqrt(variance)).logpdf(y.numpy()).mean()
    for features in (scale * useless, 0.0 * useless):
        value, a, b = log_evidence(features, y[:, None])
        assert float(value[0]) == pytest.approx(expected, abs=1e-12)
        assert float(a[0]) == math.inf
        assert float(b[0]) == pytest.approx(1 / variance)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_a_perfect_fit_stops_at_the_least_noise(scale):
    """The density grows without bound; at a noise of 1e-6 of the responses it is a number."""
    features, _ = problem()
    y = features @ torch.ones(5, 1, dtype=torch.float64)
    value, a, b = log_evidence(scale * features, y)
    assert float(b[0]) == pytest.approx(1e12 / float(y.square().mean()))
    least = 0.5 * math.log(float(b[0]) / (2 * math.pi))  # with the fit for nothing
    spread = torch.linalg.svdvals(features).square() * scale**2 * float(b / a)
    expected = least - 0.5 * float(spread.log1p().sum() + 5) / 60  # 5: a |m|^2 at its best
    assert float(value[0]) == pytest.approx(expected, abs=1e-4)
    assert float(value[0]) > float(log_evidence(features, y + 1e-3 * features[:, :1].cos())[0][0])


def test_log_me_is_the_mean_over_one_hot_columns():
    features, target = problem()
    columns = log_evidence(features, F.one_hot(target).double()).log_evidence
    torch.testing.assert_close(log_me(features, target), columns.mean())
    torch.testing.assert_close(log_me(features, target * 7 - 2), columns.mean())
    first = (target == 0).double()
    torch.testing.assert_close(log_me(features, first), columns[0])


def test_log_me_of_more_features_than_examples_keeps_its_size():
    """The sum over the rank alone would add (D - n) log a / 2 per example and column."""
    features, target = problem(40, 120)
    assert -3.0 < float(log_me(features, target)) < 3.0


def test_log_me_prefers_features_that_know_the_label():
    features, target = problem(200, 5)
    noise = torch.randn(200, 5, generator=torch.Generator().manual_seed(3))
    assert float(log_me(features, target)) > float(log_me(noise, target))


@pytest.mark.parametrize(
    "features",
    [torch.zeros(20, 3), torch.ones(20, 3), 1e8 * torch.eye(20), 1e-8 * torch.eye(20)],
    ids=["zero", "constant", "large", "small"],
)
def test_log_me_of_degenerate_features_is_finite(features):
    for target in (torch.arange(20) % 4, torch.zeros(20, dtype=torch.int64)):
        assert bool(log_me(features, target).isfinite())


def test_nce_and_entropy_add_to_the_plug_in_information():
    generator = torch.Generator().manual_seed(0)
    source, noise = torch.randint(4, (2, 300), generator=generator)
    target = torch.where(torch.rand(300, generator=generator) < 0.6, source, noise) % 3
    entropy = stats.entropy(torch.bincount(target).numpy())
    expected = mutual_info_score(source.numpy(), target.numpy()) - entropy
    assert float(nce(source_label=source, target=target)) == pytest.approx(expected)
    scattered = nce(source_label=source * 100 - 7, target=target + 50)
    assert float(scattered) == pytest.approx(expected)


def test_nce_of_a_function_of_the_source_is_zero_and_of_a_constant_minus_the_entropy():
    target = torch.arange(12) % 3
    assert float(nce(source_label=torch.arange(12) % 6, target=target)) == 0.0
    constant = nce(source_label=torch.zeros(12, dtype=torch.int64), target=target)
    assert float(constant) == pytest.approx(-math.log(3))


def test_leep_with_one_hot_predictions_is_nce_and_above_its_bound_else():
    generator = torch.Generator().manual_seed(0)
    theta = torch.softmax(3 * torch.randn(200, 5, generator=generator, dtype=torch.float64), 1)
    label = theta.argmax(1)
    target = (label + (torch.rand(200, generator=generator) < 0.3).long()) % 3
    hard = nce(source_label=label, target=target)
    torch.testing.assert_close(leep(source_prob=F.one_hot(label, 6).double(), target=target), hard)
    soft = leep(source_prob=theta, target=target)
    assert float(soft) >= float(hard + theta.amax(1).log().mean())
    assert float(soft) <= 0.0


def test_leep_is_its_definition():
    theta = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.5, 0.5]], dtype=torch.float64)
    target = torch.tensor([0, 1, 1, 0])
    joint = np.zeros((2, 2))
    for row, label in zip(theta.numpy(), target.tolist(), strict=True):
        joint[label] += row / 4
    given = joint / joint.sum(0)
    terms = [math.log(given[y] @ row) for row, y in zip(theta.numpy(), target, strict=True)]
    assert float(leep(source_prob=theta, target=target)) == pytest.approx(np.mean(terms))


def test_source_and_target_cannot_be_swapped_silently():
    prob, labels = torch.full((4, 2), 0.5), torch.arange(4) % 2
    with pytest.raises(TypeError, match="positional"):
        leep(prob, labels)
    with pytest.raises(TypeError, match="positional"):
        nce(labels, labels)
    with pytest.raises(TypeError, match="source_prob must have a floating-point"):
        leep(source_prob=labels, target=prob)
    with pytest.raises(ValueError, match="not logits"):
        leep(source_prob=torch.tensor([[2.0, -1.0]]), target=torch.tensor([0]))


def coding_rate(rows: np.ndarray, epsilon: float) -> float:
    gram = np.eye(rows.shape[1]) + rows.T @ rows / (len(rows) * epsilon)
    return 0.5 * np.linalg.slogdet(gram)[1]


@pytest.mark.parametrize("normalize_rows", [True, False])
@pytest.mark.parametrize("weighting", ["frequency", "equal"])
@pytest.mark.parametrize("shape", [(60, 5), (20, 30)])
def test_trans_rate_is_the_difference_of_determinants(shape, weighting, normalize_rows):
    features, target = problem(*shape)
    rows = (features - features.mean(0)).numpy()
    if normalize_rows:
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = coding_rate(rows, 1e-4)
    for label in range(3):
        part = rows[target.numpy() == label]
        share = len(part) / len(rows) if weighting == "frequency" else 1 / 3
        expected -= share * coding_rate(part, 1e-4)
    found = trans_rate(features, target, weighting=weighting, normalize_rows=normalize_rows)
    assert float(found) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("epsilon", [1e-2, 1e-5, 1e-9, 1e-14])
def test_trans_rate_of_any_distortion_is_read_from_singular_values(epsilon):
    features, target = problem(60, 5)
    rows = (features - features.mean(0)).numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def rate(part: np.ndarray) -> float:
        square = linalg.svdvals(part) ** 2
        return 0.5 * float(np.log1p(square / (len(part) * epsilon)).sum())

    parts = [rows[target.numpy() == label] for label in range(3)]
    expected = rate(rows) - sum(len(part) / 60 * rate(part) for part in parts)
    assert float(trans_rate(features, target, epsilon=epsilon)) == pytest.approx(expected, abs=1e-8)


def test_weightings_of_trans_rate_agree_on_balanced_data_only():
    features, _ = problem()
    balanced, skewed = torch.arange(60) % 3, (torch.arange(60) % 6).clamp_max(2)

    def gap(target: torch.Tensor) -> float:
        scores = [trans_rate(features, target, weighting=w) for w in ("frequency", "equal")]
        return abs(float(scores[0] - scores[1]))

    assert gap(balanced) < 1e-12
    assert gap(skewed) > 1e-2


def test_trans_rate_of_one_class_or_constant_features_is_zero():
    features, target = problem()
    assert float(trans_rate(features, torch.zeros_like(target))) == pytest.approx(0.0, abs=1e-12)
    assert float(trans_rate(torch.ones(60, 3), target)) == 0.0


@pytest.mark.parametrize("score", [log_me, trans_rate])
def test_bad_features_and_labels_are_refused(score):
    features, target = problem()
    with pytest.raises(ValueError, match="finite"):
        score(features / 0.0, target)
    with pytest.raises(ValueError, match="one label per example"):
        score(features, target[1:])
    with pytest.raises(ValueError, match="at least 2"):
        score(features[:1], target[:1])


def test_bad_options_are_refused():
    features, target = problem()
    with pytest.raises(ValueError, match="weighting"):
        trans_rate(features, target, weighting="mean")
    with pytest.raises(ValueError, match="epsilon"):
        trans_rate(features, target, epsilon=0.0)
    with pytest.raises(ValueError, match="max_rounds"):
        log_me(features, target, max_rounds=0)
    with pytest.raises(ValueError, match="tolerance"):
        log_evidence(features, features, tolerance=0.0)
    with pytest.raises(ValueError, match="column 1 is 0 throughout"):
        log_me(features, torch.tensor([1.0, 0.0]).repeat(60, 1))
    with pytest.raises(ValueError, match=r"responses must have shape \(60, T\)"):
        log_me(features, torch.ones(59))
    with pytest.raises(ValueError, match="responses must be finite"):
        log_me(features, torch.full((60,), math.nan))
    with pytest.raises(ValueError, match="neither of them 0"):
        leep(source_prob=torch.ones(0, 2), target=torch.arange(0))
    with pytest.raises(ValueError, match="at least one label"):
        nce(source_label=torch.arange(0), target=torch.arange(0))
