"""What estimators are handed, and in which order: the same answer in other clothes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from lastlayer.linear_model import ADMMSoftmax, LBFGSSoftmax, NewtonKrylovSoftmax

SOLVERS = [LBFGSSoftmax, NewtonKrylovSoftmax, ADMMSoftmax]
solvers = pytest.mark.parametrize("solver", SOLVERS)
TIGHT = {"tol": 1e-12}


def near(model, other, atol=1e-4):
    """Whether two models have the same weights; a gap of 1e-12 leaves about 1e-5 of them."""
    np.testing.assert_allclose(model.coef_, other.coef_, atol=atol)
    np.testing.assert_allclose(
        model.intercept_ - model.intercept_.mean(),
        other.intercept_ - other.intercept_.mean(),
        atol=atol,
    )


@solvers
@pytest.mark.parametrize(
    "names", [("wren", "ant", "newt"), (7, -3, 1000), (5.0, 2.0, -1.0), (True, False)], ids=str
)
def test_labels_of_any_kind_are_sorted_and_come_back(noisy, solver, names):
    given = noisy(num_classes=len(names))
    labels = np.array(names)[given.y]
    model = solver(**TIGHT).fit(given.X, labels)
    assert model.classes_.tolist() == sorted(names)
    assert model.classes_.dtype == labels.dtype
    predicted = model.predict(given.X)
    assert predicted.dtype == labels.dtype
    plain = solver(**TIGHT).fit(given.X, given.y)
    assert (predicted == np.array(names)[plain.predict(given.X)]).all()
    order = np.argsort(names)
    np.testing.assert_allclose(model.coef_, plain.coef_[order], atol=1e-4)


@solvers
def test_rows_in_another_order_give_the_same(noisy, solver):
    given = noisy(weighted=True)
    order = np.random.default_rng(1).permutation(60)
    moved = given._replace(X=given.X[order], y=given.y[order], weight=given.weight[order])
    near(given.fit(solver, **TIGHT), moved.fit(solver, **TIGHT))


@solvers
def test_columns_in_another_order_permute_the_weights(noisy, solver):
    given = noisy()
    order = np.array([2, 0, 3, 1])
    moved = given._replace(X=given.X[:, order]).fit(solver, **TIGHT)
    np.testing.assert_allclose(moved.coef_, given.fit(solver, **TIGHT).coef_[:, order], atol=1e-4)


@solvers
def test_whole_weights_are_repeated_rows(noisy, solver):
    given = noisy()
    counts = np.random.default_rng(2).integers(0, 4, size=60)
    repeated = given._replace(X=given.X.repeat(counts, axis=0), y=given.y.repeat(counts))
    near(given._replace(weight=counts).fit(solver, **TIGHT), repeated.fit(solver, **TIGHT))


@solvers
def test_weights_and_penalty_scale_together(noisy, solver):
    given = noisy(weighted=True)
    scaled = given._replace(weight=100 * given.weight, C=given.C / 100)
    near(given.fit(solver, **TIGHT), scaled.fit(solver, **TIGHT))


@solvers
def test_shifted_features_change_the_intercept_alone(noisy, solver):
    given = noisy()
    plain = given.fit(solver, **TIGHT)
    moved = given._replace(X=given.X + 10).fit(solver, **TIGHT)
    np.testing.assert_allclose(moved.coef_, plain.coef_, atol=1e-4)
    np.testing.assert_allclose(
        moved.decision_function(given.X + 10), plain.decision_function(given.X), atol=1e-3
    )


@solvers
def test_weights_and_logits_of_the_classes_sum_to_zero(noisy, solver):
    """Of all weights of one softmax the penalty takes those; intercepts start so and stay so."""
    model = noisy(weighted=True).fit(solver, **TIGHT)
    assert abs(model.coef_.sum(0)).max() < 1e-6
    assert abs(model.intercept_.sum()) < 1e-6


@solvers
@pytest.mark.parametrize("weight", ["balanced", {0: 3.0, 1: 0.5, 2: 1.0}, {2: 5.0}])
@pytest.mark.parametrize("weighted", [False, True])
def test_class_weights_are_scikit_learns(noisy, solver, weight, weighted):
    given = noisy(weighted=weighted)
    given = given._replace(y=np.where(np.arange(60) < 40, 0, given.y))
    theirs = LogisticRegression(
        class_weight=weight, solver="newton-cholesky", tol=1e-10, max_iter=1000
    ).fit(given.X, given.y, given.weight)
    model = given.fit(solver, class_weight=weight, **TIGHT)
    near(model, theirs)


@pytest.mark.parametrize("solver", SOLVERS)
def test_balanced_weights_give_every_class_the_same(noisy, solver):
    given = noisy()._replace(X=np.zeros((60, 2)))
    model = given.fit(solver, class_weight="balanced", **TIGHT)
    np.testing.assert_allclose(model.predict_proba(given.X), 1 / 3, atol=1e-6)


@solvers
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix, sparse.csc_array])
def test_sparse_features_are_dense_ones(noisy, solver, kind, weighted):
    given = noisy(weighted=weighted)
    given.X[np.abs(given.X) < 1] = 0
    if weighted:
        given.weight[::4] = 0
    loose = solver(**TIGHT).fit(kind(given.X), given.y, given.weight)
    dense = given.fit(solver, **TIGHT)
    near(loose, dense)
    np.testing.assert_allclose(
        loose.predict_proba(kind(given.X)), loose.predict_proba(given.X), rtol=1e-12
    )
    assert (loose.predict(kind(given.X)) == dense.predict(given.X)).all()


@solvers
@pytest.mark.parametrize("sparse_too", [False, True])
def test_single_precision_is_kept_and_near_double(noisy, solver, sparse_too):
    given = noisy(weighted=True)
    single = sparse.csr_array(given.X.astype(np.float32)) if sparse_too else given.X.astype("f4")
    model = solver(tol=1e-6).fit(single, given.y, given.weight)
    assert model.coef_.dtype == model.intercept_.dtype == np.float32
    for found in (model.predict_proba(single), model.decision_function(single)):
        assert found.dtype == np.float32
    assert given.fit(solver).coef_.dtype == np.float64
    assert given.of(model) == pytest.approx(given.scikit_learn_minimum(), rel=1e-5)


@solvers
def test_integers_become_double(noisy, solver):
    given = noisy()
    whole = np.rint(3 * given.X).astype(int)
    model = solver(**TIGHT).fit(whole, given.y)
    assert model.coef_.dtype == np.float64
    near(model, solver(**TIGHT).fit(whole.astype(float), given.y))


@solvers
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_are_arrays(noisy, solver, dtype):
    given = noisy(weighted=True)
    X = torch.from_numpy(given.X).to(dtype).requires_grad_()
    model = solver().fit(X, torch.from_numpy(given.y), torch.from_numpy(given.weight))
    other = solver().fit(X.detach().numpy(), given.y, given.weight)
    np.testing.assert_array_equal(model.coef_, other.coef_)
    rows = X.detach()
    for name in ("predict_proba", "predict_log_proba", "decision_function"):
        found = getattr(model, name)(rows)
        assert isinstance(found, torch.Tensor)
        assert found.dtype == dtype
        expected = getattr(other, name)(rows.numpy())
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert (model.predict(rows) == other.predict(rows.numpy())).all()
    assert model.score(rows.numpy(), given.y) == (model.predict(rows) == given.y).mean()


def test_a_transposed_tensor_is_fitted_as_it_is(noisy):
    given = noisy()
    X = torch.from_numpy(np.ascontiguousarray(given.X.T)).T
    near(LBFGSSoftmax(**TIGHT).fit(X, given.y), given.fit(LBFGSSoftmax, **TIGHT))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_tensors_of_other_types_are_computed_with_in_higher_precision(noisy, dtype):
    given = noisy()
    X = torch.from_numpy(3 * given.X).to(dtype)
    model = LBFGSSoftmax(**TIGHT).fit(X, given.y)
    assert model.coef_.dtype == np.float64
    near(model, LBFGSSoftmax(**TIGHT).fit(X.double(), given.y))
    expected = model.predict_proba(X.double())
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-4)


@solvers
def test_probabilities_are_the_softmax_of_the_logits(noisy, solver):
    given = noisy()
    model = given.fit(solver)
    logits = given.X @ model.coef_.T + model.intercept_
    np.testing.assert_allclose(model.decision_function(given.X), logits, rtol=1e-12)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(given.X), expected, rtol=1e-12)
    np.testing.assert_allclose(model.predict_log_proba(given.X), np.log(expected), atol=1e-12)


@solvers
def test_the_decision_of_two_classes_is_the_difference_of_their_logits(noisy, solver):
    given = noisy(num_classes=2)
    model = given.fit(solver)
    assert model.coef_.shape == (2, 4)
    decision = model.decision_function(given.X)
    assert decision.shape == (60,)
    expected = 1 / (1 + np.exp(-decision))
    np.testing.assert_allclose(model.predict_proba(given.X)[:, 1], expected, rtol=1e-12)
    assert ((decision > 0) == model.predict(given.X)).all()


@solvers
def test_a_warm_start_takes_fewer_iterations(noisy, solver):
    given = noisy(weighted=True)
    # ADMM by itself: L-BFGS takes over later from near the optimum than from afar.
    options = {"tol": 1e-4, "polish": False} if solver is ADMMSoftmax else {"tol": 1e-8}
    model = solver(warm_start=True, **options).fit(given.X, given.y, given.weight)
    cold = model.n_iter_
    model.fit(given.X, given.y, given.weight)
    assert model.n_iter_ == 1  # that of looking: the first record is done
    assert len(model.history_["objective"]) == 1
    model.set_params(C=1.1).fit(given.X, given.y, given.weight)
    assert model.n_iter_ < cold
    given = given._replace(C=1.1)
    assert given.of(model) == pytest.approx(given.scikit_learn_minimum(), rel=options["tol"])


@solvers
def test_a_cold_start_forgets_the_last_fit(noisy, solver):
    given = noisy()
    model = given.fit(solver)
    kept = model.coef_.copy(), model.n_iter_
    model.fit(given.X, given.y)
    np.testing.assert_array_equal(model.coef_, kept[0])
    assert model.n_iter_ == kept[1]


@solvers
def test_a_warm_start_of_another_shape_starts_anew(noisy, solver):
    model = solver(warm_start=True).fit(noisy().X, noisy().y)
    other = noisy(num_classes=4, width=3)
    model.fit(other.X, other.y)
    assert model.coef_.shape == (4, 3)
    assert other.of(model) == pytest.approx(other.scikit_learn_minimum(), rel=1e-3)


@solvers
def test_read_only_features_are_fitted_in_silence(noisy, solver, tmp_path):
    """PyTorch warns of them but once in a process."""
    given = noisy()
    np.save(tmp_path / "features.npy", given.X)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        solver().fit(mapped, given.y).coef_, solver().fit(given.X, given.y).coef_
    )


@solvers
def test_nothing_that_is_handed_over_is_written_to(noisy, solver):
    given = noisy(weighted=True)
    kept = given.X.copy(), given.y.copy(), given.weight.copy()
    given.fit(solver, class_weight="balanced")
    for before, after in zip(kept, (given.X, given.y, given.weight), strict=True):
        np.testing.assert_array_equal(before, after)


@solvers
def test_the_device_may_be_named(noisy, solver):
    given = noisy(weighted=True)
    one, other = given.fit(solver, device="cpu"), given.fit(solver)
    np.testing.assert_array_equal(one.coef_, other.coef_)


@solvers
def test_without_an_intercept_it_is_zero(noisy, solver):
    assert noisy(fit_intercept=False).fit(solver).intercept_.tolist() == [0, 0, 0]
