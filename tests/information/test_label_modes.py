"""Modes of the label: against SciPy's tables and canonical correlations."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from lastlayer.functional.dependence import ace, maximal_correlation
from lastlayer.information import label_modes


def problem(n: int = 4000, d: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.multinomial(torch.tensor([1.0, 2, 3, 4]), n, True, generator=generator)
    means = torch.randn(4, d, generator=generator)
    return means[target] + torch.randn(n, d, generator=generator), target


def table(prediction: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    counts = np.zeros((4, 4))
    np.add.at(counts, (prediction.numpy(), target.numpy()), 1)
    return counts


def test_the_correlations_are_the_singular_values_of_the_whitened_table():
    features, target = problem()
    prediction = (features @ features[:4].T).argmax(1)
    found = label_modes(prediction, target)
    joint = table(prediction, target)
    whitened = joint / np.sqrt(np.outer(joint.sum(1), joint.sum(0)))
    expected = linalg.svdvals(whitened)
    assert expected[0] == pytest.approx(1.0)  # the constant functions
    np.testing.assert_allclose(found.correlation, expected[1:4], atol=1e-12)
    chi2 = stats.chi2_contingency(joint, correction=False).statistic
    assert found.squares == pytest.approx(chi2 / len(target), abs=1e-12)
    assert found.squares_null == pytest.approx(9 / (len(target) - 1))
    of_table = torch.from_numpy(joint)
    assert float(found.correlation[0]) == pytest.approx(float(maximal_correlation(of_table)))
    by_ace = ace(of_table, 3, generator=torch.Generator().manual_seed(0)).sigma
    torch.testing.assert_close(found.correlation, by_ace, atol=1e-9, rtol=0)


def test_the_functions_are_standardized_over_the_examples_and_best_for_the_prediction():
    features, target = problem()
    prediction = (features @ features[:4].T).argmax(1)
    found = label_modes(prediction, target)
    g = found.functions[target]
    torch.testing.assert_close(g.mean(0), torch.zeros(3).double(), atol=1e-10, rtol=0)
    torch.testing.assert_close(g.T @ g / len(g), torch.eye(3).double(), atol=1e-10, rtol=0)
    # The best function of the prediction is the mean of g given it.
    means = torch.stack([g[prediction == z].mean(0) for z in range(4)])[prediction]
    correlation = [np.corrcoef(means[:, i], g[:, i])[0, 1] for i in range(3)]
    np.testing.assert_allclose(found.correlation, correlation, atol=1e-10)


def test_ace_on_half_of_the_examples_finds_the_canonical_correlations_on_the_others():
    features, target = problem()
    found = label_modes(target, target, features=features).of_features
    x, y = features.double(), torch.eye(4).double()[target][:, :3]
    x, y = x - x.mean(0), y - y.mean(0)
    expected = linalg.svdvals(np.linalg.qr(x)[0].T @ np.linalg.qr(y)[0])
    # Standard error of a correlation of 2,000 pairs; the fit costs less than another.
    np.testing.assert_allclose(found, expected, atol=6 / math.sqrt(2000))


def test_features_that_know_nothing_correlate_with_nothing_however_many_they_are():
    _, target = problem(400)
    noise = torch.randn(400, 300, generator=torch.Generator().manual_seed(1))
    found = label_modes(target, target, features=noise)
    assert bool((found.of_features.abs() < 5 / math.sqrt(200)).all())
    torch.testing.assert_close(found.correlation, torch.ones(3).double())


@pytest.mark.parametrize("features", [torch.ones(40, 3), torch.zeros(40, 1)])
def test_constant_features_have_correlation_zero(features):
    target = torch.arange(40) % 3
    found = label_modes(target, target, features=features).of_features
    assert found.tolist() == [0.0, 0.0]


def test_dependent_features_are_no_trouble():
    features, target = problem(400)
    once = label_modes(target, target, features=features).of_features
    twice = label_modes(target, target, features=torch.cat([features, features], 1)).of_features
    torch.testing.assert_close(twice, once, atol=0.02, rtol=0)


def test_the_ends_of_a_mode_are_the_classes_that_it_tells_apart():
    """Classes 0 and 1 are told from 2 and 4 always, within the pairs never; 3 does not occur."""
    target = torch.tensor([0, 1, 2, 4] * 5)
    prediction = torch.tensor([0, 0, 2, 2] * 5)
    found = label_modes(prediction, target, num_classes=5)
    assert found.correlation.tolist() == pytest.approx([1.0])
    assert [sorted(end) for end in found.ends(0)] == [[0, 1], [2, 4]]
    assert found.functions[3].item() == 0.0
    names = ["a", "b", "c", "d", "e"]
    assert sorted(" ".join(found.rows(names)[0][3:]).split()) == ["a", "b", "c", "e"]
    text = str(found).splitlines()
    assert text[1].split()[:3] == ["1", "1.0000", "–"]
    assert text[-1].startswith("squares sum to 1.0000, by chance to 0.1579")  # 3 / 19
    assert json.loads(json.dumps(found.as_dict()))["of_features"] is None


def test_one_predicted_or_true_class_has_no_mode():
    target = torch.arange(6) % 2
    for pair in ((torch.zeros(6, dtype=torch.int64), target), (target, torch.zeros(6).long())):
        found = label_modes(*pair, features=torch.randn(6, 2))
        assert found.correlation.shape == (0,)
        assert found.squares == 0.0


def test_what_does_not_fit_is_refused():
    target = torch.arange(6) % 2
    with pytest.raises(ValueError, match="num_modes must be"):
        label_modes(target, target, num_modes=0)
    with pytest.raises(ValueError, match="y must lie in"):
        label_modes(target, target, num_classes=1)
    with pytest.raises(TypeError, match="prediction"):
        label_modes(target.double(), target)
    with pytest.raises(ValueError, match="one label per example"):
        label_modes(target, target, features=torch.ones(5, 2))
