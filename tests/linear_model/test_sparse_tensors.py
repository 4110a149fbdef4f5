"""Sparse tensors are SciPy's matrices, whose place they take; their oracle is the dense tensor."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy import sparse

from lastlayer.linear_model import (
    ADMMSoftmax,
    LBFGSSoftmax,
    NewtonKrylovSoftmax,
    RandomFeatures,
    SGDSoftmax,
    SoftmaxRegression,
    discrete_laplacian,
)
from lastlayer.linear_model.rows import rows_in_memory

SOLVERS = [LBFGSSoftmax, NewtonKrylovSoftmax, ADMMSoftmax, SoftmaxRegression]


def uncoalesced(dense):
    """Every entry in two parts, the second 1."""
    whole = dense.to_sparse_coo().coalesce()
    values = torch.cat([whole.values() - 1, torch.ones_like(whole.values())])
    indices = torch.cat([whole.indices()] * 2, 1)
    return torch.sparse_coo_tensor(indices, values, dense.shape, check_invariants=True)


def quiet(convert):
    def call(dense):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse .* tensor support is in beta")
            return convert(dense)

    return call


LAYOUTS = {
    "csr": quiet(torch.Tensor.to_sparse_csr),
    "csc": quiet(torch.Tensor.to_sparse_csc),
    "coo": torch.Tensor.to_sparse_coo,
    "uncoalesced": uncoalesced,
}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


@pytest.fixture(scope="module")
def given(noisy):
    case = noisy()
    case.X[np.abs(case.X) < 1] = 0
    return case


@layouts
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_sparse_tensor_is_fitted_as_scipys_matrix(solver, layout, given):
    rows = layout(torch.from_numpy(given.X))
    model = solver(tol=1e-10).fit(rows, torch.from_numpy(given.y))
    scipys = solver(tol=1e-10).fit(sparse.csr_array(given.X), given.y)
    np.testing.assert_allclose(model.coef_, scipys.coef_, atol=1e-12)
    assert given.of(model) == pytest.approx(given.scikit_learn_minimum(), rel=1e-8)


@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_predictions_of_a_sparse_tensor_are_those_of_the_dense_one(dtype, layout, given):
    model = LBFGSSoftmax().fit(given.X, given.y)
    dense = (2 * torch.from_numpy(given.X)).round().to(dtype)
    rows = layout(dense)
    for name in ("predict_proba", "predict_log_proba", "decision_function"):
        found, expected = getattr(model, name)(rows), getattr(model, name)(dense)
        assert isinstance(found, torch.Tensor)
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model.predict(rows), model.predict(dense))
    assert model.score(rows, given.y) == model.score(dense, given.y)
    fitted = LBFGSSoftmax(tol=1e-6).fit(rows, given.y)
    expected = LBFGSSoftmax(tol=1e-6).fit(dense, given.y)
    assert fitted.coef_.dtype == expected.coef_.dtype
    np.testing.assert_allclose(fitted.coef_, expected.coef_, atol=1e-2)


@layouts
def test_streams_and_random_features_take_sparse_tensors(layout, given):
    dense = torch.from_numpy(given.X)
    options = {"momentum": 0.5, "random_state": 0}
    found, expected = (
        SGDSoftmax(**options).partial_fit(rows, given.y, [0, 1, 2], np.ones(60)).coef_
        for rows in (layout(dense), dense)
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)
    random = RandomFeatures(7, random_state=0).fit(layout(dense))
    features = random.transform(layout(dense.float()))
    assert features.dtype == torch.float32
    expected = RandomFeatures(7, random_state=0).fit(dense).transform(dense.float())
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("form", [sparse.csr_array, sparse.coo_matrix, "csr", "coo"], ids=str)
def test_a_penalty_operator_may_be_sparse(form, given):
    operator = discrete_laplacian((2, 2), identity=0.3)
    loose = LAYOUTS[form](operator) if isinstance(form, str) else form(operator.numpy())
    found = LBFGSSoftmax(penalty_operator=loose).fit(given.X, given.y)
    expected = LBFGSSoftmax(penalty_operator=operator).fit(given.X, given.y)
    np.testing.assert_array_equal(found.coef_, expected.coef_)


@layouts
def test_entries_that_are_not_finite_are_counted(layout, given):
    values = given.X.copy()
    values[[3, 4], 0] = np.nan
    rows = layout(torch.from_numpy(values))
    model = LBFGSSoftmax().fit(given.X, given.y)
    for call in (lambda: LBFGSSoftmax().fit(rows, given.y), lambda: model.predict(rows)):
        with pytest.raises(ValueError, match="NaN: 2 of 60 rows"):
            call()


def test_other_layouts_shapes_and_places_are_named(given):
    dense = torch.from_numpy(given.X)
    blocks = quiet(lambda rows: rows.to_sparse_bsr((2, 2)))(dense)
    model = LBFGSSoftmax().fit(dense, given.y)
    for call in (lambda: LBFGSSoftmax().fit(blocks, given.y), lambda: model.predict(blocks)):
        with pytest.raises(ValueError, match=r"layout CSR, CSC or COO; got .*sparse_bsr"):
            call()
    for wrong in (dense.to_sparse(1), dense[:, 0].to_sparse(), dense[None].to_sparse()):
        with pytest.raises(ValueError, match=r"a sparse tensor must have shape \(n, d\)"):
            LBFGSSoftmax().fit(wrong, given.y)
    with pytest.raises(ValueError, match="is expecting 4 features"):
        model.predict(dense[:, :3].to_sparse())
    with pytest.raises(ValueError, match="computed with on the CPU; got device='meta'"):
        LBFGSSoftmax(device="meta").fit(dense.to_sparse(), given.y)
    with pytest.raises(TypeError, match=r"features must be a dense tensor; got .*sparse_coo"):
        rows_in_memory(dense.to_sparse(), torch.from_numpy(given.y))
