"""Weight alignment and the nearest mean against NumPy and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lastlayer.functional.incremental import (
    aligned_weight,
    alignment_factor,
    class_means,
    nearest_mean_scores,
)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_factor_is_numpys_and_makes_the_mean_norms_equal():
    weight = randn(7, 4) * torch.arange(1, 8).unsqueeze(1)
    norms = np.linalg.norm(weight.numpy(), axis=1)
    factor = alignment_factor(weight, 3)
    assert float(factor) == pytest.approx(norms[:3].mean() / norms[3:].mean(), rel=1e-12)
    aligned = aligned_weight(weight, 3)
    assert aligned[:3].equal(weight[:3])
    torch.testing.assert_close(aligned[:3].norm(dim=1).mean(), aligned[3:].norm(dim=1).mean())
    torch.testing.assert_close(aligned[3:] / weight[3:], factor.expand(4, 4))
    assert float(alignment_factor(aligned, 3)) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("num_old", [0, 3])
def test_with_classes_of_one_kind_only_nothing_changes(num_old):
    weight = randn(3, 4)
    assert alignment_factor(weight, num_old) == 1
    assert aligned_weight(weight, num_old).equal(weight)
    assert alignment_factor(torch.zeros(3, 4), num_old) == 1


def test_half_precision_stays_and_old_rows_are_the_same_bits():
    weight = randn(5, 300).bfloat16()
    aligned = aligned_weight(weight, 2)
    assert aligned.dtype == torch.bfloat16
    assert aligned[:2].equal(weight[:2])
    expected = aligned_weight(weight.double(), 2)
    torch.testing.assert_close(aligned.double(), expected, rtol=2**-8, atol=0)


def test_new_rows_of_zeros_and_bad_input_are_refused():
    weight = torch.ones(3, 2)
    weight[2] = 0
    with pytest.raises(ValueError, match="not zero; all 1 are"):
        alignment_factor(weight, 2)
    with pytest.raises(ValueError, match="num_old"):
        alignment_factor(weight, 4)
    with pytest.raises(ValueError, match="weight"):
        alignment_factor(weight[0], 0)
    with pytest.raises(TypeError, match="weight"):
        aligned_weight(weight.long(), 1)


@given(st.integers(0, 1000), st.integers(1, 12))
@settings(max_examples=40)
def test_the_prediction_is_the_nearest_mean_by_brute_force(seed, num):
    features, target = randn(num, 3, seed=seed), torch.arange(num) % 4
    queries = randn(5, 3, seed=seed + 1)
    means = {}
    for label in set(target.tolist()):
        rows = features[target == label].numpy()
        mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
        means[label] = mean / np.linalg.norm(mean)
    ours = class_means(features, target, 5)
    scores = nearest_mean_scores(queries, ours)
    for label in range(5):
        if label not in means:
            assert ours[label].isnan().all()
            assert scores[:, label].eq(-torch.inf).all()
            continue
        np.testing.assert_allclose(ours[label].numpy(), means[label], atol=1e-12)
        unit = queries.numpy() / np.linalg.norm(queries.numpy(), axis=1, keepdims=True)
        expected = -((unit - means[label]) ** 2).sum(axis=1)
        np.testing.assert_allclose(scores[:, label].numpy(), expected, atol=1e-12)
    assert int(scores[0].argmax()) in means


def test_zero_features_and_cancelling_ones_have_the_mean_zero():
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-3.0, 0.0]])
    means = class_means(features, torch.tensor([0, 1, 1]), 2)
    assert means.eq(0).all()
    scores = nearest_mean_scores(torch.tensor([[0.0, 2.0], [0.0, 0.0]]), means)
    assert scores.tolist() == [[-1.0, -1.0], [0.0, 0.0]]


def test_scores_are_differentiable_beside_a_class_without_examples():
    means = class_means(randn(4, 3), torch.tensor([0, 0, 2, 2]), 3)
    features = randn(2, 5, 3, seed=1).requires_grad_()
    assert nearest_mean_scores(features, means).shape == (2, 5, 3)
    known = [0, 2]
    assert torch.autograd.gradcheck(lambda f: nearest_mean_scores(f, means)[..., known], features)


def test_half_precision_is_computed_in_float32():
    features, target = randn(60, 8).half(), torch.arange(60) % 3
    means = class_means(features, target, 3)
    assert means.dtype == torch.float32
    torch.testing.assert_close(means, class_means(features.double(), target, 3).float())
    assert nearest_mean_scores(features, means).dtype == torch.float32
    assert (nearest_mean_scores(features, means) <= 0).all()


def test_bad_input_of_means_is_named():
    features, target = torch.ones(2, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"target must lie in \[0, 0\]"):
        class_means(features, target, 1)
    with pytest.raises(ValueError, match="num_classes"):
        class_means(features, target, 0)
    with pytest.raises(ValueError, match="target"):
        class_means(features, target[:1], 2)
    with pytest.raises(TypeError, match="int64"):
        class_means(features, target.int(), 2)
    with pytest.raises(ValueError, match=r"\(\*, 2\)"):
        nearest_mean_scores(features, torch.ones(2, 2))
