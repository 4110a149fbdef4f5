"""``lastlayer figure``: every name draws what the runs hold, or says why it cannot."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from lastlayer.data import load
from lastlayer.report.figures import FIGURES, draw_figure, find_runs
from lastlayer.training import RunConfig, RunDirectory, train

#: What each figure of runs of a plain comparison is asked for.
OF_HEADS = {
    "comparison": ("measures=error,brier",),
    "curves": (),
    "reliability": ("kind=pooled",),
    "confusion": ("variant=dropmax",),
    "filtering": ("variant=softmax", "target=3", "count=1"),
}


def options(words):
    return [part for word in words for part in ("--option", word)]


@pytest.mark.parametrize("name", OF_HEADS)
def test_a_figure_is_drawn_from_the_folder_of_a_comparison(lastlayer, comparison, tmp_path, name):
    out = tmp_path / f"{name}.svg"
    words = options(OF_HEADS[name])
    printed = lastlayer("figure", name, comparison.folder, *words, "--out", out)
    assert printed.status == 0, printed.err
    assert printed.out.strip() == str(out)
    assert "<svg" in out.read_text(encoding="utf-8")


def test_help_and_list_name_every_figure(lastlayer):
    help_text = lastlayer("figure", "--help").out
    listed = lastlayer("list", "figures").out
    for name in FIGURES.names():
        assert re.search(rf"\b{name}\b", help_text), name
        assert re.search(rf"^  {name} +\w", listed, flags=re.MULTILINE), name


def test_measures_are_listed_with_what_they_are(lastlayer):
    listed = lastlayer("list", "measures").out
    assert re.search(r"^  forgetting +fall from the best accuracy", listed, flags=re.MULTILINE)


def test_the_confusion_is_counted_over_all_seeds(comparison):
    axes = draw_figure("confusion", [comparison.folder], variant="softmax").axes[0]
    drawn = np.asarray(axes.images[0].get_array())
    expected = np.zeros((10, 10))
    for seed in (0, 1):
        stored = RunDirectory(comparison.folder / f"softmax-seed{seed}").predictions()
        for label, row in zip(stored["target"].tolist(), stored["log_prob"], strict=True):
            expected[label, int(row.argmax())] += 1
    np.testing.assert_array_equal(drawn, expected)


def test_a_record_draws_what_its_runs_do(comparison):
    from_record = draw_figure("comparison", [comparison.folder])
    runs = sorted(comparison.folder.glob("*-seed*"), key=lambda path: path.name[0] != "s")
    from_runs = draw_figure("comparison", runs)
    for one, other in zip(from_record.axes, from_runs.axes, strict=True):
        assert one.get_xlabel() == other.get_xlabel()
        for a, b in zip(one.lines, other.lines, strict=True):
            np.testing.assert_array_equal(a.get_xdata(), b.get_xdata())


def test_curves_are_those_of_the_measure_asked_for(comparison):
    path = comparison.folder / "dropmax-seed0"
    line = draw_figure("curves", [path], measure="loss").axes[0].lines[0]
    records = RunDirectory(path).metrics()
    assert line.get_ydata().tolist() == [record["loss"] for record in records]
    with pytest.raises(ValueError, match="no record of training holds 'kappa'"):
        draw_figure("curves", [path], measure="kappa")


def test_contours_come_from_the_formula_alone(lastlayer, tmp_path):
    figure = draw_figure("contours", [], retain=[[1, 1], [0.5, 0.5]], points=5, mean=True)
    assert [axes.get_title() for axes in figure.axes] == ["softmax", "$p_1$ = 0.5, $p_2$ = 0.5"]
    refused = lastlayer("figure", "contours", tmp_path)
    assert refused.status == 2
    assert "drawn from a formula" in refused.err


@pytest.fixture(scope="module")
def sure(tmp_path_factory):
    """A run that knows its digits, so that filtering has something to find."""
    changes = {"model": {"name": "digits-cnn"}, "training": {"steps": 300, "batch_size": 50}}
    return train(RunConfig().updated(changes), tmp_path_factory.mktemp("sure") / "run").path


def test_filtering_erases_the_class_asked_for_and_little_else(sure):
    figure = draw_figure("filtering", [sure], target=0, count=2, posterior=0.9)
    assert figure.axes[2].get_title() == "information about 0"
    from lastlayer.data.collages import digit_collages
    from lastlayer.information import removal_rates

    test = load("digits").test
    collages = digit_collages(test.inputs, test.target, 2, chosen=0, gap=4, seed=0)
    # The axes show each image stretched to [0, 1]; what is black after and was not before is gone.
    before, after = (
        np.stack([np.asarray(figure.axes[k].images[0].get_array()) for k in (column, column + 3)])
        for column in (0, 1)
    )
    height, width = collages.images.shape[-2:]
    assert figure.axes[2].images[0].get_array().shape == (height - 7, width - 7)  # every window
    peak = collages.images.amax(dim=(1, 2, 3)).numpy()[:, None, None]
    np.testing.assert_allclose(before * peak, collages.images[:, 0].numpy(), atol=1e-6)
    removed = torch.from_numpy((before > 0) & (after == 0))
    rates = removal_rates(collages.images, removed, collages.boxes, collages.labels, 0)
    assert rates.target > 3 * rates.others


@pytest.fixture(scope="module")
def linear_folder(lastlayer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("linear") / "fit"
    words = ("--train-size", 100, "--solver", "lbfgs,newton-krylov", "--out", folder)
    assert lastlayer("fit-linear", *words).status == 0
    return folder


def test_convergence_is_that_of_the_solvers_files(linear_folder, lastlayer, tmp_path):
    left = draw_figure("convergence", [linear_folder]).axes[0]
    assert {line.get_label() for line in left.lines} == {"lbfgs", "newton-krylov"}
    for line in left.lines:
        history = json.loads((linear_folder / line.get_label() / "history.json").read_text())
        assert line.get_xdata().tolist() == [max(s, 1e-6) for s in history["seconds"]]
    refused = lastlayer("figure", "path", linear_folder, "--out", tmp_path / "a.png")
    assert refused.status == 2
    assert "fit with --path" in refused.err


def test_the_path_of_penalties_is_drawn_from_its_folder(lastlayer, tmp_path):
    folder = tmp_path / "fit"
    words = ("--train-size", 100, "--path", "1e-2,1", "--solver", "lbfgs", "--out", folder)
    assert lastlayer("fit-linear", *words).status == 0
    right = draw_figure("path", [folder]).axes[1]
    along = json.loads((folder / "lbfgs" / "summary.json").read_text())["path"]
    assert right.lines[0].get_ydata() == pytest.approx([100 * a for a in along["accuracy"]])


def test_runs_are_found_one_by_one_and_in_folders_by_variant(comparison, tmp_path):
    found = find_runs([comparison.folder])
    assert {name: [path.name for path in paths] for name, paths in found.items()} == {
        "dropmax": ["dropmax-seed0", "dropmax-seed1"],
        "softmax": ["softmax-seed0", "softmax-seed1"],
    }
    assert list(find_runs([comparison.folder / "softmax-seed1"])) == ["softmax"]
    RunDirectory.create(tmp_path / "softmax-seed0", RunConfig())
    assert list(find_runs([tmp_path], finished=False)) == ["softmax"]
    with pytest.raises(FileNotFoundError, match="no finished run in"):
        find_runs([tmp_path])
    with pytest.raises(FileNotFoundError, match="no finished run in no path"):
        find_runs([])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nope",), "unknown figure 'nope'"),
        (("confusion", "{folder}"), "variant must be one of dropmax, softmax"),
        (("confusion", "{folder}", "--option", "variant=x"), "variant must be one of"),
        (("curves", "{folder}", "--option", "color=red"), "its options: measure, log"),
        (("tail-confusion", "{folder}"), "nothing of long-tailed data"),
        (("tasks", "{folder}"), "nothing of tasks"),
        (("rates", "{folder}", "--option", "variant=softmax"), "no sampler learned rates"),
        (("reliability", "{folder}/figures"), "neither a run nor a folder of runs"),
        (("convergence", "{folder}"), "no folder of lastlayer fit-linear"),
        (("filtering", "{folder}/softmax-seed0", "--option", "target=10"), "target must be one of"),
        (("reliability", "{folder}", "--out", "a.bmp"), "path must end in one of"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(lastlayer, comparison, words, message):
    printed = lastlayer("figure", *(word.format(folder=comparison.folder) for word in words))
    assert printed.status == 2
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
