"""NumPy's numbers are numbers: every option takes them, and solvers get the same of them."""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.stats import loguniform, randint
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline

from lastlayer.linear_model import (
    ADMMSoftmax,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
    RandomFeatures,
    SGDSoftmax,
    SoftmaxRegression,
    discrete_laplacian,
    load_linear,
    regularization_path,
    save_linear,
)
from lastlayer.linear_model.rows import rows_from_files, rows_in_memory

X, Y = load_iris(return_X_y=True)

#: Every option that is a number, at values that float16 and uint8 have exactly.
OPTIONS = [
    (LBFGSSoftmax, {"memory": 3, "max_iter": 200}, {"C": 3.0, "tol": 0.125}),
    (NewtonKrylovSoftmax, {"max_products": 9, "max_iter": 200}, {"C": 3.0, "tol": 0.125}),
    (
        ADMMSoftmax,
        {"prox_steps": 3, "max_iter": 200},
        {"C": 3.0, "tol": 0.125, "rho": 0.75, "over_relaxation": 1.375},
    ),
    (
        SGDSoftmax,
        {"batch_size": 100, "max_iter": 3, "random_state": 5},
        {"C": 3.0, "tol": 0.125, "learning_rate": 0.0625, "momentum": 0.375},
    ),
    (SoftmaxRegression, {"max_iter": 200}, {"C": 3.0, "tol": 0.125}),
]
#: (of whole numbers, of fractions)
KINDS = [(np.int64, np.float64), (np.uint8, np.float16), (np.int32, np.float32)]
kinds_of_numbers = pytest.mark.parametrize("kinds", KINDS, ids=["64", "small", "32"])


