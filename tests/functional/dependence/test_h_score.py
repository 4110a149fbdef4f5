"""One-sided H-scores: oracles, invariances, degenerate features, null, shrinkage, streaming."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from lastlayer.functional.dependence import (
    HScoreSums,
    h_score,
    h_score_aic,
    h_score_null,
    h_score_warnings,
    ledoit_wolf_alpha,
    shrunk_h_score,
)
from lastlayer.functional.dependence.class_spread import class_spread


def problem(
    n: int = 300, d: int = 7, classes: int = 4, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated features with class means, classes of unequal size, all present."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.arange(1, classes + 1).double()
    target = torch.multinomial(weight, n, replacement=True, generator=generator)
    target[:classes] = torch.arange(classes)
    means = torch.randn(classes, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return (means[target] + 2 * noise) @ mixing + 5, target


def test_h_score_is_pillais_trace_of_statsmodels():
    manova = pytest.importorskip("statsmodels.multivariate.manova")
    features, target = problem()
    one_hot = F.one_hot(target).double().numpy()
    contrast = np.diff(np.eye(4), axis=0)
    tests = manova.MANOVA(features.numpy(), one_hot).mv_test([("group", contrast)])
    pillai = tests.results["group"]["stat"].loc["Pillai's trace", "Value"]
    assert float(h_score(features, target)) == pytest.approx(float(pillai), abs=1e-8)


def test_h_score_is_the_sum_of_squared_canonical_correlations():
    features, target = problem()
    centered = (features - features.mean(0)).numpy()
    one_hot = F.one_hot(target).double().numpy()[:, 1:]
    correlations = np.cos(linalg.subspace_angles(centered, one_hot - one_hot.mean(0)))
    assert float(h_score(features, target)) == pytest.approx(np.square(correlations).sum(), 1e-10)


def test_h_score_is_the_trace_with_an_inverse_whatever_the_divisor():
    features, target = problem()
    total = torch.cov(features.T, correction=0)
    means = torch.stack([features[target == y].mean(0) for y in target])
    for ddof in (0, 1):
        within = torch.cov(means.T, correction=ddof)
        between = torch.linalg.solve(total * 300 / (300 - ddof), within)
        torch.testing.assert_close(h_score(features, target), between.trace())


def test_h_score_is_read_from_the_eigenvalues_of_discriminant_analysis():
    features, target = problem()
    centered = features - features.mean(0)
    means = torch.stack([centered[target == y].mean(0) for y in target])
    between, within = means.T @ means, (centered - means).T @ (centered - means)
    eigenvalues = linalg.eigh(between.numpy(), within.numpy(), eigvals_only=True)
    expected = (eigenvalues / (1 + eigenvalues)).sum()
    assert float(h_score(features, target)) == pytest.approx(expected, abs=1e-10)
    projected = LinearDiscriminantAnalysis().fit_transform(features.numpy(), target.numpy())
    projected_score = h_score(torch.tensor(projected), target)
    torch.testing.assert_close(projected_score, h_score(features, target))


def test_h_score_of_a_one_hot_is_pearsons_statistic_per_sample():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(5, (400,), generator=generator)
    target = (x + torch.randint(3, (400,), generator=generator)) % 4
    counts = np.zeros((5, 4))
    np.add.at(counts, (x.numpy(), target.numpy()), 1)
    statistic = stats.chi2_contingency(counts, correction=False).statistic
    assert float(h_score(F.one_hot(x).double(), target)) == pytest.approx(statistic / 400)


@pytest.mark.parametrize(("mean", "value"), [(0.5, 0.2), (1.0, 0.5), (2.0, 0.8)])
def test_h_score_of_two_classes_of_unit_variance_is_the_closed_form(mean, value):
    features = torch.tensor([[mean - 1], [mean + 1], [-mean - 1], [-mean + 1]])
    assert float(h_score(features, torch.tensor([0, 0, 1, 1]))) == pytest.approx(value)


def test_h_score_of_a_scale_mixture_is_zero_until_it_is_squared():
    features, target = torch.tensor([[-1.0], [1.0], [-3.0], [3.0]]), torch.tensor([0, 0, 1, 1])
    assert float(h_score(features, target)) == pytest.approx(0.0, abs=1e-15)
    assert float(h_score(features.square(), target)) == pytest.approx(1.0)


@settings(max_examples=30)
@given(st.integers(5, 60), st.integers(1, 12), st.integers(2, 5), st.integers(0, 10_000))
def test_h_score_lies_between_zero_and_rank_and_classes(n, d, classes, seed):
    features, target = problem(n, d, classes, seed)
    assert -1e-12 <= float(h_score(features, target)) <= min(d, n - 1, classes - 1) + 1e-9


def test_affine_maps_and_names_of_labels_leave_the_h_score():
    features, target = problem()
    generator = torch.Generator().manual_seed(9)
    matrix = torch.randn(7, 7, generator=generator, dtype=torch.float64)
    expected = h_score(features, target)
    torch.testing.assert_close(h_score(features @ matrix - 3, target), expected)
    units = torch.logspace(-12, 12, 7, dtype=torch.float64)
    torch.testing.assert_close(h_score(features * units, target), expected)
    torch.testing.assert_close(h_score(features, (target + 1) % 4), expected)
    scattered = torch.tensor([-5, 7, 100, 2**40])[target]
    torch.testing.assert_close(h_score(features, scattered), expected)


def test_a_linear_map_to_fewer_features_never_raises_the_h_score():
    features, target = problem()
    assert float(h_score(features[:, :3], target)) < float(h_score(features, target))


def test_duplicate_constant_and_dependent_features_add_nothing():
    features, target = problem()
    constant = torch.full((300, 1), 0.1, dtype=torch.float64)
    more = torch.cat([features, features[:, :1], constant, features.sum(1, keepdim=True)], dim=1)
    torch.testing.assert_close(h_score(more, target), h_score(features, target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_constant_features_and_a_single_class_score_zero(dtype):
    target = torch.arange(30) % 3
    constant = torch.full((30, 4), 0.1, dtype=dtype)
    noise = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    for score in (h_score, shrunk_h_score):
        assert float(score(constant, target)) == 0.0
        assert float(score(noise, torch.zeros(30, dtype=torch.int64))) == 0.0


def test_low_precision_features_are_scored_in_double_precision():
    features, target = problem()
    low = features.float()
    torch.testing.assert_close(h_score(low, target), h_score(low.double(), target))
    torch.testing.assert_close(
        h_score(features.bfloat16(), target), h_score(features, target), atol=0.02, rtol=0
    )


def test_noise_of_as_many_features_as_examples_scores_the_maximum():
    noise = torch.randn(20, 25, generator=torch.Generator().manual_seed(0))
    target = torch.arange(20) % 4
    assert float(h_score(noise, target)) == pytest.approx(3.0, abs=1e-10)
    assert h_score_null(25, 4, 20) == 3.0
    (warning,) = h_score_warnings(25, 4, 20)
    assert "noise included" in warning
    (warning,) = h_score_warnings(10, 4, 60)
    assert "0.508 without knowing" in warning
    (warning,) = h_score_warnings(10, 1, 60)
    assert "one label" in warning


@pytest.mark.parametrize(("n", "d", "classes"), [(200, 50, 10), (200, 150, 10), (1000, 50, 10)])
def test_noise_scores_the_null_on_average(n, d, classes):
    generator = torch.Generator().manual_seed(4)
    target = torch.arange(n) % classes
    scores = [float(h_score(torch.randn(n, d, generator=generator), target)) for _ in range(40)]
    error = np.std(scores, ddof=1) / math.sqrt(len(scores))
    assert abs(np.mean(scores) - h_score_null(d, classes, n)) < 5 * error


def test_the_printed_nulls_are_the_formula():
    printed = {(200, 50): 2.261, (200, 150): 6.784, (1000, 50): 0.450}
    for (n, d), value in printed.items():
        assert h_score_null(d, 10, n) == pytest.approx(value, abs=5e-4)


def test_aic_takes_the_half_and_the_parameters_per_example():
    assert h_score_aic(3.0, 0, 1) == 1.5
    assert h_score_aic(3.0, 26_000, 1_300_000) == pytest.approx(1.48)


@pytest.mark.parametrize(("n", "d"), [(300, 7), (20, 40), (5, 1), (2, 3)])
def test_alpha_is_scikit_learns(n, d):
    features, _ = problem(n, d, classes=2)
    expected = ledoit_wolf_shrinkage(features.numpy())
    assert float(ledoit_wolf_alpha(features)) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("n", "d"), [(300, 7), (20, 40)])
def test_shrunk_h_score_is_the_trace_with_the_shrunk_inverse(n, d):
    features, target = problem(n, d)
    centered = features - features.mean(0)
    means = torch.stack([centered[target == y].mean(0) for y in target])
    covariance, between = centered.T @ centered / n, means.T @ means / n
    for alpha in (None, 0.3, 1.0):
        share = ledoit_wolf_shrinkage(features.numpy()) if alpha is None else alpha
        sphere = covariance.trace() / d * torch.eye(d)
        shrunk = (1 - share) * covariance + share * sphere
        expected = torch.linalg.solve(shrunk, (1 - share) * between).trace()
        torch.testing.assert_close(shrunk_h_score(features, target, alpha=alpha), expected)
    assert shrunk_h_score(features, target) <= h_score(features, target)


def test_shrunk_h_score_of_noise_is_far_below_the_plain_one():
    noise = torch.randn(100, 60, generator=torch.Generator().manual_seed(0))
    target = torch.arange(100) % 5
    assert float(shrunk_h_score(noise, target)) < 0.2 * float(h_score(noise, target))


def in_batches(features: torch.Tensor, target: torch.Tensor, sizes: list[int]) -> HScoreSums:
    sums = HScoreSums()
    for batch, labels in zip(features.split(sizes), target.split(sizes), strict=True):
        sums.update(batch, labels)
    return sums


@pytest.mark.parametrize("sizes", [[300], [1, 299], [100, 0, 150, 50], [2] * 150], ids=str)
def test_sums_over_batches_give_the_scores_of_all_at_once(sizes):
    features, target = problem()
    order = target.argsort()  # classes appear batch after batch
    sums = in_batches(features[order], target[order] * 10 - 3, sizes)
    torch.testing.assert_close(sums.h_score(), h_score(features, target), atol=1e-10, rtol=0)
    shrunk = shrunk_h_score(features, target)
    torch.testing.assert_close(sums.shrunk_h_score(), shrunk, atol=1e-10, rtol=0)


def test_sums_survive_a_large_mean_and_dependent_features():
    features, target = problem()
    constant = torch.full((300, 1), 0.1, dtype=torch.float64)
    more = torch.cat([features + 1e6, features[:, :1] + 1e6, constant], dim=1)
    sums = in_batches(more, target, [100] * 3)
    assert sums.spread().rank == 7
    torch.testing.assert_close(sums.h_score(), h_score(features, target), atol=1e-7, rtol=0)


@pytest.mark.parametrize("n", [30, 60, 61, 62, 200])  # fewer examples than features, and more
@pytest.mark.parametrize("kind", ["full", "dependent", "constant"])
def test_sums_of_few_or_many_examples_leave_out_what_the_svd_of_all_leaves_out(n, kind):
    features, target = problem(n, 61)
    if kind == "dependent":
        features[:, 50:] = features[:, :11] - 2 * features[:, 11:22]
    elif kind == "constant":
        features[:, 7] = 0.1
    sums = in_batches(features, target, [25, n - 25])
    value, rank = sums.h_score_and_rank()
    expected = class_spread(features, target)
    assert rank == expected.rank == sums.spread().rank
    for found in (value, sums.spread().between.sum()):
        torch.testing.assert_close(found, expected.between.sum(), atol=1e-8, rtol=0)
    shrunk = shrunk_h_score(features, target)
    torch.testing.assert_close(sums.shrunk_h_score(), shrunk, atol=1e-8, rtol=0)
    assert sums.sizes == (61, 4, n)


def test_sums_leave_out_directions_below_a_given_share_of_the_largest():
    features, target = problem(200, 5)
    features[:, 4] = features[:, 3] + 1e-3 * features[:, 4]  # an eigenvalue of about 2e-7
    sums = in_batches(features, target, [200])
    assert [sums.h_score_and_rank(rtol=rtol)[1] for rtol in (None, 1e-9, 1e-5)] == [5, 5, 4]
    kept = class_spread(features, target, rtol=1e-5**0.5).between.sum()
    torch.testing.assert_close(sums.h_score(rtol=1e-5), kept, atol=1e-8, rtol=0)
    assert float(sums.h_score()) > float(kept)


def test_sums_of_constant_features_or_one_class_score_zero():
    target = torch.arange(30) % 3
    constant = in_batches(torch.full((30, 4), 0.1), target, [11, 19])
    assert float(constant.h_score()) == float(constant.shrunk_h_score()) == 0.0
    features, _ = problem(30)
    single = in_batches(features, torch.zeros(30, dtype=torch.int64), [11, 19])
    assert float(single.h_score()) == 0.0


def test_sums_refuse_what_does_not_fit():
    sums = HScoreSums()
    with pytest.raises(ValueError, match="at least 2 examples; got 0"):
        sums.h_score()
    sums.update(torch.ones(1, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match="at least 2 examples; got 1"):
        sums.shrunk_h_score()
    with pytest.raises(ValueError, match=r"shape \(B, 3\)"):
        sums.update(torch.ones(2, 4), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="finite"):
        sums.update(torch.full((2, 3), math.inf), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="one label per example"):
        sums.update(torch.ones(2, 3), torch.tensor([0]))


@pytest.mark.parametrize("score", [h_score, shrunk_h_score])
@pytest.mark.parametrize(
    ("features", "target", "error", "match"),
    [
        (torch.ones(1, 2), torch.tensor([0]), ValueError, "at least 2 examples"),
        (torch.ones(4), torch.arange(4), ValueError, r"shape \(N, D\)"),
        (torch.ones(4, 0), torch.arange(4), ValueError, r"shape \(N, D\)"),
        (torch.ones(4, 2), torch.arange(3), ValueError, "one label per example"),
        (torch.ones(4, 2), torch.arange(4.0), TypeError, "integer"),
        (torch.ones(4, 2, dtype=torch.int64), torch.arange(4), TypeError, "floating-point"),
        (torch.tensor([[1.0], [math.nan]]), torch.arange(2), ValueError, "1 NaN or infinite of 2"),
    ],
    ids=["n=1", "1-d", "d=0", "lengths", "float target", "int features", "nan"],
)
def test_bad_features_and_labels_are_refused(score, features, target, error, match):
    with pytest.raises(error, match=match):
        score(features, target)


def test_bad_options_are_refused():
    features, target = problem(10, 2, 2)
    with pytest.raises(ValueError, match="alpha"):
        shrunk_h_score(features, target, alpha=1.5)
    with pytest.raises(ValueError, match="num_examples"):
        h_score_null(3, 2, 1)
    with pytest.raises(ValueError, match=r"features must have shape \(N, D\)"):
        ledoit_wolf_alpha(torch.ones(3))
