"""Stochastic gradient descent: near the optimum, the same for a seed, and from a stream."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from lastlayer.linear_model import (
    ADMMSoftmax,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
    RandomFeatures,
    SGDSoftmax,
    SoftmaxRegression,
    load_linear,
    save_linear,
)
from lastlayer.linear_model.solvers.sgd import batches, safe_rate

OPTIONS = {"batch_size": 10, "random_state": 0}


@pytest.fixture(scope="module")
def given(noisy):
    return noisy(count=150, weighted=True)


def stream(given, model, *, epochs, chunk=50, shift=0.0):
    """Hand the rows over in chunks, in the same order every epoch."""
    for _ in range(epochs):
        for start in range(0, len(given.y), chunk):
            part = slice(start, start + chunk)
            weight = None if given.weight is None else given.weight[part]
            model.partial_fit(given.X[part] + shift, given.y[part], [0, 1, 2], weight)
    return model


def after(epochs):
    """A callback that ends a fit without a warning."""
    return lambda record: record.iteration == epochs


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_it_comes_within_a_few_per_cent_of_the_optimum(noisy, intercept, weighted):
    given = noisy(count=150, weighted=weighted, fit_intercept=intercept)
    model = given.fit(SGDSoftmax, callback=after(50), **OPTIONS)
    least = given.scikit_learn_minimum()
    assert least <= given.of(model) <= 1.03 * least


def test_it_comes_there_from_features_far_from_zero(noisy):
    given = noisy(count=150, shift=100.0)
    model = given.fit(SGDSoftmax, callback=after(50), **OPTIONS)
    assert given.of(model) <= 1.03 * given.scikit_learn_minimum()


def test_without_momentum_it_comes_there_more_slowly(noisy):
    given = noisy(count=150)
    slow = given.fit(SGDSoftmax, momentum=0.0, callback=after(30), **OPTIONS)
    fast = given.fit(SGDSoftmax, momentum=0.9, callback=after(30), **OPTIONS)
    assert given.of(fast) < given.of(slow) < 1.2 * given.scikit_learn_minimum()


def test_it_certifies_what_it_reaches(noisy):
    given = noisy(count=60)
    model = given.fit(SGDSoftmax, tol=0.05, max_iter=500, **OPTIONS)
    assert model.gap_ <= 0.05
    assert given.of(model) <= 1.05 * given.scikit_learn_minimum()


def test_a_seed_decides_the_result(given):
    options = {**OPTIONS, "callback": after(3)}
    one, same = given.fit(SGDSoftmax, **options), given.fit(SGDSoftmax, **options)
    other = given.fit(SGDSoftmax, **{**options, "random_state": 1})
    np.testing.assert_array_equal(one.coef_, same.coef_)
    assert not np.array_equal(one.coef_, other.coef_)


def test_its_weights_are_the_best_of_all_epochs(given):
    with pytest.warns(ConvergenceWarning):
        model = given.fit(SGDSoftmax, tol=0, batch_size=3, max_iter=15, random_state=0)
    assert given.of(model) == pytest.approx(min(model.history_["objective"]), rel=1e-12)


def test_sparse_features_are_dense_ones(given):
    X = np.where(np.abs(given.X) < 1, 0, given.X)
    dense, loose = (
        SGDSoftmax(callback=after(3), **OPTIONS),
        SGDSoftmax(callback=after(3), **OPTIONS),
    )
    dense.fit(X, given.y, given.weight)
    loose.fit(sparse.csr_array(X), given.y, given.weight)
    np.testing.assert_allclose(loose.coef_, dense.coef_, atol=1e-8)


def test_every_row_is_in_one_batch_of_an_epoch(given):
    rows = given.problem(block_rows=40).rows
    found = list(batches(rows, 16, torch.Generator().manual_seed(0)))
    assert max(len(batch.target) for batch in found) == 16
    seen = torch.cat([batch.matrix.values for batch in found]).numpy()
    weights = torch.cat([batch.weight for batch in found]).numpy()
    targets = torch.cat([batch.target for batch in found]).numpy()
    order, wanted = np.argsort(seen[:, 0]), np.argsort(given.X[:, 0])
    assert (order != wanted).any()
    np.testing.assert_array_equal(seen[order], given.X[wanted])
    np.testing.assert_array_equal(weights[order], given.weight[wanted])
    np.testing.assert_array_equal(targets[order], given.y[wanted])


def test_the_rate_is_one_over_the_mean_squared_norm(given):
    problem = given._replace(fit_intercept=False).problem()
    norms = (given.X**2).sum(1) + 1
    assert safe_rate(problem) == pytest.approx(1 / np.average(norms, weights=given.weight))


# -- a stream -------------------------------------------------------------------------------------


def test_one_batch_of_one_call_is_one_gradient_step(given):
    """From zeros, by the mean gradient times the rate."""
    model = SGDSoftmax(batch_size=1000, learning_rate=0.3, momentum=0.0)
    model.partial_fit(given.X, given.y, [0, 1, 2], given.weight)
    residual = given.weight[:, None] * (1 / 3 - np.eye(3)[given.y]) / given.weight.sum()
    np.testing.assert_allclose(model.coef_, -0.3 * residual.T @ given.X, rtol=1e-10)
    np.testing.assert_allclose(model.intercept_, -0.3 * residual.sum(0), rtol=1e-10)
    assert model.rows_seen_ == pytest.approx(given.weight.sum())


def test_a_second_call_goes_on_with_momentum_and_shares_the_penalty_out(given):
    model = SGDSoftmax(batch_size=1000, learning_rate=0.3, momentum=0.5, C=0.1)
    model.partial_fit(given.X, given.y, [0, 1, 2], given.weight)
    first, bias = model.coef_.copy(), model.intercept_.copy()
    model.partial_fit(given.X, given.y, sample_weight=given.weight)
    z = given.X @ first.T + bias
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    total = given.weight.sum()
    residual = given.weight[:, None] * (p - np.eye(3)[given.y]) / total
    gradient = residual.T @ given.X + first / 0.1 / (2 * total)
    np.testing.assert_allclose(model.coef_, first + 0.5 * first - 0.3 * gradient, rtol=1e-9)
    expected = bias + 0.5 * bias - 0.3 * residual.sum(0)
    np.testing.assert_allclose(model.intercept_, expected, rtol=1e-9, atol=1e-12)
    assert model.n_iter_ == 2


def test_chunks_approach_the_fit_to_all_rows(noisy):
    """With little penalty: a stream shares it out over all rows that it has seen."""
    given = noisy(count=150, C=1e3)
    model = SGDSoftmax(C=1e3, batch_size=50, momentum=0.0, random_state=0)
    least = given.scikit_learn_minimum()
    reached = [given.of(stream(given, model, epochs=epochs)) / least for epochs in (10, 40)]
    assert 1.1 > reached[0] > reached[1]
    assert reached[1] < 1.03


def test_chunks_of_features_far_from_zero_do_not_diverge(noisy):
    """They are not centered, as chunks differ in their means: slow, but downhill."""
    given = noisy(count=150, C=1e3)
    model = SGDSoftmax(C=1e3, batch_size=50, momentum=0.0, random_state=0)
    moved = given._replace(X=given.X + 10)
    values = [150 * np.log(3)]
    values += [moved.of(stream(given, model, epochs=20, shift=10.0)) for _ in range(3)]
    assert (np.diff(values) < 0).all()


def test_partial_fit_goes_on_where_fit_ended(given):
    model = given.fit(SGDSoftmax, callback=after(30), **OPTIONS)
    before = given.of(model)
    model.set_params(learning_rate=1e-6).partial_fit(given.X, given.y, sample_weight=given.weight)
    assert given.of(model) == pytest.approx(before, rel=1e-4)
    assert model.rows_seen_ == pytest.approx(2 * given.weight.sum())


def test_classes_are_sorted_and_may_be_absent_from_a_chunk():
    model = SGDSoftmax(random_state=0)
    X = np.eye(2)
    model.partial_fit(X, ["pear", "apple"], classes=["pear", "fig", "apple"])
    assert model.classes_.tolist() == ["apple", "fig", "pear"]
    assert model.predict(X).tolist() == ["pear", "apple"]
    model.partial_fit(X, ["pear", "pear"])
    assert model.coef_.shape == (3, 2)


def test_the_first_call_needs_the_classes():
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        SGDSoftmax().partial_fit(np.eye(2), [0, 1])


def test_later_calls_may_not_change_the_classes():
    model = SGDSoftmax().partial_fit(np.eye(2), [0, 1], classes=[0, 1])
    with pytest.raises(ValueError, match=r"classes=\[0, 2\] are not those of the first call"):
        model.partial_fit(np.eye(2), [0, 0], classes=[0, 2])
    model.partial_fit(np.eye(2), [0, 1], classes=[1, 0])  # the same, in another order


def test_unknown_labels_and_other_widths_are_refused():
    model = SGDSoftmax().partial_fit(np.eye(2), [0, 1], classes=[0, 1])
    with pytest.raises(ValueError, match=r"not among the classes: \[2\]"):
        model.partial_fit(np.eye(2), [0, 2])
    with pytest.raises(ValueError, match="expecting 2 features"):
        model.partial_fit(np.eye(3), [0, 1, 1])


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy, sparse.csr_array])
@pytest.mark.parametrize("begin", ["fit", "partial_fit"])
@pytest.mark.parametrize(("first", "second"), [("f8", "f4"), ("f4", "f8"), ("f4", "f4")])
def test_a_stream_in_two_precisions_goes_on_in_the_wider_one(given, first, second, begin, form):
    """As if the rows had been rounded beforehand."""

    def learn(*dtypes):
        model = SGDSoftmax(callback=after(2), **OPTIONS)
        rows = [form(given.X.astype(first)), form(given.X.astype(second))]
        if dtypes:
            rows = [form(given.X.astype(a).astype(b)) for a, b in dtypes]
        if begin == "fit":
            model.fit(rows[0], given.y, given.weight)
        else:
            model.partial_fit(rows[0], given.y, [0, 1, 2], given.weight)
        return model.partial_fit(rows[1], given.y, sample_weight=given.weight)

    model, other = learn(), learn((first, "f8"), (second, "f8"))
    wider = np.promote_types(first, second)
    assert model.coef_.dtype == model.intercept_.dtype == wider
    np.testing.assert_allclose(model.coef_, other.coef_, atol=1e-4)


@pytest.mark.parametrize("carry", ["pickle", "skops"])
def test_a_model_that_was_written_and_read_goes_on_the_same(given, carry):
    model = SGDSoftmax(random_state=0).partial_fit(given.X, given.y, [0, 1, 2])
    if carry == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        io = pytest.importorskip("skops.io")
        text = io.dumps(model)
        unknown = io.get_untrusted_types(data=text)
        assert unknown == ["lastlayer.linear_model.sgd.SGDSoftmax"]  # nothing inside it
        other = io.loads(text, trusted=unknown)
    for one in (model, other):
        one.partial_fit(given.X, given.y)
    np.testing.assert_array_equal(other.coef_, model.coef_)
    assert other.rows_seen_ == model.rows_seen_ == 300


def test_what_a_fit_leaves_is_numbers_texts_and_arrays(given):
    """Formats that trust no class but NumPy's and Python's own read it."""
    fits = [given.fit(solver, tol=0.5) for solver in (LBFGSSoftmax, NewtonKrylovSoftmax)]
    fits += [given.fit(solver, tol=0.5) for solver in (ADMMSoftmax, SoftmaxRegression)]
    fits += [given.fit(SGDSoftmax, callback=None, tol=0.5).partial_fit(given.X, given.y)]
    fits += [RandomFeatures(3, random_state=0).fit(given.X)]
    plain = bool | int | float | str | None | np.ndarray
    for model in fits:
        for name, value in vars(model).items():
            columns = value.values() if isinstance(value, dict) else [[value]]
            for entry in (entry for column in columns for entry in column):
                assert isinstance(entry, plain), (type(model).__name__, name, type(entry))


@pytest.mark.parametrize("begin", ["partial_fit", "fit"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_stored_model_goes_on_as_a_pickled_one(given, momentum, begin, tmp_path):
    """With its momentum, and its share of the penalty."""
    model = SGDSoftmax(random_state=0, momentum=momentum, C=0.01, callback=None, tol=9.0)
    if begin == "fit":
        model.fit(given.X, given.y)
    else:
        model.partial_fit(given.X, given.y, [0, 1, 2])
    pickled = pickle.loads(pickle.dumps(model))
    stored = load_linear(save_linear(model, tmp_path))
    for _ in range(2):
        for one in (pickled, stored):
            one.partial_fit(given.X, given.y)
        stored = load_linear(save_linear(stored, tmp_path))
    np.testing.assert_array_equal(stored.coef_, pickled.coef_)
    np.testing.assert_array_equal(stored.intercept_, pickled.intercept_)
    assert stored.rows_seen_ == pickled.rows_seen_ == 3 * 150


def test_a_stream_that_diverges_is_an_error_and_changes_nothing(given):
    model = SGDSoftmax(random_state=0).partial_fit(given.X, given.y, [0, 1, 2])
    kept = model.coef_.copy(), model.rows_seen_
    model.set_params(learning_rate=1e300, batch_size=1)
    with pytest.raises(FloatingPointError, match=r"smaller learning_rate than 1e\+300"):
        model.partial_fit(1e10 * given.X, given.y)
    np.testing.assert_array_equal(model.coef_, kept[0])
    assert model.rows_seen_ == kept[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0"),
        ({"learning_rate": -1}, "learning_rate must be a finite number above 0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"momentum": -0.1}, r"momentum must be in \[0, 1\)"),
    ],
)
def test_options_are_checked(given, options, message):
    with pytest.raises(ValueError, match=message):
        given.fit(SGDSoftmax, **options)
    with pytest.raises(ValueError, match=message):
        SGDSoftmax(**options).partial_fit(given.X, given.y, [0, 1, 2])


def test_a_rate_that_diverges_is_an_error_that_says_what_to_do(given):
    with pytest.raises(FloatingPointError, match="scale the features"):
        given.fit(SGDSoftmax, learning_rate=1e200, tol=0)


def test_an_estimator_that_was_not_fitted_says_so(given):
    with pytest.raises(NotFittedError):
        SGDSoftmax().predict(given.X)
