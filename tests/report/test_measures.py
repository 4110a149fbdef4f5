"""A measure is declared once: which way is better, and where a new one turns up."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from scipy import stats

from lastlayer import registry
from lastlayer.evaluation import (
    MEASURES,
    SCORE,
    SHARE,
    Measure,
    TaskMatrix,
    evaluate,
    measures_of,
)
from lastlayer.report import collect_rows, comparison_figure, write_comparison
from lastlayer.report.results_table import results_table
from lastlayer.training import RunDirectory
from lastlayer.training.measuring import long_tail_measures

SIZES = [2, 1]
PERFECT = [[[10, 0], [0, 10]], [[10, 0, 0], [0, 10, 0], [0, 0, 10]]]
FORGETFUL = [[[9, 1], [1, 9]], [[2, 0, 8], [0, 2, 8], [3, 0, 7]]]


def tasks_summary(confusions, seed=0, seconds=1.0):
    measures = TaskMatrix.from_confusions(confusions, SIZES).as_dict()
    found = {"confusions": confusions, "measures": measures}
    return {
        "seed": seed, "measured_on": "test", "metrics": {}, "seconds": seconds,
        "input_shape": [64], "class_names": [],
        "incremental": {"sizes": SIZES, "predictor": "classifier", "classifier": found},
    }  # fmt: skip


def summary_of(right):
    """Sure predictions of ten examples each of three classes, so many of each class right."""
    counts = torch.tensor([200, 50, 5])
    target = torch.arange(3).repeat_interleave(10)
    predicted = torch.where(
        torch.arange(10) < right, target.view(3, 10), (target.view(3, 10) + 1) % 3
    )
    log_prob = torch.full((30, 3), 0.005).scatter_(1, predicted.view(30, 1), 0.99).log()
    metrics = evaluate(log_prob, target).as_dict()
    tail = long_tail_measures(log_prob, target, counts)
    return {"metrics": metrics, "temperature_scaled": metrics, "long_tail": tail}


@pytest.mark.parametrize("table", ["heads", "groups", "tasks"])
def test_the_better_run_has_the_better_value_of_every_measure(table):
    good = summary_of(right=10) | {"seconds": 1.0}
    bad = summary_of(right=3) | {"seconds": 2.0}
    if table == "tasks":
        good, bad = tasks_summary(PERFECT), tasks_summary(FORGETFUL, seconds=2.0)
    for name, measure in measures_of(table).items():
        better, worse = (measure.of(summary, dict) for summary in (good, bad))
        assert better != worse, name
        assert (better < worse) == (measure.direction == "lower"), name


def test_the_note_says_which_differences_are_good(comparison, monkeypatch):
    rows = collect_rows(paths_of(comparison))["heads"]
    assert "Student-t interval; below 0 is better." in results_table(rows).note
    declare(monkeypatch, ACCURACY)
    rows = collect_rows(paths_of(comparison))["heads"]
    note = results_table(rows, differences=["error", "accuracy"]).note
    assert "of error below 0 is better, of right above 0 is better" in note
    assert "above 0 is better." in results_table(rows, differences=["accuracy"]).note


ACCURACY = Measure(
    "accuracy", "share of examples classified right", SHARE, "higher", "Accuracy %",
    from_predictions=lambda log_prob, target: (log_prob.argmax(1) == target).double().mean(),
    difference="right", in_figure=True, explanation="Accuracy is what error leaves.",
)  # fmt: skip
FIRST_CLASS = Measure(
    "first_class", "accuracy of class 0", SHARE, "higher", "Class 0, of {groups[0]}, %",
    lambda summary: summary["long_tail"]["class_accuracy"][0],
    tables=("groups",), difference="class 0",
)  # fmt: skip
KEPT = Measure(
    "kept", "what is left of the base", SCORE, "higher", "Kept",
    lambda summary: summary["incremental"]["classifier"]["measures"]["matrix"][-1][0],
    tables=("tasks",), difference="kept",
)  # fmt: skip


def declare(monkeypatch, measure):
    """As an installed package does, by the entry point ``lastlayer.measures``."""
    entry = SimpleNamespace(name=measure.name, value="theirs", load=lambda: measure)
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [entry] if group == "lastlayer.measures" else []
    )


def paths_of(comparison):
    return {
        head: [comparison.folder / f"{head}-seed{seed}" for seed in (0, 1)]
        for head in ("softmax", "dropmax")
    }


@pytest.fixture
def runs_of(comparison, tmp_path):
    """Return a function that gives runs of one table."""

    def long_tailed(head, path):
        copy = shutil.copytree(path, tmp_path / path.name)
        summary = json.loads((copy / "summary.json").read_text())
        stored = RunDirectory(copy).predictions()
        counts = torch.tensor([200, 100, 90, 80, 70, 60, 50, 40, 9, 5])
        summary["class_counts"] = counts.tolist()
        summary["long_tail"] = long_tail_measures(stored["log_prob"], stored["target"], counts)
        (copy / "summary.json").write_text(json.dumps(summary))
        return copy

    def over_tasks(name, seed, confusions):
        path = tmp_path / f"{name}-seed{seed}"
        path.mkdir()
        (path / "summary.json").write_text(json.dumps(tasks_summary(confusions, seed)))
        return path

    def make(table):
        if table == "heads":
            return paths_of(comparison)
        if table == "groups":
            return {
                head: [long_tailed(head, path) for path in paths]
                for head, paths in paths_of(comparison).items()
            }
        between = [FORGETFUL[0], [[5, 0, 5], [0, 7, 3], [0, 0, 10]]]
        return {
            "softmax": [over_tasks("softmax", seed, FORGETFUL) for seed in (0, 1)],
            "joint": [over_tasks("joint", 1, PERFECT), over_tasks("joint", 0, between)],
        }

    return make


@pytest.mark.parametrize("measure", [ACCURACY, FIRST_CLASS, KEPT], ids=lambda each: each.name)
def test_a_new_measure_is_in_table_markdown_record_page_and_differences(
    measure, runs_of, tmp_path, monkeypatch
):
    (table,) = measure.tables
    runs = runs_of(table)
    declare(monkeypatch, measure)
    report = write_comparison(tmp_path / "out", runs, title="t")
    rows = collect_rows(runs)[table]
    baseline = rows[0]
    by_seed = [dict(zip(row.seeds, row.values[measure.name], strict=True)) for row in rows]
    heading = measure.column.format(groups=["many", "medium", "few"])
    change = f"Δ {measure.difference} to {baseline.name}"
    # The table, by hand: mean and paired difference over the seeds 0 and 1.
    shown = next(wide for wide, *_ in report.tables if heading in wide.columns)
    cells = [dict(zip(shown.columns, row, strict=True)) for row in shown.rows]
    factor, decimals = measure.unit.factor, measure.unit.decimals
    for each, line in zip(by_seed, cells, strict=True):
        mean = factor * (each[0] + each[1]) / 2
        assert line[heading].split()[0] == f"{mean:.{decimals}f}"
    gaps = [factor * (by_seed[1][seed] - by_seed[0][seed]) for seed in (0, 1)]
    assert gaps[0] != gaps[1]
    low, high = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    ends = f"[{low:+.{decimals}f}, {high:+.{decimals}f}]"
    assert cells[1][change] == f"{sum(gaps) / 2:+.{decimals}f} {ends}"
    assert cells[0][change] == "baseline"
    assert measure.explanation in shown.note
    # Markdown, page and record.
    assert f"| {heading} |" in report.markdown.read_text(encoding="utf-8")
    page = report.page.read_text(encoding="utf-8")
    for text in (heading, change):
        assert f'<th scope="col">{text}</th>' in page
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert record["measures"][measure.name] == {"unit": measure.unit.name, "direction": "higher"}
    entries = record["long_tail" if table == "groups" else "rows"]
    assert [each[measure.name] for each in entries] == [r.values[measure.name] for r in rows]
    # And the dot plot, if it is declared to be there.
    if measure.in_figure:
        assert heading in [axes.get_xlabel() for axes in comparison_figure(rows).axes]
    assert measure.name in MEASURES.names()


def test_a_measure_from_predictions_is_that_of_the_stored_ones(comparison, monkeypatch):
    declare(monkeypatch, ACCURACY)
    for row in collect_rows(paths_of(comparison))["heads"]:
        expected = [1 - error for error in row.values["error"]]
        assert row.values["accuracy"] == pytest.approx(expected)


def test_seconds_of_any_number_are_shown_as_they_are():
    for table in ("heads", "tasks"):
        assert measures_of(table)["seconds"].of({"seconds": 12.5}, dict) == 12.5
    assert "seconds" not in measures_of("groups")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"direction": "up"}, "direction must be one of"),
        ({"tables": ("all",)}, "tables must be one of"),
        ({"wide_only": ("page",)}, "wide_only must be one of"),
        ({"from_summary": None}, "got neither"),
        ({"from_predictions": lambda log_prob, target: 0.0}, "got both"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(changes, message):
    given = {"direction": "lower", "column": "X", "from_summary": dict.get} | changes
    with pytest.raises(ValueError, match=message):
        Measure("x", "an x", SHARE, **given)
