"""``lastlayer fit-linear`` of features in .npy and parquet files, here and by a cluster."""

from __future__ import annotations

import json
import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from lastlayer.data import load
from lastlayer.linear_model import load_linear


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def examples(tmp_path):
    """150 examples of three classes called by name: in one .npz, two .npy and labels alone."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, 150)
    X = (rng.normal(size=(150, 6)) + 1.5 * np.eye(3, 6)[target]).astype(np.float32)
    labels = np.array(["ant", "bee", "cat"])[target]
    np.savez("F.npz", x=X, y=labels)
    np.save("part1.npy", X[:40])
    np.save("part2.npy", X[40:])
    np.save("y.npy", labels)
    return X, labels


def fitted(lastlayer, *words, solver="auto"):
    """Summary and model of a fit, and what was printed."""
    printed = lastlayer("fit-linear", *words, "--dtype", "float64", "--out", "o")
    assert printed.status == 0, printed.err
    folder = Path("o") / solver
    return json.loads((folder / "summary.json").read_text()), load_linear(folder), printed


def one_error_line(printed):
    assert printed.status == 2
    *_, line = printed.err.splitlines()
    assert line.startswith("error: ")
    return line


PATTERN = ("--features", "part*.npy", "--target")


@pytest.mark.parametrize("target", ["y.npy", "F.npz:y"])
@pytest.mark.parametrize("how", [(), ("--path", "0.01,1"), ("--train-size", 60, "--seed", 2)])
def test_files_are_cut_and_fitted_as_the_same_examples_in_one_archive(
    lastlayer, examples, target, how
):
    words = (*how, "--tol", "1e-10")
    found, model, printed = fitted(lastlayer, *PATTERN, target, *words, "--memory-bound", 3000)
    expected, other, same = fitted(lastlayer, "--features", "F.npz", *words)
    np.testing.assert_allclose(model.coef_, other.coef_, atol=1e-6)
    assert model.classes_.tolist() == ["ant", "bee", "cat"]
    for name in ("train_size", "features", "classes", "C", "taken"):
        assert found[name] == expected[name]
    for part in ("train", "test"):
        for name in ("error", "nll", "count"):
            assert found[part][name] == pytest.approx(expected[part][name], rel=1e-6)
    assert found["objective"] == pytest.approx(expected["objective"], rel=1e-9)
    if found["path"] is not None:
        assert found["path"]["nll"] == pytest.approx(expected["path"]["nll"], rel=1e-6)
    assert "note: No test arrays: 30 examples were set apart" in printed.out
    assert printed.out.split("training examples of ")[1].startswith("6 features")
    assert same.out.count("training examples of 6 features") == 1


def test_the_model_of_files_is_scikit_learns_of_the_same_part(lastlayer, examples):
    summary, model, _ = fitted(lastlayer, *PATTERN, "y.npy", "--C", 0.3, "--tol", "1e-10")
    splits = load("npz", data_dir="F.npz")
    names = np.array(splits.class_names)
    theirs = LogisticRegression(C=0.3, tol=1e-10, max_iter=5000)
    theirs.fit(splits.train.inputs.numpy(), names[splits.train.target.numpy()])
    np.testing.assert_allclose(model.coef_, theirs.coef_, atol=1e-4)
    X_test, y_test = splits.test.inputs.numpy(), names[splits.test.target.numpy()]
    assert summary["test"]["error"] == pytest.approx(1 - theirs.score(X_test, y_test))
    nll = log_loss(y_test, theirs.predict_proba(X_test))
    assert summary["test"]["nll"] == pytest.approx(nll, rel=1e-4)


def test_several_solvers_stand_side_by_side_and_are_kept_until_a_file_changes(lastlayer, examples):
    words = (*PATTERN, "y.npy", "--solver", "lbfgs,sgd", "--max-iter", 20)
    fitted(lastlayer, *words, solver="sgd")
    assert {"convergence.png", "table.md"} <= {path.name for path in Path("o").iterdir()}
    again = lastlayer("fit-linear", *words, "--dtype", "float64", "--out", "o")
    assert "sgd: from o/sgd" in again.out
    X = np.load("part1.npy")
    X[0] += 1
    np.save("part1.npy", X)
    os.utime("part1.npy", ns=(1, 1))
    assert ": from " not in lastlayer("fit-linear", *words, "--dtype", "float64", "--out", "o").out


def test_the_test_parts_share_is_an_option(lastlayer, examples):
    words = ("--data-option", "test_fraction=0.4", "--data-option", "split_seed=1")
    summary, *_ = fitted(lastlayer, *PATTERN, "y.npy", *words)
    assert (summary["train_size"], summary["test"]["count"]) == (90, 60)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--features", "none.npy", "--target", "y.npy"], "error: none.npy: there is no such file"),
        (["--features", "n*.npy", "--target", "y.npy"], "there is no file n*.npy"),
        (["--features", "part*.npy"], "target must name the labels of part*.npy"),
        (["--features", "part1.npy", "--target", "y.npy"], "150 labels, but the features have 40"),
        (["--features", "part1.npy", "--target", "label"], "'label' is a column, but not all"),
        (["--features", "F.npz", "--target", "y.npy"], "target is for features in .npy or parquet"),
        (["--cluster", "tcp://here:1"], "cluster is for features in .npy or parquet files; got"),
        ([*PATTERN, "y.npy", "--data", "digits"], "features or data, not both"),
        ([*PATTERN, "y.npy", "--memory-bound", "0"], "memory_bound must be a whole number"),
        ([*PATTERN, "y.npy", "--memory-bound", "9"], "memory_bound must be at least the"),
        ([*PATTERN, "y.npy", "--random-features", "9"], "random_features are for features in mem"),
        ([*PATTERN, "y.npy", "--data-option", "layout=NHW"], "has no option 'layout'; its options"),
        ([*PATTERN, "y.npy", "--path", "1", "--validation-size", "500"], "500"),
        ([*PATTERN, "y.npy", "--dtype", "half"], "dtype must be one of"),
    ],
)
def test_mistakes_are_one_line(lastlayer, examples, words, message):
    assert message in one_error_line(lastlayer("fit-linear", *words))


def test_the_examples_set_apart_for_the_test_are_told_before_the_fit(lastlayer, examples):
    *_, printed = fitted(lastlayer, *PATTERN, "y.npy")
    told = "note: No test arrays: 30 examples were set apart for the test."  # a fifth of 150
    assert told in " ".join((printed.out + printed.err).split())


def test_rows_that_are_not_finite_are_counted_by_file(lastlayer, examples):
    X = np.load("part2.npy")
    X[::2, 1] = np.nan
    np.save("part2.npy", X)
    line = one_error_line(lastlayer("fit-linear", *PATTERN, "y.npy"))
    assert "part2.npy: " in line
    assert "rows hold NaN or infinity in float32" in line


# -- parquet and clusters -------------------------------------------------------------------------


@pytest.fixture
def tables(examples):
    """The examples in two parquet files, with a column of text that is no feature."""
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'parquet')")
    parquet = pytest.importorskip("pyarrow.parquet")
    X, labels = examples
    for name, part in (("t1", slice(0, 70)), ("t2", slice(70, 150))):
        columns = {f"x{k}": X[part, k] for k in range(6)}
        table = arrow.table(columns | {"who": labels[part], "animal": labels[part]})
        parquet.write_table(table, f"{name}.parquet", row_group_size=25)
    return ("--features", "t*.parquet", "--target", "animal", "--columns", "x0,x1, x2,x3,x4,x5")


def test_parquet_files_give_the_model_of_the_archive_and_name_its_features(lastlayer, tables):
    found, model, _ = fitted(lastlayer, *tables, "--tol", "1e-10", "--memory-bound", 20_000)
    expected, other, _ = fitted(lastlayer, "--features", "F.npz", "--tol", "1e-10")
    np.testing.assert_allclose(model.coef_, other.coef_, atol=1e-6)
    assert model.feature_names_in_.tolist() == [f"x{k}" for k in range(6)]
    assert found["test"]["nll"] == pytest.approx(expected["test"]["nll"], rel=1e-6)
    line = one_error_line(lastlayer("fit-linear", *tables[:4]))
    assert "column 'who': features must be real numbers" in line


def test_a_cluster_reads_the_files_and_gives_the_same_model(lastlayer, examples):
    distributed = pytest.importorskip("distributed", reason="dask is not installed ('cluster')")
    pytest.importorskip("dask.array")
    words = (*PATTERN, "y.npy", "--tol", "1e-10", "--path", "0.1,1")
    _, other, _ = fitted(lastlayer, *words)
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address=None,
    ) as cluster:
        Path("o/auto/summary.json").unlink()  # or it would be taken from there
        summary, model, _ = fitted(lastlayer, *words, "--cluster", cluster.scheduler_address)
        np.testing.assert_allclose(model.coef_, other.coef_, atol=1e-6)
        assert summary["train_size"] == 108
        line = one_error_line(
            lastlayer(
                *("fit-linear", *PATTERN, "y.npy", "--solver", "sgd", "--out", "p"),
                *("--cluster", cluster.scheduler_address),
            )
        )
        assert "got ClusterRows" in line


def test_a_cluster_without_dask_tells_the_extra(lastlayer, examples, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    line = one_error_line(lastlayer("fit-linear", *PATTERN, "y.npy", "--cluster", "tcp://here:1"))
    assert "pip install 'lastlayer[cluster]'" in line


def test_features_larger_than_the_bound_are_never_in_memory_as_a_whole(lastlayer):
    rng, count, bound = np.random.default_rng(0), 30_000, 2_000_000
    np.save("X.npy", rng.normal(size=(count, 120)).astype(np.float32))
    np.save("y.npy", (np.arange(count) % 3).astype(np.int8))
    words = ("--features", "X.npy", "--target", "y.npy", "--memory-bound", bound)
    lastlayer("list")  # so that what is imported does not count
    tracemalloc.start()
    try:
        printed = lastlayer("fit-linear", *words, "--solver", "lbfgs", "--max-iter", 2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert printed.status == 0, printed.err
    # The bound for the training and the test part, and labels, indices and masks of all rows.
    assert peak < 2 * bound + 16 * 8 * count
    assert peak < Path("X.npy").stat().st_size * 0.6
