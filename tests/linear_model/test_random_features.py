"""Random features: what is drawn, what comes out, and that scikit-learn accepts them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.spatial.distance import cdist
from scipy.special import expit
from sklearn.utils.estimator_checks import parametrize_with_checks

from lastlayer.linear_model import RandomFeatures

ORACLES = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh, "sigmoid": expit}


@parametrize_with_checks([RandomFeatures(7, random_state=0), RandomFeatures(7, "cos")])
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


def rows(count=30, width=5, seed=0):
    return np.random.default_rng(seed).normal(2, 3, (count, width))


@pytest.mark.parametrize("activation", ORACLES)
def test_the_features_are_the_activation_of_the_stored_layer(activation):
    layer = RandomFeatures(11, activation, scale=0.3, random_state=1).fit(rows())
    expected = ORACLES[activation](rows(9, seed=2) @ layer.components_.T + layer.offset_)
    np.testing.assert_allclose(layer.transform(rows(9, seed=2)), expected, rtol=1e-12)


@settings(max_examples=10)
@given(st.floats(0.1, 1.5), st.integers(0, 1000))
def test_inner_products_of_cosines_approach_the_gaussian_kernel(scale, seed):
    points = np.random.default_rng(seed).normal(size=(6, 3))
    features = RandomFeatures(20_000, "cos", scale, seed).fit_transform(points)
    kernel = np.exp(-0.5 * scale**2 * cdist(points, points, "sqeuclidean"))
    # A product of two cosines times 2 has a variance of at most 1.5.
    np.testing.assert_allclose(features @ features.T, kernel, atol=5 * np.sqrt(1.5 / 20_000))


def test_automatic_scale_gives_projections_of_unit_variance_whatever_the_units():
    for unit in (1e-3, 1.0, 1e3):
        layer = RandomFeatures(4000, random_state=0).fit(unit * rows())
        projected = unit * rows() @ layer.components_.T
        # The root mean square over 4,000 draws; rows differ in norm, hence the fourth moment.
        assert np.mean(projected**2) == pytest.approx(1, abs=5 * np.sqrt(2 * 4 / 4000))
    first, second = (RandomFeatures(3, random_state=0).fit_transform(u * rows()) for u in (1, 10))
    np.testing.assert_allclose(first, second, rtol=1e-10)


def test_the_draw_is_normal_with_the_scale_asked_for():
    layer = RandomFeatures(3000, scale=0.2, random_state=3).fit(rows())
    drawn = layer.components_ / 0.2
    assert abs(drawn.mean()) < 5 / np.sqrt(drawn.size)
    assert abs(drawn.var() - 1) < 5 * np.sqrt(2 / drawn.size)
    assert abs(layer.offset_.var() - 1) < 5 * np.sqrt(2 / len(layer.offset_))


@pytest.mark.parametrize("activation", [*ORACLES, "cos"])
def test_float32_stays_and_draws_the_same_layer(activation):
    double = RandomFeatures(8, activation, random_state=0).fit(rows())
    single = RandomFeatures(8, activation, random_state=0).fit(rows().astype(np.float32))
    features = single.transform(rows().astype(np.float32))
    assert features.dtype == single.components_.dtype == np.float32
    np.testing.assert_allclose(features, double.transform(rows()), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_give_tensors_of_the_same_values_and_keep_the_input(dtype):
    given_rows = torch.from_numpy(rows()).to(dtype)
    kept = given_rows.clone()
    layer = RandomFeatures(8, random_state=0).fit(given_rows)
    features = layer.transform(given_rows)
    assert features.dtype == dtype
    assert torch.equal(given_rows, kept)
    np.testing.assert_allclose(features.numpy(), layer.transform(given_rows.numpy()), rtol=1e-5)


def test_a_sparse_matrix_gives_what_the_dense_one_gives():
    dense = rows() * (rows(seed=5) > 2)
    layer = RandomFeatures(8, random_state=0)
    found = layer.fit(sparse.csr_array(dense)).transform(sparse.csr_array(dense))
    np.testing.assert_allclose(found, layer.fit(dense).transform(dense), rtol=1e-10)


def test_rows_of_zeros_have_a_scale():
    assert RandomFeatures(2).fit(np.zeros((3, 2))).scale_ == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 0}, "n_components must be a whole number of at least 1"),
        ({"activation": "relux"}, "activation must be one of 'relu'"),
        ({"scale": 0.0}, "scale must be a finite number above 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        RandomFeatures(**options).fit(rows())


def test_rows_that_are_not_finite_are_counted_and_other_widths_refused():
    bad = rows()
    bad[[1, 4], 0] = np.nan
    with pytest.raises(ValueError, match="2 of 30 rows"):
        RandomFeatures(2).fit(bad)
    layer = RandomFeatures(2).fit(rows())
    with pytest.raises(ValueError, match="expecting 5 features"):
        layer.transform(torch.zeros(2, 4))
