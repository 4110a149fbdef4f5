"""Class weights: the same by every way into an estimator, and refused in the same words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lastlayer.linear_model import (
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
    SGDSoftmax,
    regularization_path,
)
from lastlayer.linear_model.rows import rows_from_files, rows_in_memory


@pytest.fixture(scope="module")
def given(noisy):
    return noisy()


def by_fit(estimator, given, folder):
    estimator.fit(given.X, given.y, given.weight)


def by_path(estimator, given, folder):
    validation = (given.X, given.y)
    regularization_path(
        estimator, given.X, given.y, Cs=[1.0], validation=validation, sample_weight=given.weight
    )


def by_rows(estimator, given, folder):
    weight = None if given.weight is None else torch.from_numpy(given.weight)
    rows = rows_in_memory(torch.from_numpy(given.X), torch.from_numpy(given.y), weight)
    estimator.fit_rows(rows, [0, 1, 2])


def by_files(estimator, given, folder):
    np.save(folder / "X.npy", given.X)
    estimator.fit_rows(rows_from_files(folder / "X.npy", given.y, given.weight))


def by_stream(estimator, given, folder):
    SGDSoftmax(class_weight=estimator.class_weight).partial_fit(
        given.X, given.y, [0, 1, 2], given.weight
    )


ways = pytest.mark.parametrize("way", [by_fit, by_path, by_rows, by_files, by_stream])


@ways
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({0: -1.0}, r"class_weight must hold finite numbers of at least 0; got \{0: -1.0\}"),
        ({1: np.nan, 2: 1}, r"finite numbers of at least 0; got \{1: nan\}"),
        ({0: np.inf}, r"finite numbers of at least 0; got \{0: inf\}"),
        ({0: "1"}, r"finite numbers of at least 0; got \{0: '1'\}"),
        ({0: None}, r"finite numbers of at least 0; got \{0: None\}"),
        ({0: 0, 1: 0.0, 2: 0}, "class_weight must not be 0 for all classes whose rows have a"),
        ([1.0, 2.0, 3.0], r"None, 'balanced' or a dictionary from label to weight; got \[1.0"),
        ("even", "None, 'balanced' or a dictionary from label to weight; got 'even'"),
    ],
    ids=str,
)
def test_what_are_no_class_weights_is_said_in_one_way(given, way, weights, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        way(LBFGSSoftmax(class_weight=weights), given, tmp_path)


@ways
def test_weights_of_0_for_the_only_class_that_has_any_are_refused(given, way, tmp_path):
    given = given._replace(weight=np.where(given.y == 1, 1.0, 0.0))
    with pytest.raises(ValueError, match="class_weight must not be 0 for all classes whose rows"):
        way(LBFGSSoftmax(class_weight={1: 0.0}), given, tmp_path)


@pytest.mark.parametrize("way", [by_fit, by_rows, by_files])
def test_balanced_classes_without_weight_do_not_count(given, way, tmp_path):
    """The others by hand: half of the weight of all rows each."""
    weight = np.where(given.y == 1, 0.0, np.random.default_rng(0).exponential(size=60))
    given = given._replace(weight=weight)
    options = {"tol": 1e-6, "max_iter": 500}
    model = LBFGSSoftmax(class_weight="balanced", **options)
    way(model, given, tmp_path)
    totals = np.bincount(given.y, weights=weight)
    factors = np.where(totals > 0, weight.sum() / 2 / np.where(totals > 0, totals, 1), 1.0)
    by_hand = given._replace(weight=weight * factors[given.y])
    other = by_hand.fit(LBFGSSoftmax, **options)
    assert by_hand.of(model) == pytest.approx(by_hand.of(other), rel=1e-6)
    np.testing.assert_allclose(
        model.predict_proba(given.X), other.predict_proba(given.X), atol=1e-3
    )


def test_a_batch_need_not_have_all_classes_that_are_weighted(given):
    """Weights of a dictionary are those of sample weights, batch by batch."""
    factors = np.array([1.0, 1.0, 5.0])
    model = SGDSoftmax(class_weight={2: 5.0}, random_state=0)
    other = SGDSoftmax(random_state=0)
    for rows in (given.y < 2, given.y >= 0):
        X, y = given.X[rows], given.y[rows]
        model.partial_fit(X, y, [0, 1, 2])
        other.partial_fit(X, y, [0, 1, 2], factors[y])
    np.testing.assert_allclose(model.coef_, other.coef_, rtol=1e-12)


def test_a_stream_is_not_balanced_batch_by_batch(given):
    message = "class_weight='balanced' is not for partial_fit, .*; pass a dictionary"
    model = SGDSoftmax(class_weight="balanced", max_iter=500, tol=0.1, random_state=0)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(given.X, given.y, [0, 1, 2])
    assert not hasattr(model, "coef_")
    model.fit(given.X, given.y)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(given.X, given.y)


def test_numbers_of_numpy_are_weights(given):
    one = given.fit(
        NewtonKrylovSoftmax, class_weight={0: np.float32(2.0), np.int64(1): np.int32(3)}
    )
    other = given.fit(NewtonKrylovSoftmax, class_weight={0: 2, 1: 3})
    np.testing.assert_array_equal(one.coef_, other.coef_)
