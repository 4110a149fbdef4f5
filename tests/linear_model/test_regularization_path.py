"""A path over C: its fits, what is measured on held-out examples, and which fit is chosen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from lastlayer.linear_model import (
    SOLVERS,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
    PathPoint,
    RegularizationPath,
    block_reductions,
    float32_problem,
    prepared_data,
    regularization_path,
)
from lastlayer.linear_model import problem as linear_problem
from lastlayer.linear_model.prepared_data import PreparedData, clone_with
from lastlayer.linear_model.rows import memory as linear_rows

CS = (1e-3, 1e-1, 1e1)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    return (X[:300], y[:300]), (X[300:500], y[300:500])


@pytest.fixture(scope="module")
def path(digits):
    (X, y), held_out = digits
    return regularization_path(NewtonKrylovSoftmax(tol=1e-12), X, y, Cs=CS, validation=held_out)


def test_every_fit_is_the_cold_fit_and_scikit_learns(path, digits):
    (X, y), (X_held_out, y_held_out) = digits
    for point in path.points:
        cold = NewtonKrylovSoftmax(point.C, tol=1e-12).fit(X, y)
        np.testing.assert_allclose(point.model.coef_, cold.coef_, atol=1e-5)
        theirs = LogisticRegression(C=point.C, tol=1e-8, max_iter=2000).fit(X, y)
        log_prob = theirs.predict_log_proba(X_held_out)[np.arange(200), y_held_out]
        assert point.nll == pytest.approx(-log_prob.mean(), rel=1e-4)
        assert point.standard_error == pytest.approx(
            log_prob.std(ddof=1) / math.sqrt(200), rel=1e-3
        )
        assert point.accuracy == pytest.approx(theirs.score(X_held_out, y_held_out), abs=0.006)


def test_it_goes_from_the_strongest_penalty_to_the_weakest_whatever_the_order(path, digits):
    (X, y), held_out = digits
    assert [point.C for point in path.points] == list(CS)
    turned = regularization_path(LBFGSSoftmax(tol=1e-3), X, y, Cs=CS[::-1], validation=held_out)
    assert turned.columns()["C"] == list(CS)


def test_warm_starts_take_fewer_iterations_than_cold_ones(digits):
    (X, y), held_out = digits
    strengths = np.logspace(-2, 0, 9)
    path = regularization_path(LBFGSSoftmax(), X, y, Cs=strengths, validation=held_out)
    warm = sum(point.model.n_iter_ for point in path.points)
    cold = sum(LBFGSSoftmax(C).fit(X, y).n_iter_ for C in strengths)
    assert warm < cold


def test_the_gram_matrix_is_formed_once(digits, monkeypatch):
    (X, y), held_out = digits
    calls = []
    plain = block_reductions.gram

    def counted(block):
        calls.append(block)
        return plain(block)

    monkeypatch.setattr(block_reductions, "gram", counted)
    monkeypatch.setattr(
        "lastlayer.linear_model.prepared_data.CONSTANT_STEPS", (block_reductions.totals, counted)
    )
    estimator = NewtonKrylovSoftmax(preconditioner="gram")
    fits = regularization_path(estimator, X, y, Cs=CS, validation=held_out)
    blocks = len(PreparedData(estimator, X, y).rows.blocks)
    assert len(calls) == blocks
    assert all(point.model.converged_ for point in fits.points)


def counted(monkeypatch, module, name):
    """Replace a function by one that counts its calls."""
    plain, calls = getattr(module, name), []

    def count(*arguments):
        calls.append(arguments)
        return plain(*arguments)

    monkeypatch.setattr(module, name, count)
    return calls


@pytest.mark.parametrize("solver", [LBFGSSoftmax, NewtonKrylovSoftmax])
def test_fits_of_many_rows_share_a_copy_in_float32_and_the_gram_matrix_of_a_sample(
    monkeypatch, solver
):
    X, y = load_digits(return_X_y=True)
    X, estimator = X[:, 26:40] / 16, solver(tol=1e-10, preconditioner="gram")
    held_out = X[:100], y[:100]
    exact = clone_with(estimator, mixed_precision=False)
    plain = regularization_path(exact, X, y, Cs=CS, validation=held_out)
    monkeypatch.setattr(float32_problem, "MIN_PRODUCTS", 0)
    monkeypatch.setattr(linear_problem, "SAMPLED_ABOVE", 0)
    copies = counted(monkeypatch, linear_rows, "_rounded")
    grams = counted(monkeypatch, block_reductions, "gram")
    constant = (block_reductions.totals, block_reductions.gram)
    monkeypatch.setattr(prepared_data, "CONSTANT_STEPS", constant)
    fits = regularization_path(estimator, X, y, Cs=CS, validation=held_out)
    assert len(copies) == len(PreparedData(estimator, X, y).rows.blocks)
    assert [every for _, every in grams] == [len(X) // (8 * 14)] * len(copies)
    for one, other in zip(fits.points, plain.points, strict=True):
        assert one.model.converged_
        np.testing.assert_allclose(one.model.coef_, other.model.coef_, atol=1e-4)


def points(nll, error):
    return RegularizationPath(
        tuple(PathPoint(10.0**i, None, n, error, 0.0, 0.0) for i, n in enumerate(nll))
    )


def test_the_best_has_least_nll_and_the_rule_takes_the_strongest_within_one_error():
    path = points([0.5, 0.31, 0.3, 0.4], error=0.02)
    assert path.best.C == path.choose().C == 100
    assert path.one_standard_error.C == path.choose(one_standard_error=True).C == 10
    assert points([0.5, 0.31, 0.3], error=0.001).one_standard_error.C == 100
    assert points([0.3, 0.3], error=0.0).best.C == 1


def test_the_estimator_stays_and_the_fits_keep_its_options(digits):
    (X, y), held_out = digits
    estimator = LBFGSSoftmax(C=7, tol=1e-2, fit_intercept=False, class_weight="balanced")
    path = regularization_path(estimator, X, y, Cs=[1], validation=held_out)
    assert estimator.C == 7
    assert not hasattr(estimator, "coef_")
    model = path.best.model
    assert model.get_params() == estimator.get_params() | {"C": 1.0}
    assert not model.warm_start
    assert not model.intercept_.any()
    balanced = LBFGSSoftmax(C=1, tol=1e-2, fit_intercept=False, class_weight="balanced").fit(X, y)
    np.testing.assert_allclose(model.coef_, balanced.coef_, atol=1e-9)


def test_names_of_columns_are_kept_so_that_frames_are_predicted_without_a_warning(digits):
    pandas = pytest.importorskip("pandas")
    (X, y), (X_held_out, y_held_out) = digits
    columns = [f"pixel {k}" for k in range(64)]
    frame, held_out = (pandas.DataFrame(rows, columns=columns) for rows in (X, X_held_out))
    path = regularization_path(
        LBFGSSoftmax(tol=0.1), frame, y, Cs=[0.1, 1], validation=(held_out, y_held_out)
    )
    assert path.best.model.feature_names_in_.tolist() == columns


def test_labels_may_be_strings_features_and_labels_tensors_and_weights_count(digits):
    (X, y), (X_held_out, y_held_out) = digits
    names = np.array([f"digit {k}" for k in range(10)])
    weight = np.arange(300) % 2
    path = regularization_path(
        LBFGSSoftmax(tol=1e-6),
        X,
        names[y],
        Cs=[1],
        validation=(X_held_out, names[y_held_out]),
        sample_weight=weight,
    )
    alone = regularization_path(
        LBFGSSoftmax(tol=1e-6),
        torch.from_numpy(X[1::2]),
        torch.from_numpy(y[1::2]),
        Cs=[1],
        validation=(torch.from_numpy(X_held_out), torch.from_numpy(y_held_out)),
    )
    assert path.best.nll == pytest.approx(alone.best.nll, abs=1e-4)
    assert path.best.model.classes_.tolist() == names.tolist()


@pytest.mark.parametrize("name", SOLVERS.names())
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_solver_goes_along_the_path(name, digits):
    (X, y), held_out = digits
    estimator = clone_with(SOLVERS.get(name)(), tol=0.05)
    if name == "sgd":
        estimator.set_params(random_state=0, batch_size=32)
    path = regularization_path(estimator, X, y, Cs=[1e-2, 1], validation=held_out)
    assert path.best.accuracy > 0.8


def test_the_callback_sees_every_fit_and_may_stop(digits):
    (X, y), held_out = digits
    seen = []

    def look(point):
        seen.append(point.C)
        return len(seen) == 2

    path = regularization_path(
        LBFGSSoftmax(tol=0.1), X, y, Cs=CS, validation=held_out, callback=look
    )
    assert seen == path.columns()["C"] == list(CS[:2])


def test_what_does_not_fit_is_refused(digits):
    (X, y), held_out = digits
    for Cs in ([], [1, 1.0]):
        with pytest.raises(ValueError, match="Cs must hold different numbers"):
            regularization_path(LBFGSSoftmax(), X, y, Cs=Cs, validation=held_out)
    with pytest.raises(ValueError, match="C must be above 0"):
        regularization_path(LBFGSSoftmax(), X, y, Cs=[1, 0], validation=held_out)
    with pytest.raises(ValueError, match=r"labels that no example to fit to has: \[10\]"):
        regularization_path(LBFGSSoftmax(), X, y, validation=(X[:1], [10]))
    with pytest.raises(ValueError, match="2 rows but 1 labels"):
        regularization_path(LBFGSSoftmax(tol=1), X, y, Cs=[1], validation=(X[:2], [1]))
    with pytest.raises(TypeError, match="softmax estimators; got LogisticRegression"):
        regularization_path(LogisticRegression(), X, y, validation=held_out)
