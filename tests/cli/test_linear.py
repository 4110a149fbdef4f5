"""``lastlayer features`` and ``lastlayer fit-linear``: what they write, print, reuse and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lastlayer.data import load
from lastlayer.experiments.features import run_features
from lastlayer.linear_model import SOLVERS, load_linear
from lastlayer.training import RunDirectory

FILES = {"model.npz", "history.json", "summary.json"}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(comparison):
    return comparison.folder / "softmax-seed0"


def blobs(count, seed, labels=None):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, count)
    centers = np.random.default_rng(0).normal(0, 1.5, (3, 6))
    y = target if labels is None else np.array(labels)[target]
    return centers[target] + rng.normal(size=(count, 6)), y


@pytest.fixture
def file(tmp_path):
    """Features of three classes with all three parts, in float64."""
    arrays = {}
    for seed, (part, count) in enumerate({"train": 120, "validation": 80, "test": 100}.items()):
        arrays[f"x_{part}"], arrays[f"y_{part}"] = blobs(count, seed + 1)
    np.savez(tmp_path / "F.npz", **arrays)
    return tmp_path / "F.npz"


def one_error_line(printed):
    assert printed.status == 2
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    return line


# -- features -------------------------------------------------------------------------------------


def test_the_runs_head_predicts_the_runs_probabilities_from_the_features(lastlayer, run, tmp_path):
    printed = lastlayer("features", run, "--out", tmp_path / "F.npz")
    assert printed.status == 0, printed.err
    with np.load(tmp_path / "F.npz") as loaded:
        arrays = dict(loaded)
    assert set(arrays) == {f"{a}_{p}" for a in "xy" for p in ("train", "validation", "test")}
    state, predictions = RunDirectory(run).state_dict(), RunDirectory(run).predictions()
    weight, bias = state["head.classifier.weight"], state["head.classifier.bias"]
    logits = torch.from_numpy(arrays["x_test"]) @ weight.T + bias
    torch.testing.assert_close(logits.log_softmax(1), predictions["log_prob"])
    assert arrays["y_test"].tolist() == predictions["target"].tolist()
    assert [p.name for p in tmp_path.iterdir()] == ["F.npz"]
    assert f"x_train {arrays['x_train'].shape}" in printed.out


def test_the_npz_data_source_reads_the_features(lastlayer, run, tmp_path):
    assert lastlayer("features", run, "--out", tmp_path / "F.npz").status == 0
    splits = load("npz", data_dir=tmp_path / "F.npz")
    arrays = run_features(run)
    np.testing.assert_array_equal(splits.train.inputs.numpy(), arrays["x_train"])
    assert splits.class_names == tuple(map(str, range(10)))
    assert splits.test.target.tolist() == arrays["y_test"].tolist()


def test_a_linear_model_on_a_runs_features_is_about_as_good_as_the_run(lastlayer, run, tmp_path):
    assert lastlayer("features", run, "--out", "F.npz").status == 0
    printed = lastlayer("fit-linear", "--features", "F.npz", "--out", "found")
    assert printed.status == 0, printed.err
    summary = json.loads((tmp_path / "found" / "auto" / "summary.json").read_text())
    assert summary["test"]["error"] < RunDirectory(run).summary()["metrics"]["error"] + 0.05


def test_features_of_no_run_or_to_another_kind_of_file_are_one_line(lastlayer, run, tmp_path):
    assert "nowhere" in one_error_line(lastlayer("features", tmp_path / "nowhere"))
    line = one_error_line(lastlayer("features", run, "--out", "F.csv"))
    assert "out must end in .npz; got 'F.csv'" in line
    assert not list(tmp_path.iterdir())


# -- fitting --------------------------------------------------------------------------------------


def test_it_finds_scikit_learns_optimum_and_writes_model_history_and_summary(
    lastlayer, file, tmp_path
):
    words = ("--features", file, "--dtype", "float64", "--tol", "1e-10", "--C", 0.3, "--out", "o")
    printed = lastlayer("fit-linear", *words)
    assert printed.status == 0, printed.err
    folder = tmp_path / "o" / "auto"
    assert {path.name for path in folder.iterdir()} == FILES
    arrays = np.load(file)
    X, X_test = (arrays[name].astype(np.float32).astype(float) for name in ("x_train", "x_test"))
    theirs = LogisticRegression(C=0.3, tol=1e-10, max_iter=5000).fit(X, arrays["y_train"])
    model = load_linear(folder)
    np.testing.assert_allclose(model.coef_, theirs.coef_, atol=1e-4)
    summary = json.loads((folder / "summary.json").read_text())
    log_prob = theirs.predict_log_proba(X_test)[np.arange(100), arrays["y_test"]]
    assert summary["test"]["nll"] == pytest.approx(-log_prob.mean(), abs=1e-5)
    assert summary["test"]["error"] == pytest.approx(1 - theirs.score(X_test, arrays["y_test"]))
    fitted = theirs.predict_log_proba(X)[np.arange(120), arrays["y_train"]]
    objective = -fitted.sum() + (theirs.coef_**2).sum() / (2 * 0.3)
    assert summary["objective"] == pytest.approx(objective, rel=1e-7)
    assert 0 <= summary["gap"] <= 1e-10
    history = json.loads((folder / "history.json").read_text())
    assert len(history["objective"]) == summary["iterations"] + 1
    assert (summary["solver"], summary["taken"]) == ("auto", "newton-krylov")
    nll = f"{summary['test']['nll']:.4f}"
    for word in ("auto (newton-krylov)", "Iterations", "Gap", "Test NLL", nll):
        assert word in printed.out
    assert all(line.startswith("auto: iteration ") for line in printed.err.splitlines())


def test_every_solver_named_gets_its_row_its_folder_and_its_curve(lastlayer, file, tmp_path):
    names = SOLVERS.names()
    printed = lastlayer("fit-linear", "--features", file, "--solver", ",".join(names), "--out", "o")
    assert printed.status == 0, printed.err
    out = tmp_path / "o"
    assert {path.name for path in out.iterdir()} == {*names, "convergence.png", "table.md"}
    assert (out / "convergence.png").stat().st_size > 5000
    table = (out / "table.md").read_text()
    assert [row.split()[1] for row in table.splitlines()[2 : 2 + len(names)]] == names
    assert "Above the best bound" in table
    summaries = [json.loads((out / name / "summary.json").read_text()) for name in names]
    least = max(summary["bound"] for summary in summaries)
    for name, summary in zip(names, summaries, strict=True):
        assert summary["objective"] >= least
        test = json.loads((out / name / "history.json").read_text())["test_accuracy"]
        assert test["accuracy"][-1] == pytest.approx(1 - summary["test"]["error"])
        assert test["iteration"][:1] == [1]
        assert test["seconds"] == sorted(test["seconds"])


def test_the_best_bound_of_all_solvers_is_held_against_each(lastlayer, file, tmp_path):
    """One that stopped early proves little by itself; the objective is the same for all."""
    names = ("newton-krylov", "sgd")
    words = ("--features", file, "--dtype", "float64", "--tol", "1e-9", "--max-iter", 12)
    printed = lastlayer("fit-linear", *words, "--solver", ",".join(names), "--out", "o")
    assert printed.status == 0, printed.err
    read = {n: json.loads((tmp_path / "o" / n / "summary.json").read_text()) for n in names}
    assert read["newton-krylov"]["bound"] > read["sgd"]["bound"]
    header, _, *rows = (tmp_path / "o" / "table.md").read_text().splitlines()
    column = [cell.strip() for cell in header.split("|")].index("Above the best bound")
    shown = {row.split("|")[1].strip(): float(row.split("|")[column]) for row in rows[:2]}
    for name in names:
        above = read[name]["objective"] / read["newton-krylov"]["bound"] - 1
        assert shown[name] == pytest.approx(above, rel=0.06, abs=1e-15)
    assert shown["newton-krylov"] < 1e-8 < shown["sgd"] < read["sgd"]["gap"]
    history = json.loads((tmp_path / "o" / "sgd" / "history.json").read_text())
    assert read["sgd"]["bound"] == max(history["bound"]) > min(history["bound"])


@pytest.mark.parametrize(
    "words", [("--solver", "sgd"), ("--solver", "lbfgs,newton-krylov", "--path", "0.1,1")]
)
def test_no_best_bound_is_shown_for_one_solver_or_strengths_of_their_own(lastlayer, file, words):
    """A single solver's bound is its gap already; of other strengths the objectives differ."""
    printed = lastlayer("fit-linear", "--features", file, *words, "--out", "o")
    assert printed.status == 0, printed.err
    assert "Above the best bound" not in Path("o/table.md").read_text()


