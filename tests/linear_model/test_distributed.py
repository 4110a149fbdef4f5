"""Examples over two gloo processes on one machine: the coefficients of one process."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from lastlayer.linear_model import ADMMSoftmax, LBFGSSoftmax, NewtonKrylovSoftmax, SGDSoftmax
from lastlayer.linear_model.rows import (
    DistributedRows,
    fit_distributed,
    rows_from_files,
    rows_in_memory,
    shared_classes,
)

SOLVERS: dict[str, Callable[..., Any]] = {
    "lbfgs": lambda **options: LBFGSSoftmax(tol=1e-9, **options),
    "newton": lambda **options: NewtonKrylovSoftmax(tol=1e-10, **options),
    "admm": lambda **options: ADMMSoftmax(tol=0, max_iter=20, polish=False, **options),
}
#: Rows of the first process; the labels of the second lack one class.
FIRST = 170


def _examples():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 5)) * [1, 2, 5, 1, 0.1] + 1
    target = (features @ rng.normal(size=(5, 3)) + rng.gumbel(size=(400, 3))).argmax(1)
    order = np.argsort(target == 0, kind="stable")[::-1]
    features, target = features[order], target[order]
    return features, np.array(["b", "c", "a"])[target], rng.uniform(0.1, 2, size=400)


def _parts(rank):
    part = slice(None, FIRST) if rank == 0 else slice(FIRST, None)
    return tuple(array[part] for array in _examples())


def _coefficients(model):
    return np.column_stack([model.coef_, model.intercept_])


# -- what both processes run ----------------------------------------------------------------------


def _fits(rank: int, folder: str) -> dict[str, Any]:
    features, labels, weight = _parts(rank)
    found: dict[str, Any] = {}
    for name, build in SOLVERS.items():
        found[name] = _coefficients(fit_distributed(build(), features, labels, weight))
        model = fit_distributed(build(class_weight="balanced"), features, labels)
        found[name, "balanced"] = _coefficients(model)
    found["classes"] = model.classes_.tolist()
    weight = np.where(np.arange(len(weight)) % 3, weight, 0.0) if rank == 0 else weight
    model = fit_distributed(SOLVERS["newton"](), sparse.csr_array(features), labels, weight)
    found["sparse"] = _coefficients(model)
    single = fit_distributed(LBFGSSoftmax(tol=1e-6), features.astype(np.float32), labels)
    found["float32"] = _coefficients(single)
    np.save(f"{folder}/{rank}.npy", features)
    rows = rows_from_files(
        f"{folder}/{rank}.npy", labels, classes=shared_classes(labels), block_rows=50
    )
    found["files"] = _coefficients(SOLVERS["newton"]().fit_rows(DistributedRows(rows)))
    return found


def _messages(rank: int, folder: str) -> dict[str, Any]:
    """Count the messages of passes in which all goes well."""
    features, labels, _ = _parts(rank)
    target = torch.from_numpy(np.unique(labels, return_inverse=True)[1])
    counts = {}
    original = dist.all_reduce
    for dtype in (torch.float64, torch.float32):
        rows = DistributedRows(rows_in_memory(torch.from_numpy(features).to(dtype), target))
        sent: list[int] = []
        steps: list[str] = []

        def counted(tensor: Any, *args: Any, _sent: list[int] = sent, **options: Any) -> Any:
            _sent.append(tensor.numel())
            return original(tensor, *args, **options)

        def noted(step: Any, *shared: Any, _rows: Any = rows, _steps: Any = steps) -> Any:
            _steps.append(step.__name__)
            return DistributedRows.reduce(_rows, step, *shared)

        rows.reduce = noted  # type: ignore[method-assign]
        dist.all_reduce = counted
        model = LBFGSSoftmax(tol=1e-3).fit_rows(rows, ["a", "b", "c"])
        dist.all_reduce = original
        counts[str(dtype)] = {
            "sent": sent,
            "steps": steps,
            "iterations": model.n_iter_,
            "kept": [sorted(block.state) for block in rows.local_rows],
        }
    return counts


def _errors(rank: int, folder: str) -> dict[str, Any]:
    features, labels, weight = _parts(rank)
    ours = {0: features, 1: features[:, :4]}[rank]
    nan = features.copy()
    if rank == 1:
        nan[:2, 0] = np.nan
    np.save(f"{folder}/nan-{rank}.npy", nan)
    half = features.astype(np.float32) if rank else features
    none = slice(0, 0) if rank == 1 else slice(None)
    tried: dict[str, Callable[[], Any]] = {
        "empty": lambda: fit_distributed(LBFGSSoftmax(), features[none], labels[none]),
        "no rows": lambda: DistributedRows(None if rank else _memory(features, labels)),
        "width": lambda: fit_distributed(LBFGSSoftmax(), ours, labels),
        "dtype": lambda: fit_distributed(LBFGSSoftmax(), half, labels),
        "names": lambda: DistributedRows(_named(["xy", "yx"][rank], features[:, :2], labels)),
        "nan": lambda: fit_distributed(LBFGSSoftmax(), nan, labels),
        "labels": lambda: fit_distributed(
            LBFGSSoftmax(), features, labels if rank else np.arange(len(labels)) % 3
        ),
        "options": lambda: fit_distributed(LBFGSSoftmax(C=1.0 + rank), features, labels),
        "weight": lambda: fit_distributed(
            LBFGSSoftmax(), features, labels, -weight if rank else weight
        ),
        "classes": lambda: DistributedRows(
            rows_from_files(f"{folder}/nan-{rank}.npy", np.where(labels == "c", "az"[rank], "b"))
        ),
        "file": lambda: DistributedRows(
            lambda: rows_from_files(f"{folder}/{'xn'[rank]}an-{rank}.npy", labels)
        ),
        "pass": lambda: NewtonKrylovSoftmax().fit_rows(
            DistributedRows(
                rows_from_files(f"{folder}/nan-{rank}.npy", labels, classes=["a", "b", "c"])
            )
        ),
        "later pass": lambda: _fail_later(rank, DistributedRows(_memory(features, labels))),
        "sgd": lambda: fit_distributed(SGDSoftmax(), features, labels),
    }
    found = {}
    for name, call in tried.items():
        try:
            call()
            found[name] = "no error"
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    found["afterwards"] = fit_distributed(LBFGSSoftmax(), features, labels).converged_
    return found


def _memory(features, labels):
    target = torch.from_numpy(np.searchsorted(["a", "b", "c"], labels))
    return rows_in_memory(torch.from_numpy(features), target)


def _named(names, features, labels):
    rows = _memory(features, labels)
    rows.feature_names = list(names)
    return rows


def _sum_unless(block, failing):
    if failing.any():
        raise FileNotFoundError("the disk is gone")
    return (block.matrix.values.sum(0),)


def _fail_later(rank, rows):
    fine = torch.zeros(1)
    rows.reduce(_sum_unless, fine)
    rows.reduce(_sum_unless, fine + rank)


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=2, timeout=timedelta(minutes=10)
    )
    found = {task.__name__: task(rank, folder) for task in (_fits, _messages, _errors)}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


# -- tests ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def found(folder):
    """What the two processes found."""
    # This file is the program of both: a spawned function would have to be importable there.
    commands = [[sys.executable, __file__, str(rank), str(folder)] for rank in (0, 1)]
    processes = [subprocess.Popen(c, stderr=subprocess.PIPE, text=True) for c in commands]
    errors = [process.communicate(timeout=900)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.fixture(scope="module")
def fits(found):
    return [of_rank["_fits"] for of_rank in found]


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_two_processes_give_the_coefficients_of_one(name, fits):
    features, labels, weight = _examples()
    expected = _coefficients(SOLVERS[name]().fit(features, labels, weight))
    balanced = _coefficients(SOLVERS[name](class_weight="balanced").fit(features, labels))
    for found in fits:
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-8)
        np.testing.assert_allclose(found[name, "balanced"], balanced, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(fits[0][name], fits[1][name])


def test_a_process_that_lacks_a_class_knows_all(fits):
    assert set(_parts(1)[1]) == {"a", "c"}
    assert fits[0]["classes"] == fits[1]["classes"] == ["a", "b", "c"]


def test_files_sparse_and_single_precision_rows_may_be_spread_too(fits):
    features, labels, weight = _examples()
    files = _coefficients(SOLVERS["newton"]().fit(features, labels))
    own = np.arange(len(weight))
    weight = np.where((own < FIRST) & (own % 3 == 0), 0.0, weight)
    weighted = _coefficients(SOLVERS["newton"]().fit(features, labels, weight))
    for found in fits:
        np.testing.assert_allclose(found["files"], files, rtol=0, atol=1e-8)
        np.testing.assert_allclose(found["sparse"], weighted, rtol=0, atol=1e-8)
        assert found["float32"].dtype == np.float32
        np.testing.assert_allclose(found["float32"], files, rtol=0, atol=1e-2)


def test_a_pass_is_one_message_a_dtype_and_what_solvers_keep_stays(found):
    for of_rank in found:
        double, single = (of_rank["_messages"][f"torch.float{bits}"] for bits in (64, 32))
        assert len(double["sent"]) == len(double["steps"])
        # Losses and numbers of rows of single precision are summed in double.
        many = single["steps"].count("evaluate")
        assert many > single["iterations"]
        many += single["steps"].count("totals")
        assert len(single["sent"]) == len(single["steps"]) + many
        # Loss, entropy, two curvatures, gradient (5, 3), residual, and the count of failures.
        sizes = dict(zip(double["steps"], double["sent"], strict=True))
        assert sizes["evaluate"] == 4 + 15 + 3 + 1
        assert all(not kept for kept in double["kept"])


def test_an_error_of_one_process_is_raised_on_both(found, folder):
    first, second = (of_rank["_errors"] for of_rank in found)
    same = {
        "empty": "ValueError: every rank needs at least one row; without any: ranks [1]",
        "no rows": "ValueError: every rank needs at least one row; without any: ranks [1]",
        "width": "ValueError: ranks differ in their number of features: rank 0 has 5, rank 1 has 4",
        "dtype": "ValueError: ranks differ in their dtype: rank 0 has torch.float64, rank 1 has "
        "torch.float32",
        "names": "ValueError: ranks differ in their names of the features: rank 0 has ['x', 'y'], "
        "rank 1 has ['y', 'x']",
        "labels": "ValueError: ranks differ in their kind of labels: some have strings, others "
        "have numbers",
    }
    for name, message in same.items():
        assert first[name] == second[name] == message
    for name, start in (
        ("options", "ValueError: ranks differ in their options: rank 0 has LBFGSSoftmax"),
        ("classes", "ValueError: ranks differ in their classes: rank 0 has"),
        ("sgd", "TypeError: stochastic gradient descent draws batches"),
    ):
        assert first[name] == second[name]
        assert first[name].startswith(start)
    message = f"FileNotFoundError: {folder}/xan-0.npy: there is no such file"
    assert first["file"] == message
    assert second["file"] == f"RuntimeError: rank 0 failed: {message}"
    apart = {
        "nan": "ValueError: Input X contains NaN: 2 of 230 rows are not finite",
        "weight": "ValueError: Negative values in data passed to `sample_weight`.",
        "pass": f"ValueError: {folder}/nan-1.npy: 2 of 230 rows hold NaN or infinity in float64",
        "later pass": "FileNotFoundError: the disk is gone",
    }
    for name, message in apart.items():
        assert second[name] == message
        assert first[name] == f"RuntimeError: rank 1 failed: {message}"
    assert first["afterwards"]
    assert second["afterwards"]


def test_without_a_group_the_error_says_what_to_call():
    with pytest.raises(RuntimeError, match=r"call torch\.distributed\.init"):
        fit_distributed(LBFGSSoftmax(), *_examples()[:2])
    with pytest.raises(RuntimeError, match=r"call torch\.distributed\.init"):
        shared_classes([0, 1])


if __name__ == "__main__":
    _work(int(sys.argv[1]), sys.argv[2])
