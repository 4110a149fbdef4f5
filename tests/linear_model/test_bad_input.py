"""What is refused, and in which words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError

from lastlayer.linear_model import (
    ADMMSoftmax,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
    RandomFeatures,
    SGDSoftmax,
    regularization_path,
)
from lastlayer.linear_model.rows import rows_in_memory

EVERYONE = [LBFGSSoftmax, NewtonKrylovSoftmax, ADMMSoftmax, SGDSoftmax]
everyone = pytest.mark.parametrize("solver", EVERYONE)
FORMS = {
    "array": np.asarray,
    "float32": lambda X: X.astype(np.float32),
    "csr": sparse.csr_array,
    "tensor": torch.from_numpy,
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def spoil(X, *entries):
    X = X.copy()
    for row, column, value in entries:
        X[row, column] = value
    return X


@everyone
@forms
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([(3, 0, np.nan)], "Input X contains NaN: 1 of 60 rows are not finite"),
        ([(3, 0, np.nan), (3, 1, np.inf), (9, 2, np.inf)], "contains NaN: 2 of 60 rows"),
        ([(0, 0, np.inf), (1, 0, -np.inf), (2, 3, np.inf)], "contains infinity: 3 of 60 rows"),
    ],
    ids=["nan", "both", "infinity"],
)
def test_rows_that_are_not_finite_are_counted(noisy, solver, form, entries, message):
    given = noisy()
    with pytest.raises(ValueError, match=message):
        solver().fit(form(spoil(given.X, *entries)), given.y)


def test_prediction_counts_them_too(noisy):
    given = noisy()
    model = given.fit(LBFGSSoftmax)
    with pytest.raises(ValueError, match="contains NaN: 1 of 60 rows"):
        model.predict(spoil(given.X, (5, 1, np.nan)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "ask", ["predict", "predict_proba", "predict_log_proba", "decision_function", "score"]
)
def test_prediction_counts_them_in_tensors_too(noisy, ask, dtype):
    given = noisy()
    model = given.fit(LBFGSSoftmax)
    labels = (given.y,) if ask == "score" else ()
    for value, kind in ((np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")):
        rows = torch.from_numpy(spoil(given.X, (5, 1, value), (7, 0, value))).to(dtype)
        with pytest.raises(ValueError, match=f"contains {kind}: 2 of 60 rows"):
            getattr(model, ask)(rows, *labels)


def test_every_other_entry_refuses_tensors_that_are_not_finite(noisy):
    given = noisy()
    bad = torch.from_numpy(spoil(given.X, (5, 1, np.nan)))
    labels = torch.from_numpy(given.y)
    layer = RandomFeatures(3, random_state=0)
    held_out = {"Cs": [1.0], "validation": (bad, labels)}
    for act in (
        lambda: SGDSoftmax().partial_fit(bad, labels, [0, 1, 2]),
        lambda: layer.fit(bad),
        lambda: layer.fit(given.X).transform(bad),
        lambda: regularization_path(LBFGSSoftmax(), given.X, given.y, **held_out),
        lambda: regularization_path(LBFGSSoftmax(), bad, given.y, **held_out),
    ):
        with pytest.raises(ValueError, match="contains NaN: 1 of 60 rows"):
            act()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": torch.full((60, 4), torch.nan)}, ValueError, "features must be finite"),
        ({"features": torch.ones(60)}, ValueError, r"features must have shape \(N, D\)"),
        ({"features": torch.ones(60, 4).long()}, TypeError, "features must have a floating"),
        ({"target": torch.zeros(59).long()}, ValueError, r"target must have shape \(60,\)"),
        ({"target": torch.zeros(60)}, TypeError, "target must hold integer labels"),
        ({"weight": -torch.ones(60)}, ValueError, "weight must be finite and at least 0; 60 of 60"),
        ({"weight": torch.ones(59)}, ValueError, r"weight must have shape \(60,\)"),
    ],
    ids=str,
)
def test_rows_of_tensors_are_checked(noisy, change, error, message):
    given = noisy()
    rows = {"features": torch.from_numpy(given.X), "target": torch.from_numpy(given.y)}
    with pytest.raises(error, match=message):
        rows_in_memory(**{**rows, **change})


@pytest.mark.parametrize("solver", EVERYONE[:3])
def test_huge_finite_features_are_an_error_that_ends(noisy, solver):
    """Their Gram matrix overflows, and so may the sum that looks for infinities."""
    given = noisy()
    for scale in (1e160, 1e300):
        with pytest.raises(FloatingPointError, match="scale the features"):
            solver().fit(given.X * scale, given.y)


@everyone
@pytest.mark.parametrize("labels", [np.zeros(60, int), np.full(60, "only")], ids=["0", "only"])
def test_one_class_is_refused(noisy, solver, labels):
    with pytest.raises(ValueError, match="at least 2 classes; y contains 1 class"):
        solver().fit(noisy().X, labels)


@everyone
@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.r_[-1.0, np.ones(59)], "Negative values"),
        (np.zeros(60), "(?i)zero|must not be 0"),
        (np.r_[np.nan, np.ones(59)], "NaN"),
        (np.r_[np.inf, np.ones(59)], "infinity"),
        (np.ones(59), "shape"),
        (np.ones((60, 2)), "1D array"),
    ],
    ids=["negative", "zeros", "nan", "infinite", "short", "wide"],
)
def test_weights_are_checked(noisy, solver, weight, message):
    given = noisy()
    with pytest.raises(ValueError, match=message):
        solver().fit(given.X, given.y, weight)


@everyone
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"C": 0.0}, "C must be above 0; got 0.0"),
        ({"C": -1.0}, "C must be above 0; got -1.0"),
        ({"C": float("nan")}, "C must be above 0; got nan"),
        ({"C": None}, "C must be above 0; got None"),
        ({"C": "1"}, "C must be above 0; got '1'"),
        ({"tol": -1e-3}, "tol must be at least 0; got -0.001"),
        ({"tol": float("nan")}, "tol must be at least 0; got nan"),
        ({"max_iter": 0}, "max_iter must be above 0; got 0"),
        ({"max_iter": 2.5}, "max_iter must be a whole number; got 2.5"),
        ({"max_iter": float("inf")}, "max_iter must be a whole number; got inf"),
        ({"penalty_operator": np.eye(5)}, r"\(m, n_features\) with n_features=4; got \(5, 5\)"),
        ({"penalty_operator": np.ones(4)}, r"\(m, n_features\) with n_features=4; got \(4,\)"),
        ({"class_weight": "even"}, "class_weight"),
    ],
    ids=str,
)
def test_options_are_checked_when_fitting(noisy, solver, options, message):
    given = noisy()
    with pytest.raises(ValueError, match=message):
        solver(**options).fit(given.X, given.y)


@pytest.mark.parametrize(
    ("solver", "options", "message"),
    [
        (LBFGSSoftmax, {"memory": 0}, "memory must be a whole number of at least 1"),
        (LBFGSSoftmax, {"preconditioner": "lu"}, "preconditioner must be one of 'auto', 'gram'"),
        (NewtonKrylovSoftmax, {"preconditioner": "lu"}, "preconditioner must be one of"),
        (NewtonKrylovSoftmax, {"max_products": 0}, "max_products must be a whole number"),
        (ADMMSoftmax, {"rho": 0.0}, "rho must be a finite number above 0"),
        (ADMMSoftmax, {"rho": float("inf")}, "rho must be a finite number above 0"),
        (ADMMSoftmax, {"over_relaxation": 2.0}, r"over_relaxation must be in \[1, 2\)"),
        (ADMMSoftmax, {"over_relaxation": 0.9}, r"over_relaxation must be in \[1, 2\)"),
        (ADMMSoftmax, {"prox_steps": 0}, "prox_steps must be a whole number"),
    ],
)
def test_own_options_are_checked_when_fitting(noisy, solver, options, message):
    given = noisy()
    with pytest.raises(ValueError, match=message):
        solver(**options).fit(given.X, given.y)


@everyone
def test_shapes_are_checked(noisy, solver):
    given = noisy()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        solver().fit(given.X, given.y[:-1])
    with pytest.raises(ValueError, match="Expected 2D array"):
        solver().fit(given.X[:, 0], given.y)
    with pytest.raises(ValueError, match="dim 3"):
        solver().fit(given.X[:, :, None], given.y)
    with pytest.raises(ValueError, match="1d array"):
        solver().fit(given.X, np.stack([given.y, given.y], 1))


@everyone
def test_continuous_targets_are_refused(noisy, solver):
    given = noisy()
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        solver().fit(given.X, given.X[:, 0])


@everyone
def test_sparse_features_stay_on_the_cpu(noisy, solver):
    given = noisy()
    with pytest.raises(ValueError, match=r"sparse features are computed with on the CPU.*'meta'"):
        solver(device="meta").fit(sparse.csr_array(given.X), given.y)


@everyone
def test_prediction_needs_a_fit_and_as_many_features(noisy, solver):
    given = noisy(num_classes=2)
    with pytest.raises(NotFittedError):
        solver().predict(given.X)
    with pytest.raises(NotFittedError):
        solver().predict_proba(torch.from_numpy(given.X))
    model = given.fit(solver, callback=lambda record: record.iteration == 2)
    with pytest.raises(ValueError, match="is expecting 4 features"):
        model.predict(given.X[:, :3])
    with pytest.raises(ValueError, match="is expecting 4 features"):
        model.predict(torch.from_numpy(given.X[:, :3]))
