"""Names of columns: kept, forgotten and checked as scikit-learn's LogisticRegression does."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from lastlayer.linear_model import (
    SOLVERS,
    LBFGSSoftmax,
    RandomFeatures,
    SGDSoftmax,
    load_linear,
    regularization_path,
    save_linear,
)
from lastlayer.linear_model.rows import (
    DistributedRows,
    fit_distributed,
    rows_from_files,
    rows_in_memory,
)

pandas = pytest.importorskip("pandas")
FRAME, Y = load_iris(return_X_y=True, as_frame=True)
X, NAMES = FRAME.to_numpy(), FRAME.columns.tolist()
PERMUTED = FRAME[FRAME.columns[::-1]]
RENAMED = FRAME.rename(columns=str.upper)


def memory(features):
    return rows_in_memory(torch.tensor(np.asarray(features)), torch.tensor(Y.to_numpy()))


def refusal(model, features):
    """What predicting says; scikit-learn's message does not name the class."""
    with pytest.raises(ValueError, match="feature names") as caught:
        model.predict(features)
    return str(caught.value)


def names(model):
    return getattr(model, "feature_names_in_", np.empty(0)).tolist()


# -- fits to rows ---------------------------------------------------------------------------------


def test_a_fit_to_rows_without_names_forgets_those_of_the_last_fit():
    """As LogisticRegression's fit to an array does, after one to a frame."""
    theirs = LogisticRegression(max_iter=1000).fit(FRAME, Y).fit(X[:, :3], Y)
    ours = LBFGSSoftmax().fit(FRAME, Y)
    assert names(ours) == NAMES
    ours.fit_rows(memory(X[:, :3]), theirs.classes_)
    assert names(ours) == names(theirs) == []
    assert ours.n_features_in_ == theirs.n_features_in_ == 3
    for model in (ours, theirs):
        with pytest.warns(UserWarning, match="was fitted without feature names"):
            model.predict(FRAME.iloc[:, :3])


def test_names_are_forgotten_with_class_weights_too():
    model = LBFGSSoftmax(class_weight="balanced").fit(FRAME, Y)
    assert names(model.fit_rows(memory(X), [0, 1, 2])) == []


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_a_distributed_fit_keeps_names_of_frames_and_forgets_them_for_arrays(group, class_weight):
    model = fit_distributed(LBFGSSoftmax(class_weight=class_weight), FRAME, Y)
    assert names(model) == NAMES
    assert refusal(model, PERMUTED) == refusal(LogisticRegression(tol=1).fit(FRAME, Y), PERMUTED)
    assert names(fit_distributed(model, X, Y)) == []
    assert names(model.fit_rows(DistributedRows(memory(X)), [0, 1, 2])) == []


def test_a_path_and_a_stream_check_names_as_well():
    """A stream as SGDClassifier's: names of the first call."""
    path = regularization_path(LBFGSSoftmax(), FRAME, Y, Cs=[1], validation=(FRAME, Y))
    stream = SGDSoftmax(random_state=0).partial_fit(FRAME, Y, classes=[0, 1, 2])
    expected = refusal(LogisticRegression(tol=1).fit(FRAME, Y), RENAMED)
    assert refusal(path.best.model, RENAMED) == refusal(stream, RENAMED) == expected
    with pytest.raises(ValueError, match="in the same order"):
        stream.partial_fit(PERMUTED, Y)


# -- parquet, whose columns have names ------------------------------------------------------------


def test_columns_of_a_parquet_file_are_the_names_of_its_frame(tmp_path):
    pytest.importorskip("pyarrow")
    FRAME.assign(kind=Y).to_parquet(tmp_path / "x.parquet")
    model = LBFGSSoftmax().fit_rows(rows_from_files(tmp_path / "x.parquet", "kind"))
    theirs = LogisticRegression(tol=1).fit(pandas.read_parquet(tmp_path / "x.parquet")[NAMES], Y)
    assert names(model) == names(theirs)
    assert refusal(model, PERMUTED) == refusal(theirs, PERMUTED)
    some = rows_from_files(tmp_path / "x.parquet", "kind", columns=NAMES[2:0:-1])
    assert names(model.fit_rows(some)) == NAMES[2:0:-1]


