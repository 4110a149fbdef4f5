"""Rows of dask arrays: in this process without a cluster, on workers with one."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from lastlayer.linear_model import ADMMSoftmax, LBFGSSoftmax, NewtonKrylovSoftmax, SGDSoftmax
from lastlayer.linear_model.rows import rows_from_dask

SOLVERS = {
    "lbfgs": lambda **options: LBFGSSoftmax(tol=1e-9, **options),
    "newton": lambda **options: NewtonKrylovSoftmax(tol=1e-10, **options),
    "admm": lambda **options: ADMMSoftmax(tol=0, max_iter=20, polish=False, **options),
}


@pytest.fixture(scope="module")
def da():
    return pytest.importorskip("dask.array", reason="dask is not installed (extra 'cluster')")


@pytest.fixture(scope="module")
def client(da):
    """Two workers in this process, spoken to over sockets as those of any cluster."""
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=False,
            protocol="tcp://",
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 5)) * [1, 2, 5, 1, 0.1] + 1
    target = (features @ rng.normal(size=(5, 3)) + rng.gumbel(size=(400, 3))).argmax(1)
    return features, np.array(["b", "c", "a"])[target], rng.uniform(0.1, 2, size=400)


def _coefficients(model):
    return np.column_stack([model.coef_, model.intercept_])


def _lazy(da, examples):
    features, labels, weight = examples
    # Chunks that do not match are brought into line.
    return (
        da.from_array(features, chunks=((100, 0, 250, 50), (2, 3))),
        da.from_array(labels, chunks=150),
        da.from_array(weight, chunks=80),
    )


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_without_a_cluster_coefficients_are_those_of_memory(name, scheduler, da, examples):
    import dask

    expected = _coefficients(SOLVERS[name]().fit(*examples))
    with dask.config.set(scheduler=scheduler):
        for bound in (0, 2**20):
            rows = rows_from_dask(*_lazy(da, examples), memory_bound=bound)
            found = SOLVERS[name]().fit_rows(rows)
            np.testing.assert_allclose(_coefficients(found), expected, rtol=0, atol=1e-8)
    assert found.classes_.tolist() == ["a", "b", "c"]
    assert len(rows.blocks._kept) == 3


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_cluster_gives_the_coefficients_of_memory(name, da, client, examples):
    rows = rows_from_dask(*_lazy(da, examples), address=client)
    assert rows.num_rows == 400
    found = SOLVERS[name]().fit_rows(rows)
    expected = _coefficients(SOLVERS[name]().fit(*examples))
    np.testing.assert_allclose(_coefficients(found), expected, rtol=0, atol=1e-8)
    balanced = SOLVERS[name](class_weight="balanced")
    found = _coefficients(balanced.fit_rows(rows))
    expected = _coefficients(SOLVERS[name](class_weight="balanced").fit(*examples))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


def _look(block):
    block.state["seen"] = block.state.get("seen", torch.zeros(1)) + 1
    return block.state["seen"].clone(), torch.tensor([float(len(block.target))])


def test_state_stays_with_the_workers_until_it_is_cleared(da, client, examples):
    rows = rows_from_dask(*_lazy(da, examples), address=client)
    assert len(rows._workers) == 2
    for times in (1, 2):
        seen, count = rows.reduce(_look)
        assert (float(seen), float(count)) == (3 * times, 400)
    rows.clear()
    assert float(rows.reduce(_look)[0]) == 3


def test_an_address_is_enough_and_the_current_client_is_taken(da, client, examples):
    lazy = _lazy(da, examples)
    by_address = rows_from_dask(*lazy, address=client.scheduler.address)
    expected = _coefficients(LBFGSSoftmax(tol=1e-9).fit(*examples))
    found = _coefficients(LBFGSSoftmax(tol=1e-9).fit_rows(by_address))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)
    by_address.client.close()
    with client.as_current():
        assert rows_from_dask(*lazy).client is client


def test_single_precision_is_kept(da, client, examples):
    X, y, _ = _lazy(da, examples)
    for address in (None, client):
        model = LBFGSSoftmax(tol=1e-5).fit_rows(
            rows_from_dask(X.astype(np.float32), y, address=address)
        )
        assert model.coef_.dtype == np.float32


def test_stochastic_gradient_descent_needs_rows_of_this_process(da, client, examples):
    X, y, _ = _lazy(da, examples)
    model = SGDSoftmax(max_iter=2, tol=0, random_state=0)
    with pytest.warns(ConvergenceWarning):
        model.fit_rows(rows_from_dask(X, y))
    with pytest.raises(TypeError, match="got ClusterRows"):
        model.fit_rows(rows_from_dask(X, y, address=client))


def test_bad_input_is_an_error(da, client, examples):
    features, labels, _ = examples
    X, y, w = _lazy(da, examples)
    bad = features.copy()
    bad[:3, 1] = np.nan
    bad = da.from_array(bad, chunks=(100, 5))
    for address in (None, client):
        with pytest.raises(ValueError, match=r"X: 3 of \d+ rows .*hold NaN or infinity"):
            LBFGSSoftmax().fit_rows(rows_from_dask(bad, y, address=address))
        with pytest.raises(ValueError, match="at least 2 classes"):
            rows_from_dask(X, np.zeros(400), address=address)
        with pytest.raises(ValueError, match="not among the classes"):
            rows_from_dask(X, y, classes=["a", "b"], address=address)
        with pytest.raises(ValueError, match="weight must be finite and at least 0"):
            rows_from_dask(X, y, -w, address=address)
    with pytest.raises(ValueError, match="X must be a dask array; got ndarray"):
        rows_from_dask(features, labels)
    with pytest.raises(ValueError, match=r"X must have shape \(n, d\)"):
        rows_from_dask(w, labels)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        rows_from_dask(X[X[:, 0] > 0], labels)
    with pytest.raises(ValueError, match=r"y must have shape \(400,\); got \(399,\)"):
        rows_from_dask(X, labels[1:])
    with pytest.raises(ValueError, match="real numbers; got dtype complex128"):
        rows_from_dask(X.astype(complex), labels)


def test_without_dask_the_error_tells_the_extra(monkeypatch, examples):
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(ImportError, match=r"pip install 'lastlayer\[cluster\]'"):
        rows_from_dask(*examples)
