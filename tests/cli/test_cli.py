import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lastlayer.cli.console import print_table
from lastlayer.cli.runs import _explain_one
from lastlayer.cli.settings import Settings
from lastlayer.report import Row
from lastlayer.report.results_table import wide_and_narrow
from lastlayer.training import RunConfig, RunDirectory
from lastlayer.training.variants import split_variants

COMMANDS = (
    "train",
    "compare",
    "learn",
    "reproduce",
    "tune",
    "figure",
    "explain",
    "information",
    "predict",
    "list",
    "features",
    "fit-linear",
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def errors(printed):
    """The error lines; a failed command prints nothing else on the error stream."""
    assert printed.status == 2
    return printed.err.splitlines()


def test_the_version_is_printed_without_waiting_for_heavy_packages():
    program = (
        "import sys; from lastlayer.cli import main; main(['--version'])\n"
        "print([name for name in ('lightning', 'matplotlib', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n\[\]\n", done.stdout), done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(lastlayer, command):
    printed = lastlayer(command, "--help")
    assert printed.status == 0
    assert f"lastlayer {command}" in printed.out
    assert "Traceback" not in printed.err


def test_help_names_every_command(lastlayer):
    printed = lastlayer("--help")
    assert all(command in printed.out for command in COMMANDS)


def test_train_writes_a_run_and_prints_its_measures(lastlayer, tiny_recipe, tmp_path):
    printed = lastlayer(
        "train", "--head", "class-dropout:retain_prob=0.4", "--recipe", tiny_recipe, "--seed", 3
    )
    assert printed.status == 0, printed.err
    first, last = printed.out.splitlines()
    assert first.startswith("runs/digits-class-dropout")
    assert re.match(r"test: error \d+\.\d\d %, NLL \d", last)
    (path,) = (tmp_path / "runs").iterdir()
    config = RunDirectory(path).config()
    assert (config.seed, config.head.options) == (3, {"retain_prob": 0.4})
    assert all(re.match(r"step \d+/40  ", line) for line in printed.err.splitlines())
    assert 4 <= len(printed.err.splitlines()) <= 11


def test_settings_reach_the_configuration(lastlayer, tiny_recipe, tmp_path):
    words = "--steps 3 --batch-size 7 --lr 0.5 --weight-decay 0.1 --precision 64-true --device cpu"
    printed = lastlayer(
        *("train", "--head", "softmax", "--out", tmp_path / "run", "--recipe", tiny_recipe),
        *words.split(),
        *("--train-size", 20, "--validation-size", 0.5, "--model", "mlp"),
        *("--set", "model.options={hidden = [4]}", "training.clip_norm=1", "optimizer.name=adamw"),
    )
    assert printed.status == 0, printed.err
    config = RunDirectory(tmp_path / "run").config()
    assert (config.training.steps, config.training.batch_size) == (3, 7)
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (0.5, 0.1)
    assert (config.optimizer.name, config.training.clip_norm) == ("adamw", 1.0)
    assert (config.training.precision, config.training.device) == ("64-true", "cpu")
    assert (config.data.train_size, config.data.validation_size) == (20, 0.5)
    assert config.model.name == "mlp"
    assert config.model.options["hidden"] == [4]


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1", 1), ("0.25", 0.25), ("1000", 1000), (None, None)]
)
def test_held_out_examples_are_a_count_or_a_fraction(text, size):
    config = RunConfig().updated(Settings(validation_size=text).changes())
    assert config.data.validation_size == size
    assert type(config.data.validation_size) is type(size)