def test_a_finished_solver_is_fitted_again_only_if_settings_or_data_change(
    lastlayer, file, tmp_path
):
    def times():
        return {p.parent.name: p.stat().st_mtime_ns for p in tmp_path.glob("o/*/summary.json")}

    words = ["fit-linear", "--features", file, "--out", "o"]
    assert lastlayer(*words, "--solver", "lbfgs,admm").status == 0
    first = times()
    again = lastlayer(*words, "--solver", "lbfgs,admm,newton-krylov")
    assert "lbfgs: from o/lbfgs" in again.out
    assert "lbfgs: iteration" not in again.err
    assert times().items() > first.items()
    assert (tmp_path / "o" / "convergence.png").is_file()

    assert lastlayer(*words, "--solver", "lbfgs", "--C", 2.0).status == 0
    assert times()["lbfgs"] > first["lbfgs"]
    assert times()["admm"] == first["admm"]

    with np.load(file) as loaded:
        arrays = dict(loaded)
    arrays["x_test"][0, 0] += 1
    np.savez(file, **arrays)
    assert lastlayer(*words, "--solver", "admm").status == 0
    assert times()["admm"] > first["admm"]


def test_a_damaged_summary_is_fitted_again(lastlayer, file, tmp_path):
    words = ("fit-linear", "--features", file, "--out", "o")
    assert lastlayer(*words).status == 0
    summary = tmp_path / "o" / "auto" / "summary.json"
    summary.write_text("{")
    assert lastlayer(*words).status == 0
    assert json.loads(summary.read_text())["solver"] == "auto"