def test_parquet_files_whose_columns_are_in_another_order_are_not_taken_as_they_come(tmp_path):
    pytest.importorskip("pyarrow")
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    FRAME.iloc[:80].to_parquet(paths[0])
    PERMUTED.iloc[80:].to_parquet(paths[1])
    with pytest.raises(ValueError, match=r"same columns in the same order.*b\.parquet has"):
        rows_from_files(paths, Y)
    model = LBFGSSoftmax().fit_rows(rows_from_files(paths, Y, columns=NAMES))
    np.testing.assert_allclose(model.coef_, LBFGSSoftmax().fit(X, Y).coef_, atol=1e-6)


def test_a_column_of_lists_and_files_of_two_kinds_have_no_names(tmp_path):
    pytest.importorskip("pyarrow")
    pandas.DataFrame({"e": X.tolist()}).to_parquet(tmp_path / "lists.parquet")
    assert rows_from_files(tmp_path / "lists.parquet", Y).feature_names is None
    np.save(tmp_path / "x.npy", X)
    FRAME.to_parquet(tmp_path / "x.parquet")
    both = [tmp_path / "x.parquet", tmp_path / "x.npy"]
    assert rows_from_files(both, np.tile(Y, 2)).feature_names is None


# -- files of models ------------------------------------------------------------------------------


def build(name):
    if name == "random features":
        return make_pipeline(RandomFeatures(5, random_state=0), LBFGSSoftmax())
    return SOLVERS.get(name)(tol=0.1, **({"max_iter": 500} if name == "sgd" else {}))


@pytest.mark.parametrize("name", [*SOLVERS.names(), "random features"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_loaded_model_refuses_permuted_columns_as_a_pickled_one(name, tmp_path):
    model = build(name).fit(FRAME, Y)
    found = load_linear(save_linear(model, tmp_path))
    pickled = pickle.loads(pickle.dumps(model))
    assert found.feature_names_in_.tolist() == pickled.feature_names_in_.tolist() == NAMES
    assert found.feature_names_in_.dtype == pickled.feature_names_in_.dtype == object
    for frame in (PERMUTED, RENAMED):
        assert refusal(found, frame) == refusal(pickled, frame)
    np.testing.assert_array_equal(found.predict_proba(FRAME), pickled.predict_proba(FRAME))
    for one in (found, pickled):
        with pytest.warns(UserWarning, match="X does not have valid feature names"):
            one.predict(X)


def test_random_features_that_make_frames_come_back_with_the_names_they_take(tmp_path):
    model = build("random features").set_output(transform="pandas").fit(FRAME, Y)
    found = load_linear(save_linear(model, tmp_path))
    assert found.feature_names_in_.tolist() == NAMES
    np.testing.assert_array_equal(found.predict_proba(FRAME), model.predict_proba(FRAME))


def test_names_of_any_letters_come_back(tmp_path):
    odd = FRAME.set_axis(["", "größe", 'a "b"\n', "0"], axis=1)
    found = load_linear(save_linear(LBFGSSoftmax().fit(odd, Y), tmp_path))
    assert found.feature_names_in_.tolist() == odd.columns.tolist()


def rewritten(path, change):
    """The file with another ``about``."""
    with np.load(path) as loaded:
        arrays = dict(loaded)
    about = json.loads(str(arrays["about"]))
    change(about)
    np.savez(path, **(arrays | {"about": np.array(json.dumps(about))}))
    return path


def test_a_file_written_before_names_were_kept_loads(tmp_path):
    model = LBFGSSoftmax().fit(FRAME, Y)

    def forget(about):
        assert sorted(about) == ["feature_names", "fitted", "n_iter", "options", "solver"]
        del about["feature_names"], about["fitted"]

    found = load_linear(rewritten(save_linear(model, tmp_path), forget))
    assert names(found) == []
    assert found.n_iter_ == model.n_iter_
    np.testing.assert_array_equal(found.predict_proba(X), model.predict_proba(FRAME))


@pytest.mark.parametrize("wrong", [["a", "b"], "abcd", 4], ids=str)
def test_names_that_do_not_fit_are_an_error_that_names_the_file(wrong, tmp_path):
    path = save_linear(LBFGSSoftmax().fit(FRAME, Y), tmp_path)
    rewritten(path, lambda about: about.update(feature_names=wrong))
    with pytest.raises(ValueError, match=r"model\.npz: feature_names must be a list of 4 names"):
        load_linear(path)