def coefficients(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # SGD takes three epochs
        return np.column_stack([model.fit(X, Y).coef_, model.intercept_])


@kinds_of_numbers
@pytest.mark.parametrize(
    ("solver", "whole", "real"), OPTIONS, ids=[solver.__name__ for solver, *_ in OPTIONS]
)
def test_numpy_options_give_the_coefficients_of_pythons_to_the_last_bit(solver, whole, real, kinds):
    given = {name: kinds[0](value) for name, value in whole.items()}
    given |= {name: kinds[1](value) for name, value in real.items()}
    switches = {"fit_intercept": np.True_, "warm_start": np.False_}
    found = solver(**given, **switches)
    np.testing.assert_array_equal(coefficients(found), coefficients(solver(**whole, **real)))
    assert found.get_params()["C"] is given["C"]  # kept as it was given, as scikit-learn has it


@kinds_of_numbers
def test_a_stream_takes_numpy_options(kinds):
    whole, real = kinds
    options = {"batch_size": 100, "random_state": 5}, {"learning_rate": 0.0625, "momentum": 0.375}
    given = [
        {k: kind(v) for k, v in part.items()} for kind, part in zip(kinds, options, strict=True)
    ]
    assert [type(v) for part in given for v in part.values()] == [whole] * 2 + [real] * 2
    found = SGDSoftmax(**given[0], **given[1]).partial_fit(X, Y, [0, 1, 2]).partial_fit(X, Y)
    plain = SGDSoftmax(**options[0], **options[1])
    plain.partial_fit(X, Y, [0, 1, 2]).partial_fit(X, Y)
    np.testing.assert_array_equal(found.coef_, plain.coef_)


@pytest.mark.parametrize("C", [np.float32(0.1), np.float16(1 / 3), np.int8(100), Fraction(1, 3)])
def test_the_strength_is_that_of_logistic_regression_however_it_is_written(C):
    """1 / C is not rounded to C's own precision."""
    theirs = LogisticRegression(C=float(C), solver="newton-cholesky", tol=1e-10).fit(X, Y)
    ours = NewtonKrylovSoftmax(C=C, tol=1e-14).fit(X, Y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)


@kinds_of_numbers
def test_random_features_take_numpy_options(kinds):
    whole, real = kinds
    found = RandomFeatures(whole(20), scale=real(0.25), random_state=whole(3)).fit(X)
    plain = RandomFeatures(20, scale=0.25, random_state=3).fit(X)
    np.testing.assert_array_equal(found.transform(X), plain.transform(X))
    assert type(found.scale_) is float


def test_searches_over_numpy_arrays_are_those_over_lists():
    """As LogisticRegression's are, whose arrays ``np.arange`` and ``np.logspace`` make too."""
    model = make_pipeline(RandomFeatures(random_state=0), LBFGSSoftmax())

    def search(kind, model, **grid):
        grid = {name: kind(values) for name, values in grid.items()}
        return GridSearchCV(model, grid, error_score="raise", cv=2).fit(X, Y)

    counts = {"randomfeatures__n_components": [5, 10], "lbfgssoftmax__memory": [2, 5]}
    found, plain = (search(kind, model, **counts) for kind in (np.array, list))
    np.testing.assert_array_equal(
        found.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"]
    )
    strengths = np.logspace(-3, 1, 3, dtype=np.float32)
    theirs = LogisticRegression(solver="newton-cholesky", tol=1e-8)
    ours = search(np.array, NewtonKrylovSoftmax(tol=1e-8), C=strengths)
    expected = search(np.array, theirs, C=strengths).cv_results_["mean_test_score"]
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], expected)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (LBFGSSoftmax(), {"C": loguniform(0.1, 10), "memory": randint(5, 20)}),
        (NewtonKrylovSoftmax(), {"max_products": randint(5, 20), "max_iter": randint(50, 99)}),
        (ADMMSoftmax(tol=0.01), {"prox_steps": randint(1, 3), "rho": loguniform(0.1, 1)}),
        (SGDSoftmax(tol=9, random_state=0), {"batch_size": randint(9, 99)}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_random_searches_draw_options(model, options):
    search = RandomizedSearchCV(model, options, n_iter=2, random_state=0, error_score="raise", cv=2)
    assert search.fit(X, Y).best_score_ > 0.5


def test_rows_and_paths_take_numpy_counts(tmp_path):
    np.save(tmp_path / "x.npy", np.tile(X, (2, 1)))
    labels = np.tile(Y, 2)
    # Sums of uint8 beyond 255 would overflow.
    rows = rows_from_files(
        tmp_path / "x.npy", labels, block_rows=np.uint8(100), memory_bound=np.uint32(2**17)
    )
    assert [len(block.target) for block in rows] == [100, 100, 100]
    doubled = torch.tensor(np.tile(X, (2, 1))), torch.tensor(labels)
    blocks = rows_in_memory(*doubled, block_rows=np.uint8(100)).blocks
    assert [len(block.target) for block in blocks] == [100, 100, 100]
    path = regularization_path(
        LBFGSSoftmax(memory=np.int64(5)), X, Y, Cs=np.array([1, 10]), validation=(X, Y)
    )
    assert [point.C for point in path.points] == [1.0, 10.0]
    sides = np.array([2, 3])
    assert torch.equal(discrete_laplacian(sides), discrete_laplacian([2, 3]))


def test_numpy_options_survive_in_a_file(tmp_path):
    model = SGDSoftmax(C=np.float32(2), batch_size=np.int64(20), momentum=Fraction(1, 2), tol=9.0)
    found = load_linear(save_linear(model.fit(X, Y), tmp_path))
    assert found.get_params() == model.get_params()


@pytest.mark.parametrize("answer", [True, np.True_, np.False_, 1, None], ids=repr)
def test_a_callback_stops_by_pythons_true_or_numpys(answer):
    """``accuracy > 0.9`` is of NumPy wherever the accuracy is."""
    stops = answer is True or answer is np.True_
    model = LBFGSSoftmax(callback=lambda record: answer).fit(X, Y)
    assert (len(model.history_["objective"]) == 1) == stops
    path = regularization_path(
        LBFGSSoftmax(), X, Y, Cs=[1, 2], validation=(X, Y), callback=lambda point: answer
    )
    assert len(path.points) == (1 if stops else 2)


# -- what is no number ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "name", "values", "message"),
    [
        (LBFGSSoftmax, "C", [True, np.array(2.0), 1j, np.complex128(1)], "C must be above 0"),
        (LBFGSSoftmax, "tol", ["0.1", np.float32("nan")], "tol must be at least 0"),
        (LBFGSSoftmax, "max_iter", [True, np.array(9)], "max_iter must be"),
        (LBFGSSoftmax, "max_iter", [np.float64(9)], "max_iter must be a whole number"),
        (LBFGSSoftmax, "memory", [np.float64(5), True], "memory must be a whole number"),
        (ADMMSoftmax, "rho", ["fast", None, True, "0.5"], "rho must be a .* or 'auto'; got"),
        (ADMMSoftmax, "over_relaxation", ["1.5", None], r"over_relaxation must be in \[1, 2\)"),
        (SGDSoftmax, "learning_rate", ["fast", ".1", None], "learning_rate must be .* or 'auto'"),
        (SGDSoftmax, "momentum", [".5", None, np.float32("nan")], r"momentum must be in \[0, 1\)"),
        (RandomFeatures, "scale", ["wide", None, np.inf], "scale must be .* or 'auto'"),
        (RandomFeatures, "n_components", [np.float64(5)], "n_components must be a whole number"),
    ],
)
def test_what_is_no_number_is_named(solver, name, values, message):
    for value in values:
        with pytest.raises(ValueError, match=message):
            solver(**{name: value}).fit(X, Y)


def test_counts_of_rows_are_checked(tmp_path):
    np.save(tmp_path / "x.npy", X)
    for wrong in (0, -1, 2.5, "9"):
        with pytest.raises(ValueError, match="block_rows must be a whole number of at least 1"):
            rows_in_memory(torch.tensor(X), torch.tensor(Y), block_rows=wrong)
        with pytest.raises(ValueError, match="memory_bound must be a whole number of at least 1"):
            rows_from_files(tmp_path / "x.npy", Y, memory_bound=wrong)