def test_a_path_is_chosen_by_the_files_own_validation_part(lastlayer, file, tmp_path):
    words = ("--path", "1e-3,1e-1,10", "--tol", "1e-8", "--dtype", "float64", "--out", "o")
    printed = lastlayer("fit-linear", "--features", file, *words, "--solver", "lbfgs,newton-krylov")
    assert printed.status == 0, printed.err
    assert (tmp_path / "o" / "path.png").stat().st_size > 5000
    summary = json.loads((tmp_path / "o" / "lbfgs" / "summary.json").read_text())
    arrays = np.load(file)
    losses = []
    for C in (1e-3, 1e-1, 10):
        theirs = LogisticRegression(C=C, tol=1e-8, max_iter=2000)
        theirs.fit(arrays["x_train"], arrays["y_train"])
        log_prob = theirs.predict_log_proba(arrays["x_validation"])
        losses.append(-log_prob[np.arange(80), arrays["y_validation"]].mean())
    np.testing.assert_allclose(summary["path"]["nll"], losses, rtol=1e-4)
    assert summary["C"] == summary["path"]["C"][int(np.argmin(losses))]
    assert summary["train_size"] == 120
    strict = lastlayer("fit-linear", "--features", file, *words, "--one-standard-error")
    assert strict.status == 0
    chosen = json.loads((tmp_path / "o" / "auto" / "summary.json").read_text())
    assert chosen["C"] <= summary["C"]


def test_without_a_validation_part_the_path_draws_one_from_the_training_examples(
    lastlayer, tmp_path
):
    X, y = blobs(100, 1, labels=["ant", "bee", "cat"])
    np.savez("plain.npz", x=X, y=y)
    words = ("--features", "plain.npz", "--path", "0.1,1", "--validation-size", "0.25")
    printed = lastlayer("fit-linear", *words)
    assert printed.status == 0, printed.err
    assert "note: No test arrays: 20 examples" in printed.out
    folder = tmp_path / "runs" / "linear-plain" / "auto"
    assert json.loads((folder / "summary.json").read_text())["train_size"] == 60
    assert set(load_linear(folder).predict(X)) == {"ant", "bee", "cat"}


def test_random_features_and_options_reach_the_model(lastlayer, file, tmp_path):
    words = ("--random-features", 40, "--activation", "cos", "--no-intercept", "--max-iter", 3)
    more = ("--class-weight", "balanced", "--solver", "admm", "--seed", 5, "--out", "o")
    printed = lastlayer("fit-linear", "--features", file, *words, *more)
    assert printed.status == 0, printed.err
    assert "note: ADMMSoftmax stopped at" in printed.out
    random, model = (step for _, step in load_linear(tmp_path / "o" / "admm").steps)
    assert random.activation == "cos"
    assert model.coef_.shape == (3, 40)
    assert not model.intercept_.any()
    assert (model.max_iter, model.class_weight, model.coef_.dtype) == (3, "balanced", np.float32)


