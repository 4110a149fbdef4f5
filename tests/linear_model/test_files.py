"""Rows read from files: the fit in memory, at a memory that does not grow with the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from lastlayer.linear_model import ADMMSoftmax, LBFGSSoftmax, NewtonKrylovSoftmax, SGDSoftmax
from lastlayer.linear_model.rows import rows_from_files, rows_in_memory
from lastlayer.linear_model.rows.streams import LIVE_BLOCKS, LIVE_LOGITS, DiskState, row_bytes

SOLVERS = {
    "lbfgs": LBFGSSoftmax(tol=1e-9),
    "newton": NewtonKrylovSoftmax(tol=1e-12),
    "admm": ADMMSoftmax(tol=0, max_iter=20, polish=False),
}


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 6)) * [1, 2, 5, 1, 0.1, 1] + 1
    target = (features @ rng.normal(size=(6, 3)) + rng.gumbel(size=(500, 3))).argmax(1)
    return features, target, rng.uniform(0.1, 2, size=500)


@pytest.fixture(scope="module")
def shards(examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    paths = [folder / "a.npy", folder / "b.npy"]
    np.save(paths[0], examples[0][:200])
    np.save(paths[1], np.asfortranarray(examples[0][200:]))
    return paths


def _fit(name, fit):
    model = SOLVERS[name].__class__(**SOLVERS[name].get_params())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ADMM alone stops at max_iter
        fit(model)
    return np.column_stack([model.coef_, model.intercept_])


LAYOUTS = [
    {},
    {"block_rows": 77, "memory_bound": 77 * 500},
    {"block_rows": 77, "prefetch": False},
    {"block_rows": 500},
    {"block_rows": 100, "state_folder": True},
]
CASES = [(name, layout) for name in SOLVERS for layout in LAYOUTS]
CASES.append(("newton", {"block_rows": 7}))


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_files_give_the_coefficients_of_memory_whatever_the_blocks(
    name, options, examples, shards, tmp_path
):
    features, target, weight = examples
    options = {k: tmp_path if k == "state_folder" else v for k, v in options.items()}
    rows = rows_from_files(shards, target, weight, **options)
    found = _fit(name, lambda model: model.fit_rows(rows))
    expected = _fit(name, lambda model: model.fit(features, target, weight))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_labels_and_weights_come_from_files_too_and_labels_may_be_strings(
    examples, shards, tmp_path
):
    features, target, weight = examples
    names = np.array(["low", "high", "mid"])[target]
    np.save(tmp_path / "names.npy", names)
    np.save(tmp_path / "weight.npy", weight)
    rows = rows_from_files(shards, tmp_path / "names.npy", str(tmp_path / "weight.npy"))
    model = NewtonKrylovSoftmax(tol=1e-10).fit_rows(rows)
    expected = NewtonKrylovSoftmax(tol=1e-10).fit(features, names, weight)
    assert model.classes_.tolist() == ["high", "low", "mid"]
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-10)
    assert model.score(features, names) == expected.score(features, names)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 3.0, 1: 1.0, 2: 0.5}, {1: 2.0}])
def test_class_weights_of_rows_are_those_of_arrays(class_weight, examples, shards):
    features, target, weight = examples
    options = {"tol": 1e-12, "class_weight": class_weight}
    found = NewtonKrylovSoftmax(**options).fit_rows(rows_from_files(shards, target, weight))
    expected = NewtonKrylovSoftmax(**options).fit(features, target, weight)
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint16", "bool", ">f8", "float32"])
def test_other_dtypes_are_converted_as_in_memory(dtype, examples, tmp_path):
    features = examples[0].astype(dtype) if dtype != "uint16" else abs(examples[0]).astype(dtype)
    np.save(tmp_path / "x.npy", features)
    rows = rows_from_files(tmp_path / "x.npy", examples[1], block_rows=64)
    assert rows.dtype == (torch.float32 if dtype == "float32" else torch.float64)
    found = LBFGSSoftmax(tol=1e-6).fit_rows(rows).coef_
    expected = LBFGSSoftmax(tol=1e-6).fit(features, examples[1]).coef_
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=1e-10 if dtype != "float32" else 1e-3)


def test_a_dtype_can_be_asked_for(examples, shards):
    rows = rows_from_files(shards, examples[1], dtype=torch.float32)
    assert LBFGSSoftmax().fit_rows(rows).coef_.dtype == np.float32
    with pytest.raises(ValueError, match="dtype must be one of"):
        rows_from_files(shards, examples[1], dtype=torch.float16)


def test_stochastic_gradient_descent_draws_batches_from_files(examples, shards):
    _, target, _ = examples
    model = SGDSoftmax(tol=0.5, max_iter=60, batch_size=32, random_state=0)
    model.fit_rows(rows_from_files(shards, target))
    assert model.converged_
    balanced = SGDSoftmax(class_weight="balanced")
    with pytest.raises(TypeError, match="without class_weight"):
        balanced.fit_rows(rows_from_files(shards, target))


def test_blocks_are_kept_while_the_bound_has_room(examples, shards):
    per_row = row_bytes(6, 3, torch.float64, 8)
    assert per_row == 6 * 8 * (LIVE_BLOCKS + 1) + 3 * 8 * LIVE_LOGITS
    bound = 50 * per_row + 3 * 50 * 6 * 8
    rows = rows_from_files(shards, examples[1], block_rows=50, memory_bound=bound)
    for _ in range(2):
        assert len(list(rows)) == 10
    assert sorted(rows.blocks._kept) == [0, 1, 2]
    assert rows.blocks.room == 0


def test_a_bound_too_small_for_the_rows_asked_for_is_an_error(examples, shards):
    with pytest.raises(ValueError, match="memory_bound must be at least the 336 bytes"):
        rows_from_files(shards, examples[1], memory_bound=100)
    with pytest.raises(ValueError, match="block_rows=100 takes 33600 bytes"):
        rows_from_files(shards, examples[1], block_rows=100, memory_bound=1000)


def test_the_state_folder_is_empty_after_a_fit_and_gone_with_the_rows(examples, shards, tmp_path):
    rows = rows_from_files(shards, examples[1], block_rows=100, state_folder=tmp_path)
    seen = []

    def look(record):
        seen.append(len(list(tmp_path.glob("*/*.npy"))))

    NewtonKrylovSoftmax(callback=look).fit_rows(rows)
    assert seen[0] == len(rows.blocks) == 5
    (folder,) = tmp_path.iterdir()
    assert not list(folder.iterdir())
    del rows
    assert not list(tmp_path.iterdir())


def test_state_on_disk_is_a_mapping_of_tensors(tmp_path):
    state = DiskState(tmp_path, "0")
    state.update(a=torch.arange(3.0), b=torch.eye(2, dtype=torch.float64))
    state["a"] *= 2
    assert torch.equal(state["a"], torch.tensor([0.0, 2.0, 4.0]))
    assert state["b"].dtype == torch.float64
    assert sorted(state) == ["a", "b"]
    with pytest.raises(KeyError):
        state["c"]
    state.clear()
    assert len(state) == 0
    assert not list(tmp_path.iterdir())


# -- errors ---------------------------------------------------------------------------------------


def test_a_truncated_file_is_named(examples, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, examples[0])
    whole = path.read_bytes()
    for length in (len(whole) - 8, 100, 3, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"x\.npy: truncated"):
            rows_from_files(path, examples[1])


def test_a_file_truncated_after_a_pass_is_named(examples, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, examples[0])
    rows = rows_from_files(path, examples[1], block_rows=100, memory_bound=100 * 336)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"x\.npy: truncated"):
        LBFGSSoftmax().fit_rows(rows)


def test_rows_that_are_not_finite_are_counted_over_their_file(examples, tmp_path):
    features = examples[0].copy()
    features[[150, 151, 480], [0, 1, 2]] = np.nan, np.inf, np.nan
    np.save(tmp_path / "good.npy", examples[0])
    np.save(tmp_path / "bad.npy", features)
    rows = rows_from_files(
        [tmp_path / "good.npy", tmp_path / "bad.npy"], np.tile(examples[1], 2), block_rows=100
    )
    with pytest.raises(ValueError, match=r"bad\.npy: 3 of 500 rows hold NaN or infinity"):
        LBFGSSoftmax().fit_rows(rows)


def test_a_number_beyond_float32_is_an_error_there(examples, tmp_path):
    features = examples[0].copy()
    features[3, 3] = 1e200
    np.save(tmp_path / "x.npy", features)
    rows = rows_from_files(tmp_path / "x.npy", examples[1], dtype=torch.float32)
    with pytest.raises(ValueError, match="1 of 500 rows hold NaN or infinity in float32"):
        LBFGSSoftmax().fit_rows(rows)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), r"matrix \(n, d\)"),
        (np.zeros((0, 5)), "at least one row"),
        (np.zeros((5, 2), dtype=complex), "real numbers; got dtype complex128"),
        (np.array([["a", "b"]] * 5), "real numbers; got dtype <U1"),
        (np.array([[None, 1]] * 5), "truncated, or no .npy file of numbers"),
    ],
    ids=["vector", "empty", "complex", "words", "objects"],
)
def test_a_file_that_is_no_matrix_of_numbers_is_named(array, message, tmp_path):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match=rf"x\.npy: .*{message}"):
        rows_from_files(tmp_path / "x.npy", [0, 1, 0, 1, 0])


def test_what_does_not_fit_together_is_named(examples, shards, tmp_path):
    features, target, weight = examples
    np.save(tmp_path / "narrow.npy", features[:, :5])
    np.save(tmp_path / "target.npy", features)
    with pytest.raises(FileNotFoundError, match=r"none\.npy: there is no such file"):
        rows_from_files(tmp_path / "none.npy", target)
    with pytest.raises(ValueError, match=r"has 6, .*narrow\.npy has 5"):
        rows_from_files([shards[0], tmp_path / "narrow.npy"], target)
    with pytest.raises(ValueError, match="target has 499 labels, but the features have 500 rows"):
        rows_from_files(shards, target[1:])
    with pytest.raises(ValueError, match=r"weight must have shape \(500,\), one a row"):
        rows_from_files(shards, target, weight[1:])
    with pytest.raises(ValueError, match="2 of 500 are not"):
        rows_from_files(shards, target, np.where(np.arange(500) < 2, -1, weight))
    with pytest.raises(ValueError, match="at least 2 classes"):
        rows_from_files(shards, np.zeros(500))
    with pytest.raises(ValueError, match=r"not among the classes: \[2\]"):
        rows_from_files(shards, target, classes=[0, 1])
    with pytest.raises(ValueError, match=r"must be \.npy or \.parquet files"):
        rows_from_files(tmp_path / "x.csv", target)
    with pytest.raises(ValueError, match="at least one file"):
        rows_from_files([], target)
    with pytest.raises(ValueError, match=r"target must have shape \(n,\)"):
        rows_from_files(shards, tmp_path / "target.npy")
    with pytest.raises(ValueError, match="is a column, but not all features are parquet"):
        rows_from_files(shards, "label")


def test_all_weights_0_is_an_error(examples, shards):
    with pytest.raises(ValueError, match="weights must not be 0 for all rows"):
        LBFGSSoftmax().fit_rows(rows_from_files(shards, examples[1], np.zeros(500)))


def test_rows_that_know_their_classes_take_no_others(examples, shards):
    rows = rows_from_files(shards, examples[1])
    with pytest.raises(ValueError, match=r"must be those of the rows, \[0, 1, 2\]"):
        LBFGSSoftmax().fit_rows(rows, [0, 2, 1])
    assert LBFGSSoftmax().fit_rows(rows, [0, 1, 2]).classes_.tolist() == [0, 1, 2]


def test_rows_without_labels_need_classes(examples):
    rows = rows_in_memory(*(torch.from_numpy(part) for part in examples[:2]))
    with pytest.raises(ValueError, match="classes must be at least 2 labels"):
        LBFGSSoftmax().fit_rows(rows)
    assert LBFGSSoftmax().fit_rows(rows, ["a", "b", "c"]).classes_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="at least one example"):
        rows_in_memory(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))


# -- parquet --------------------------------------------------------------------------------------


@pytest.fixture
def arrow():
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    return pyarrow


def _table(arrow, features, target, weight):
    columns = {f"x{number}": features[:, number] for number in range(features.shape[1])}
    return arrow.table({**columns, "label": target, "weight": weight})


def test_parquet_files_give_the_coefficients_of_memory(arrow, examples, tmp_path):
    features, target, weight = examples
    names = np.array(["low", "high", "mid"])[target]
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path, part in zip(paths, (slice(0, 150), slice(150, 500)), strict=True):
        table = _table(arrow, features[part], names[part], weight[part])
        arrow.parquet.write_table(table, path, row_group_size=60)
    rows = rows_from_files(paths, "label", "weight")
    assert len(rows.blocks) == 3 + 6
    model = NewtonKrylovSoftmax(tol=1e-12).fit_rows(rows)
    expected = NewtonKrylovSoftmax(tol=1e-12).fit(features, names, weight)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-10)
    some = rows_from_files(paths, names, columns=["x3", "x1"])
    found = NewtonKrylovSoftmax(tol=1e-12).fit_rows(some).coef_
    expected = NewtonKrylovSoftmax(tol=1e-12).fit(features[:, [3, 1]], names).coef_
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("fixed", [True, False])
def test_a_column_of_embeddings_is_a_matrix(arrow, fixed, examples, tmp_path):
    features, target, _ = examples
    kind = arrow.list_(arrow.float32(), 6 if fixed else -1)
    lists = arrow.array(features.astype(np.float32).tolist(), kind)
    path = tmp_path / "x.parquet"
    arrow.parquet.write_table(arrow.table({"e": lists, "y": target}), path, row_group_size=100)
    rows = rows_from_files(path, "y")
    assert rows.dtype == torch.float32
    assert rows.num_features == 6
    block = rows.blocks[1].matrix
    np.testing.assert_array_equal(block.values.numpy(), features[100:200].astype(np.float32))


def test_errors_of_parquet_files_name_file_and_column(arrow, examples, tmp_path):
    features, target, weight = examples
    path = tmp_path / "x.parquet"
    table = _table(arrow, features, target, weight)
    arrow.parquet.write_table(table, path)
    with pytest.raises(ValueError, match=r"x\.parquet: has no columns \['y'\]"):
        rows_from_files(path, "y")
    with pytest.raises(ValueError, match="a row group has 500 rows, but only 10 fit"):
        rows_from_files(path, "label", "weight", memory_bound=3360)
    holes = arrow.array([None, *features[1:, 0]])
    arrow.parquet.write_table(table.set_column(0, "x0", holes), path)
    with pytest.raises(ValueError, match=r"x\.parquet: 1 of 500 rows hold NaN"):
        LBFGSSoftmax().fit_rows(rows_from_files(path, "label", "weight"))
    words = arrow.array(["a"] * 500)
    arrow.parquet.write_table(table.set_column(0, "x0", words), path)
    with pytest.raises(ValueError, match=r"x\.parquet, column 'x0': features must be real"):
        rows_from_files(path, "label", "weight")
    ragged = arrow.array([[1.0]] + [[1.0, 2.0]] * 499)
    arrow.parquet.write_table(arrow.table({"e": ragged, "y": target}), path)
    with pytest.raises(ValueError, match="lists must all be of one length"):
        LBFGSSoftmax().fit_rows(rows_from_files(path, "y"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"x\.parquet: truncated"):
        rows_from_files(path, "y")


def test_parquet_without_pyarrow_tells_the_extra(examples, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "x.parquet").touch()
    with pytest.raises(ImportError, match=r"pip install 'lastlayer\[parquet\]'"):
        rows_from_files(tmp_path / "x.parquet", "y")


# -- memory ---------------------------------------------------------------------------------------

MEGABYTE = 2**20
#: Megabytes of features in memory, of a file of about 100.
BOUND = 10


def _peak() -> int:
    """Return the most memory this process has held; unlike getrusage's, not its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _measure(folder: str) -> dict[str, float]:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    np.save(f"{folder}/small.npy", rng.normal(size=(2000, 128)).astype(np.float32))
    solvers = {
        "lbfgs": LBFGSSoftmax(max_iter=2, tol=0, preconditioner="diagonal"),
        "newton": NewtonKrylovSoftmax(max_iter=1, tol=0, max_products=3),
        "admm": ADMMSoftmax(max_iter=2, tol=0, polish=False),
    }
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for model in solvers.values():  # what libraries take for themselves
            model.fit_rows(rows_from_files(f"{folder}/small.npy", np.arange(2000) % 3))
        before = _peak()
        count = len(np.load(f"{folder}/large.npy", mmap_mode="r"))
        for name, model in solvers.items():
            rows = rows_from_files(
                f"{folder}/large.npy", np.arange(count) % 3, memory_bound=BOUND * MEGABYTE
            )
            model.fit_rows(rows)
            found[name] = (_peak() - before) / MEGABYTE
    return found


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_stays_under_the_bound_and_what_is_stated_beside_it(tmp_path):
    rows, piece = 200_000, 20_000
    path = tmp_path / "large.npy"
    large = np.lib.format.open_memmap(path, "w+", np.float32, (rows, 128))
    some = np.random.default_rng(1).normal(size=(piece, 128)).astype(np.float32)
    for start in range(0, rows, piece):
        large[start : start + piece] = some
    del large
    assert path.stat().st_size > 97 * MEGABYTE
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        # Freed blocks go back at once: the peak is what was held, not what the allocator kept.
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=True,
    )
    path.unlink()
    peaks = json.loads(done.stdout)
    # Beside the bound: labels and class indices, and the matrices of 3 classes that solvers keep.
    labels = 4 * 8 * rows / MEGABYTE
    state = 2 * 3 * 4 * rows / MEGABYTE
    state *= 2  # ADMM replaces it block by block: both are there
    assert max(peaks.values()) < BOUND + labels + state + 10, peaks  # of temporaries and sums
    assert peaks["lbfgs"] < BOUND + labels + 10, peaks


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1])))
