"""Rows of any kind: the protocol, parts of files, measuring, and paths over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

import lastlayer.linear_model
from lastlayer.linear_model import LBFGSSoftmax, NewtonKrylovSoftmax, SGDSoftmax, rows
from lastlayer.linear_model import regularization_path as path_over
from lastlayer.linear_model.problem import SoftmaxProblem
from lastlayer.linear_model.rows.matrices import DenseMatrix


class OneByOne:
    """Rows as a user may write them: a list of examples, computed with one at a time."""

    in_memory = False
    feature_names = None

    def __init__(self, features, labels):
        self.classes, target = np.unique(labels, return_inverse=True)
        self.num_features = features.shape[1]
        self.dtype, self.device = torch.float64, torch.device("cpu")
        self.blocks = [
            rows.Block(DenseMatrix(torch.from_numpy(row[None])), torch.tensor([label]))
            for row, label in zip(features, target, strict=True)
        ]

    def reduce(self, step, *shared):
        found = [step(block, *shared) for block in self.blocks]
        return tuple(sum(parts[1:], parts[0]) for parts in zip(*found, strict=True))

    def clear(self):
        for block in self.blocks:
            block.state.clear()


@pytest.fixture
def files(noisy, tmp_path):
    """Three classes called a, b, c: features in two files, labels in one and in an archive."""
    given = noisy(count=90)
    labels = np.array(["a", "b", "c"])[given.y]
    np.save(tmp_path / "part1.npy", given.X[:50])
    np.save(tmp_path / "part2.npy", given.X[50:])
    np.save(tmp_path / "labels.npy", labels)
    np.savez(tmp_path / "more.npz", other=np.arange(3), labels=labels)
    return tmp_path, given.X, labels


def test_a_users_own_rows_are_fitted_and_measured_as_arrays(noisy):
    given = noisy()
    own = OneByOne(given.X, given.y)
    assert isinstance(own, rows.Rows)
    model = NewtonKrylovSoftmax(tol=1e-12).fit_rows(own)
    expected = NewtonKrylovSoftmax(tol=1e-12).fit(given.X, given.y)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-10)
    assert model.measure_rows(own).accuracy == expected.score(given.X, given.y)


@pytest.mark.parametrize("what", ["array", "labels.npy", "more.npz:labels"])
def test_labels_may_be_an_array_a_file_or_a_named_array(files, what):
    folder, X, labels = files
    target = labels if what == "array" else f"{folder}/{what}"
    found = rows.rows_from_files(f"{folder}/part*.npy", target)
    assert found.num_rows == 90
    model = LBFGSSoftmax(tol=1e-8).fit_rows(found)
    np.testing.assert_allclose(model.coef_, LBFGSSoftmax(tol=1e-8).fit(X, labels).coef_, atol=1e-5)
    assert model.classes_.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("estimator", [LBFGSSoftmax(tol=1e-10), SGDSoftmax(random_state=0)])
@pytest.mark.parametrize("bound", [2000, 2**20])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_part_of_files_is_fitted_as_the_part_alone(files, estimator, bound, tmp_path):
    folder, X, labels = files
    weight = np.random.default_rng(0).exponential(size=90)
    for taken in (np.arange(90) % 3 > 0, np.arange(90) >= 50):
        found = rows.rows_from_files(
            f"{folder}/part?.npy", labels, weight, subset=taken, memory_bound=bound, block_rows=7
        )
        assert found.num_rows == taken.sum()
        np.save(tmp_path / "alone.npy", X[taken])
        alone = rows.rows_from_files(
            tmp_path / "alone.npy", labels[taken], weight[taken], block_rows=200
        )
        model = estimator.fit_rows(found)
        if isinstance(estimator, LBFGSSoftmax):
            expected = model.coef_
            np.testing.assert_allclose(estimator.fit_rows(alone).coef_, expected, atol=1e-6)
        seen = torch.cat([block.matrix.values for block in found])
        np.testing.assert_array_equal(seen.numpy(), X[taken])


def test_what_is_measured_on_rows_is_scikit_learns(files):
    folder, X, labels = files
    model = LBFGSSoftmax().fit(X, labels)
    found = model.measure_rows(
        rows.rows_from_files(f"{folder}/part*.npy", labels, np.arange(90), memory_bound=5000)
    )
    log_prob = model.predict_log_proba(X)[np.arange(90), np.searchsorted(["a", "b", "c"], labels)]
    assert found.nll == pytest.approx(log_loss(labels, model.predict_proba(X)), rel=1e-12)
    assert found.standard_error == pytest.approx(log_prob.std(ddof=1) / np.sqrt(90), rel=1e-9)
    assert found.accuracy == model.score(X, labels)
    assert found.num_rows == 90
    with pytest.raises(ValueError, match=r"the classes fitted to, .*'c'.*; got .*'d'"):
        model.measure_rows(rows.rows_from_files(folder / "part1.npy", ["a", "d"] * 25))
    np.save(folder / "wide.npy", np.zeros((2, 5)))
    with pytest.raises(ValueError, match="must have the 4 features fitted to; got 5"):
        model.measure_rows(rows.rows_from_files(folder / "wide.npy", ["a", "b"]))


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_a_path_over_rows_is_the_path_over_arrays(files, class_weight):
    folder, X, labels = files
    train = np.arange(90) % 4 > 0
    part = {
        own: rows.rows_from_files(
            f"{folder}/part*.npy", labels, subset=taken, memory_bound=3000, block_rows=10
        )
        for own, taken in (("train", train), ("held out", ~train))
    }
    estimator = NewtonKrylovSoftmax(tol=1e-12, class_weight=class_weight)
    Cs = (0.01, 1.0, 100.0)
    found = path_over(estimator, part["train"], Cs=Cs, validation=part["held out"])
    expected = path_over(
        estimator, X[train], labels[train], Cs=Cs, validation=(X[~train], labels[~train])
    )
    for one, other in zip(found.points, expected.points, strict=True):
        np.testing.assert_allclose(one.model.coef_, other.model.coef_, atol=1e-8)
        for name in ("nll", "standard_error", "accuracy"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-6)


def test_a_path_reads_files_once_for_the_sums_that_no_weights_go_into(files, monkeypatch):
    folder, _, labels = files
    train = rows.rows_from_files(f"{folder}/part*.npy", labels, memory_bound=3000, block_rows=10)
    steps = []
    plain = type(train).reduce
    monkeypatch.setattr(
        type(train),
        "reduce",
        lambda self, step, *shared: steps.append(step.__name__) or plain(self, step, *shared),
    )
    estimator = NewtonKrylovSoftmax(preconditioner="gram")
    fits = path_over(estimator, train, Cs=(0.1, 1.0, 10.0), validation=train)
    assert (steps.count("totals"), steps.count("gram")) == (1, 1)
    assert all(point.model.converged_ for point in fits.points)


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        ("more.npz:label", {}, ValueError, r"more\.npz: has no array 'label'; its arrays: other"),
        ("none.npz:label", {}, FileNotFoundError, r"none\.npz: there is no such file"),
        ("part1.npy", {}, ValueError, r"part1\.npy: target must have shape \(n,\)"),
        ("labels.npy", {"subset": [True]}, ValueError, r"for each of 90 rows; got torch\.bool"),
        ("labels.npy", {"subset": np.ones(90)}, ValueError, "got torch.float64 of shape"),
        ("labels.npy", {"subset": np.zeros(90, bool)}, ValueError, "at least one row; got none"),
    ],
)
def test_what_does_not_fit_is_said(files, target, options, error, message):
    folder, *_ = files
    with pytest.raises(error, match=message):
        rows.rows_from_files(f"{folder}/part*.npy", f"{folder}/{target}", **options)


def test_a_pattern_without_files_and_a_damaged_archive_are_named(files):
    folder, _, labels = files
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing\*\.npy"):
        rows.rows_from_files(f"{folder}/nothing*.npy", labels)
    (folder / "more.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"more\.npz: truncated, or no \.npz file"):
        rows.rows_from_files(folder / "part1.npy", f"{folder}/more.npz:labels")


@pytest.mark.parametrize("name", ["rows_from_files", "DistributedRows", "SoftmaxProblem"])
def test_names_of_version_0_1_are_found_and_tell_the_new_one(name):
    with pytest.warns(DeprecationWarning, match=rf"now lastlayer\.linear_model\.\w+\.{name}"):
        found = getattr(lastlayer.linear_model, name)
    assert found is (SoftmaxProblem if name == "SoftmaxProblem" else getattr(rows, name))