def test_without_a_file_a_data_source_is_flattened(lastlayer, tmp_path):
    printed = lastlayer("fit-linear", "--train-size", 100, "--tol", 0.1)
    assert printed.status == 0, printed.err
    assert "digits, 100 training examples of 64 features" in printed.out
    model = load_linear(tmp_path / "runs" / "linear-digits" / "auto")
    assert model.classes_.tolist() == list(range(10))


def test_options_reach_the_data_source(lastlayer):
    images = np.random.default_rng(0).random((30, 3, 2, 3), dtype=np.float32)
    np.savez("images.npz", x=images, y=np.arange(30) % 2)
    words = ("fit-linear", "--features", "images.npz", "--tol", 1)
    assert "set the option layout" in one_error_line(lastlayer(*words))
    printed = lastlayer(*words, "--data-option", "layout=NHWC", "--data-option", "split_seed=3")
    assert printed.status == 0, printed.err
    assert "24 training examples of 18 features" in printed.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--features", "none.npz"], "no file none.npz"),
        (["--features", "none.npz", "--path", "1"], "no file none.npz"),
        (["--features", "F.npz", "--data", "digits"], "features or data, not both"),
        (["--features", "F.npz", "--solver", "lbgfs"], "unknown solver 'lbgfs'. Did you mean"),
        (["--features", "F.npz", "--solver", "lbfgs,lbfgs"], "each once; got 'lbfgs, lbfgs'"),
        (["--features", "F.npz", "--solver", ","], "must name one or more"),
        (["--features", "F.npz", "--C", "0"], "C must be above 0"),
        (["--features", "F.npz", "--path", "1,x"], "path must be numbers separated by commas"),
        (["--features", "F.npz", "--path", "1,1"], "Cs must hold different numbers"),
        (["--features", "F.npz", "--path", "1", "--validation-size", "x"], "validation_size must"),
        (["--features", "F.npz", "--class-weight", "even"], "class_weight must be one of"),
        (["--features", "F.npz", "--random-features", "0"], "random_features must be"),
        (["--features", "F.npz", "--dtype", "half"], "dtype must be one of"),
        (["--features", "F.npz", "--random-features", "3", "--activation", "x"], "activation must"),
        (["--data", "digit"], "unknown data source 'digit'"),
    ],
)
def test_mistakes_are_one_line(lastlayer, file, words, message):
    assert message in one_error_line(lastlayer("fit-linear", *words))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": None}, "expected exactly one of x, X"),
        ({"y_test": None}, "expected exactly one of y_test"),
        ({"y_validation": None}, "x_validation is there but no y_validation"),
        ({"x_validation": np.zeros((80, 5))}, "x_validation must be (N, 6)"),
        ({"x_validation": np.full((80, 6), np.nan)}, "x_validation must be finite"),
        ({"y_validation": np.full(80, 7)}, "labels that no example to fit to has: [7]"),
        ({"x_train": np.full((120, 6), np.nan)}, "example 0 holds NaN or infinity"),
        ({"x_test": np.zeros((100, 5))}, "inputs must have shape (6,)"),
    ],
)
def test_files_that_do_not_fit_are_one_line(lastlayer, file, change, message):
    with np.load(file) as loaded:
        arrays = dict(loaded) | change
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    printed = lastlayer("fit-linear", "--features", file, "--path", "1,2")
    assert message in printed.err.splitlines()[-1]
    assert printed.status == 2


def test_a_file_that_is_no_npz_is_one_line(lastlayer, tmp_path):
    (tmp_path / "F.npz").write_text("nothing")
    line = one_error_line(lastlayer("fit-linear", "--features", "F.npz", "--path", "1"))
    assert "not a readable .npz file" in line


def test_the_seed_alone_decides_the_random_features(lastlayer, file, tmp_path):
    words = ("--features", file, "--random-features", 12, "--solver", "lbfgs", "--max-iter", 3)
    weights = []
    for seed, out in ((5, "a"), (5, "b"), (6, "c")):
        printed = lastlayer("fit-linear", *words, "--seed", seed, "--out", out)
        assert printed.status == 0, printed.err
        (_, model) = (step for _, step in load_linear(tmp_path / out / "lbfgs").steps)
        weights.append(model.coef_)
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.allclose(weights[0], weights[2])