@pytest.mark.parametrize("text", ["1.5", "-1", "1.0", "half"])
def test_another_number_of_held_out_examples_is_refused(lastlayer, text):
    (line,) = errors(lastlayer("train", f"--validation-size={text}"))
    assert "data.validation_size" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--head", "dropmx"], "unknown head 'dropmx'. Did you mean 'dropmax'?"),
        (["train", "--head", "dropmax:temprature=1"], "temprature"),
        (["train", "--data", "digit"], "Did you mean 'digits'?"),
        (["train", "--recipe", "mnist"], "unknown recipe 'mnist'"),
        (["train", "--set", "nonsense"], "an option is written key=value; got 'nonsense'"),
        (["train", "--set", "training.stpes=3"], "training.stpes: Extra inputs"),
        (["train", "--set", "training.steps=x"], "training.steps: Input should be"),
        (["train", "--set", "optimizer.lr.x=1"], "optimizer.lr: Input should be"),
        (["train", "--steps", "0"], "training.steps"),
        (["compare", "--heads", "softmax,dropmx"], "Did you mean 'dropmax'?"),
        (["compare", "--heads", "softmax,softmax"], "named twice"),
        (["compare", "--heads", ","], "needs a variant"),
        (["compare", "--seeds", "0"], "needs a variant and a seed"),
        (["compare", "--data", "mnist"], "mnist"),
        (["compare", "--data", "mnist", "--data-dir", "nowhere"], "nowhere"),
        (["reproduce", "mnist-1k", "--data-dir", "nowhere"], "nowhere"),
        (["tune", "--grid", "optimizer.lr"], "entry=value"),
        (["list", "cats"], "what must be one of 'heads'"),
        (["explain", "nowhere"], "nowhere is not a run"),
        (["predict", "nowhere", "x.npz"], "nowhere is not a run"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(lastlayer, words, message):
    (line,) = errors(lastlayer(*words))
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize("words", [["train", "--haed", "softmax"], ["trian"], ["predict"]])
def test_a_wrong_word_is_refused_with_status_2(lastlayer, words):
    printed = lastlayer(*words)
    assert printed.status == 2
    assert "Traceback" not in printed.err


def test_a_fault_of_ours_keeps_its_traceback(lastlayer, monkeypatch):
    def broken():
        raise KeyError("a fault")

    monkeypatch.setattr("lastlayer.experiments.catalog", broken)
    with pytest.raises(KeyError, match="a fault"):
        lastlayer("list")


@pytest.mark.parametrize(
    ("text", "heads"),
    [
        ("softmax", ["softmax"]),
        ("softmax,dropmax", ["softmax", "dropmax"]),
        ("softmax, dropmax ,", ["softmax", "dropmax"]),
        ("dropmax:temperature=0.2,form=iclr", ["dropmax:temperature=0.2,form=iclr"]),
        ("a;class-dropout:retain_prob=0.4", ["a", "class-dropout:retain_prob=0.4"]),
        ("a:x=1,y=2;b:z=3", ["a:x=1,y=2", "b:z=3"]),
    ],
)
def test_heads_are_split_at_semicolons_where_options_hold_commas(text, heads):
    assert split_variants(text) == heads


def test_compare_takes_heads_with_options(lastlayer, tiny_recipe, tmp_path):
    printed = lastlayer(
        *("compare", "--recipe", tiny_recipe, "--heads", "softmax;class-dropout:retain_prob=0.4"),
        *("--seeds", 1, "--first-seed", 5, "--jobs", 1, "--steps", 5, "--out", "c"),
    )
    assert printed.status == 0, printed.err
    assert "class-dropout:retain_prob=0.4" in printed.out
    assert {path.name for path in (tmp_path / "c").iterdir() if path.is_dir()} == {
        "softmax-seed5",
        "class-dropout_retain_prob=0.4-seed5",
        "figures",
    }


def test_a_long_tailed_comparison_prints_its_groups_of_all_training_examples(
    lastlayer, tiny_recipe, tmp_path
):
    printed = lastlayer(
        *("compare", "--recipe", tiny_recipe, "--heads", "softmax,balanced-softmax"),
        *("--long-tail", 20, "--seeds", 1, "--jobs", 1, "--steps", 5, "--out", "c"),
    )
    assert printed.status == 0, printed.err
    assert "few taken for many" in printed.out
    config = RunDirectory(tmp_path / "c" / "softmax-seed0").config()
    assert config.data.long_tail.imbalance == 20
    assert config.data.train_size is None
    kept = Settings(long_tail=20, train_size=200).changes()["data"]
    assert kept == {"train_size": 200, "long_tail": {"imbalance": 20}}


def test_compare_reports_a_failed_run_after_the_table_of_the_others(
    lastlayer, tmp_path, tiny_recipe
):
    recipe = tmp_path / "broken.toml"
    broken = '[variant_config.dropmax.optimizer]\nname = "sgd"\nlr = 1e36\nschedule = "constant"\n'
    recipe.write_text(tiny_recipe.read_text() + broken)
    printed = lastlayer("compare", "--recipe", recipe, "--seeds", 1, "--jobs", 1)
    assert printed.status == 1
    assert "softmax " in printed.out
    assert "report.html" in printed.out
    (line,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert "dropmax-seed0: the loss is" in line
    assert "error.txt" in line


def test_the_picture_is_of_the_plain_dropmax_where_there_is_one(comparison):
    paths = {
        name: [comparison.folder / f"{name.partition(':')[0]}-seed0"]
        for name in ("softmax", "dropmax:temperature=0.1", "dropmax")
    }
    paths["dropmax:temperature=0.1"] = [comparison.folder / "dropmax-seed1"]
    assert list(_explain_one(paths)) == ["Retain probabilities of dropmax-seed0"]
    del paths["dropmax"]
    assert list(_explain_one(paths)) == ["Retain probabilities of dropmax-seed1"]
    del paths["dropmax:temperature=0.1"]
    assert _explain_one(paths) == {}


def test_reproduce_runs_a_recipe_as_it_stands(lastlayer, comparison, tmp_path, monkeypatch):
    tried = []

    def plan(recipe, heads, seeds, out, changes):
        tried.append((recipe.title, list(heads), list(seeds), out, changes))
        raise ValueError("far enough")

    monkeypatch.setattr("lastlayer.experiments.plan", plan)
    lastlayer("reproduce", "mnist-1k", "--data-dir", "data", "--seeds", 2)
    lastlayer("reproduce", comparison.recipe, "--heads", "dropmax")
    (mnist, tiny) = tried
    assert mnist[2:] == ([0, 1], Path("runs/mnist-1k"), {"data": {"data_dir": "data"}})
    assert tiny[1:] == (["dropmax"], [0, 1], Path("runs/tiny"), {})


def test_reproduce_prints_our_numbers_beside_the_published_ones(lastlayer, comparison):
    words = ("reproduce", comparison.recipe, "--out", comparison.folder)
    printed = lastlayer(*words)
    assert printed.status == 0, printed.err
    assert re.search(r"softmax +\d+\.\d\d +7\.09 +7\.17", printed.out)


def test_tune_prints_held_out_measures(lastlayer, tiny_recipe):
    printed = lastlayer(
        *("tune", "--recipe", tiny_recipe, "--heads", "softmax", "--steps", 5, "--jobs", 1),
        *("--grid", "optimizer.lr=1e-5,1e-2", "optimizer.weight_decay=0,1e-4"),
    )
    assert printed.status == 0, printed.err
    rows = [line.split() for line in printed.out.splitlines() if line.startswith("  softmax")]
    assert len(rows) == 4
    assert {(row[1], row[2]) for row in rows} == {
        (lr, decay) for lr in ("1e-05", "0.01") for decay in ("0", "0.0001")
    }
    assert [float(row[3]) for row in rows] == sorted(float(row[3]) for row in rows)
    assert "Held-out" in printed.out


def test_explain_prints_where_the_picture_is(lastlayer, comparison, tmp_path):
    out = tmp_path / "retain.svg"
    run = comparison.folder / "dropmax-seed0"
    printed = lastlayer("explain", run, "--out", out, "--count", 4)
    assert printed.status == 0, printed.err
    assert printed.out == f"{out}\n"
    assert out.read_bytes().startswith(b"<?xml")


def test_explain_refuses_a_softmax_run(lastlayer, comparison):
    (line,) = errors(lastlayer("explain", comparison.folder / "softmax-seed0"))
    assert "'softmax', which has no retain probabilities" in line


def test_predict_prints_the_most_probable_classes(lastlayer, comparison, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 8, 8), np.float32))
    run = comparison.folder / "softmax-seed0"
    printed = lastlayer("predict", run, "x.npz", "--top", 2, "--out", "p.csv")
    assert printed.status == 0, printed.err
    rows = [line.split() for line in printed.out.splitlines() if re.match(r"  \d ", line)]
    assert len(rows) == 3
    assert all(len(row) == 5 and float(row[2]) >= float(row[4]) for row in rows)
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 4
    (line,) = errors(lastlayer("predict", run, "x.npz", "--top", 0))
    assert "top" in line


