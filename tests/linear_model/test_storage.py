"""A model written and read predicts the same; what is no model is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lastlayer.linear_model import (
    SOLVERS,
    LBFGSSoftmax,
    RandomFeatures,
    load_linear,
    save_linear,
)

X, Y = load_iris(return_X_y=True)


@pytest.mark.parametrize("name", SOLVERS.names())
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_estimator_comes_back_with_its_options_and_predictions(name, tmp_path):
    model = SOLVERS.get(name)(C=3.0, tol=0.1, class_weight="balanced", fit_intercept=False)
    model.fit(X, Y)
    found = load_linear(save_linear(model, tmp_path / "model.npz"))
    assert type(found) is type(model)
    assert found.get_params() == model.get_params()
    assert found.n_iter_ == model.n_iter_
    lost = {"history_", "_velocity"}  # SGD's velocity is 0 after a fit
    assert vars(model).keys() - vars(found).keys() <= lost
    for attribute in ("converged_", "gap_", "n_features_in_"):
        assert getattr(found, attribute) == getattr(model, attribute)
    np.testing.assert_array_equal(found.predict_log_proba(X), model.predict_log_proba(X))
    np.testing.assert_array_equal(found.decision_function(X), model.decision_function(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ["relu", "cos"])
def test_random_features_are_kept_with_the_model(activation, dtype, tmp_path):
    model = make_pipeline(RandomFeatures(20, activation, random_state=0), LBFGSSoftmax(tol=0.01))
    model.fit(X.astype(dtype), Y)
    found = load_linear(save_linear(model, tmp_path))
    np.testing.assert_array_equal(
        found.predict_proba(X.astype(dtype)), model.predict_proba(X.astype(dtype))
    )
    tensor = found.predict_log_proba(torch.from_numpy(X.astype(dtype)))
    assert isinstance(tensor, torch.Tensor)


@pytest.mark.parametrize("kind", [str, object])
def test_labels_as_texts_come_back(kind, tmp_path):
    names = np.array(["rose", "iris", "lily"], dtype=kind)
    model = LBFGSSoftmax(tol=0.1).fit(X, names[Y])
    found = load_linear(save_linear(model, tmp_path))
    assert found.predict(X).tolist() == model.predict(X).tolist()


def test_numpy_reads_the_file_and_infinite_C_and_a_random_state_survive(tmp_path):
    model = SOLVERS.get("sgd")(C=np.inf, tol=1e9, random_state=np.random.RandomState(0)).fit(X, Y)
    path = save_linear(model, tmp_path)
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["coef"], model.coef_)
        assert arrays["classes"].tolist() == [0, 1, 2]
    found = load_linear(path)
    assert np.isinf(found.C)
    assert found.random_state is None


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = save_linear(LBFGSSoftmax(tol=0.1).fit(X, Y), tmp_path)
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        save_linear(LBFGSSoftmax(tol=0.01).fit(X, Y), tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_only_fitted_models_of_this_package_are_written(tmp_path):
    with pytest.raises(NotFittedError):
        save_linear(LBFGSSoftmax(), tmp_path)
    for model in (LogisticRegression(), make_pipeline(StandardScaler(), LBFGSSoftmax())):
        with pytest.raises(TypeError, match="model must be"):
            save_linear(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_models_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no model .*model\.npz"):
        load_linear(tmp_path)
    path = tmp_path / "other.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"other\.npz: not a readable \.npz file"):
        load_linear(path)
    good = save_linear(LBFGSSoftmax(tol=0.1).fit(X, Y), tmp_path)
    with np.load(good) as loaded:
        arrays = dict(loaded)
    for change, message in (
        ({"coef": None}, "it has no array 'coef'"),
        ({"classes": np.arange(2)}, r"classes \(K,\); got"),
        ({"about": np.array("{")}, "'about' cannot be read"),
        ({"about": np.array('{"solver": "x", "options": {}}')}, "unknown solver"),
        ({"about": np.array('{"solver": "admm", "options": {"x": 1}}')}, "cannot be read"),
    ):
        kept = {k: v for k, v in (arrays | change).items() if v is not None}
        np.savez(path, **kept)
        with pytest.raises(ValueError, match=rf"other\.npz: .*{message}"):
            load_linear(path)