def test_list_names_everything_on_one_line_each(lastlayer):
    printed = lastlayer("list")
    assert [line for line in printed.out.splitlines() if not line.startswith("  ")] == [
        "heads",
        "schemes",
        "methods",
        "regularizers",
        "data",
        "models",
        "augmentations",
        "solvers",
        "recipes",
        "measures",
        "figures",
    ]
    heads = lastlayer("list", "heads").out
    assert heads.splitlines()[0] == "heads"
    assert "  dropmax " in heads
    assert "mnist" not in heads


def test_an_interrupt_says_how_to_go_on(lastlayer, tiny_recipe, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("lastlayer.training.train", interrupted)
    printed = lastlayer("train", "--recipe", tiny_recipe)
    assert printed.status == 130
    assert "--resume" in printed.err


def test_a_name_in_brackets_is_printed_as_it_is(lastlayer, tiny_recipe, tmp_path):
    out = tmp_path / "[bold]run[/]"
    printed = lastlayer("train", "--recipe", tiny_recipe, "--steps", 2, "--out", out)
    assert printed.status == 0, printed.err
    assert str(out) in printed.out


def table(heads):
    values = {name: [0.1234, 0.15] for name in ("nll", "brier", "ece", "ece_pooled")}
    values |= {"error": [0.187, 0.193], "nll_scaled": [0.1] * 2, "seconds": [10.1, 9.8]}
    return wide_and_narrow([Row(head, [0, 1], values) for head in heads])


@pytest.mark.parametrize("width", [80, 100, 120, 150, 200])
def test_a_terminal_of_any_width_shows_every_essential_measure(width, monkeypatch, capsys):
    console = Console(force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr("lastlayer.cli.console.out_console", console)
    heads = ("softmax", "label-smoothing", "dropmax-prior")
    print_table(*table(heads))
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in shown
    for head in heads:
        assert any(line.strip().startswith(head) for line in lines)
    words = " ".join(lines[: next(k for k, line in enumerate(lines) if "─" in line)])
    for word in ("Error", "NLL", "Brier", "top-1", "pooled", "Seconds", "Δ"):
        assert word in words
    assert shown.count("19.00") == 3
    assert shown.count("± 0.42") == 3


def test_a_head_with_options_keeps_its_whole_name(monkeypatch, capsys):
    monkeypatch.setattr(
        "lastlayer.cli.console.out_console",
        Console(force_terminal=True, width=110, color_system=None),
    )
    print_table(*table(("softmax", "dropmax:temperature=0.2,form=iclr")))
    assert "dropmax:temperature=0.2,form=iclr" in capsys.readouterr().out
