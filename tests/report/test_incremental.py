"""The table, figures and page of class-incremental comparisons, by hand-made rows and files."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from lastlayer.evaluation import TaskMatrix, confusion_counts, mean_interval, task_confusion
from lastlayer.report import (
    Row,
    collect_rows,
    results_table,
    task_confusion_figure,
    task_matrix_figure,
    write_comparison,
)
from lastlayer.report.figures import draw_figure
from lastlayer.report.task_curves import accuracy_curve_figure, old_new_figure

NAN = math.nan


def row(method, final, seeds=(0, 1), class_sizes=(3, 1), **changes):
    """Two tasks, of 3 and 1 classes, 10 test examples a class."""
    count = len(seeds)
    values = {
        "average_incremental_accuracy": [(0.9 + (3 * value + 1) / 4) / 2 for value in final],
        "final_accuracy": [(3 * value + 1) / 4 for value in final],
        "forgetting": [0.9 - value for value in final],
        "backward_transfer": [value - 0.9 for value in final],
        "old_as_new": [1 - value for value in final],
        "new_as_old": [0.0] * count,
        "seconds": [2.0] * count,
    }
    details = {
        "matrices": [[[0.9, NAN], [value, 1.0]] for value in final],
        "accuracies": [[0.9, (3 * value + 1) / 4] for value in final],
        "task_confusions": [[[int(30 * value), 30 - int(30 * value)], [0, 10]] for value in final],
    }
    values |= {name: changes[name] for name in values if name in changes}
    details |= {name: changes[name] for name in details if name in changes}
    shared = {"class_sizes": list(class_sizes)}
    return Row(method, list(seeds), values, "tasks", shared, details)


def confusions(sizes, bias, seed):
    """Tables after each task of a classifier that prefers the classes of the last one."""
    generator = torch.Generator().manual_seed(seed)
    tables = []
    for task in range(len(sizes)):
        seen = sum(sizes[: task + 1])
        target = torch.arange(seen).repeat_interleave(20)
        logits = torch.randn(len(target), seen, generator=generator)
        logits += 3 * torch.nn.functional.one_hot(target, seen)
        logits[:, seen - sizes[task] :] += bias
        tables.append(confusion_counts(logits.argmax(dim=1), target, seen).tolist())
    return tables


def write_run(path, sizes, tables, *, seed, predictor="classifier", nearest_mean=None):
    def results(of):
        measures = TaskMatrix.from_confusions(of, sizes).as_dict()
        return {"confusions": of, "measures": measures}

    summary = {
        "seed": seed,
        "measured_on": "test",
        "metrics": {},
        "seconds": 1.5,
        "input_shape": [64],
        "class_names": [],
        "incremental": {
            "sizes": sizes,
            "class_order": list(range(sum(sizes))),
            "class_names": [],
            "predictor": predictor,
            "classifier": results(tables),
            "nearest-mean": results(nearest_mean) if nearest_mean else None,
        },
    }
    path.mkdir(parents=True)
    (path / "summary.json").write_text(json.dumps(summary, allow_nan=False))
    return path


@pytest.fixture
def runs(tmp_path):
    sizes = [2, 1, 1]
    return {
        method: [
            write_run(tmp_path / f"{method}-{seed}", sizes, confusions(sizes, b, seed), seed=seed)
            for seed in (0, 1, 2)
        ]
        for method, b in (("cross-entropy", 4.0), ("balanced-softmax", 0.5))
    }


def test_the_table_pairs_the_seeds_and_says_what_is_averaged():
    table = results_table([row("ce", [0.2, 0.4]), row("bs", [0.6, 0.6])])
    assert table.columns == (
        "Method", "Seeds", "AIA %", "Final %", "Forgetting", "Backward transfer",
        "Old taken for new %", "Seconds", "Δ AIA to ce", "Δ final to ce",
    )  # fmt: skip
    assert table.rows[0] == (
        "ce", "2", "68.75 ± 5.30", "47.50 ± 10.61", "60.00 ± 14.14", "-60.00 ± 14.14",
        "70.00 ± 14.14", "2.0 ± 0.0", "baseline", "baseline",
    )  # fmt: skip
    # Final: 30 and 15 points: mean 22.5, standard error 7.5, t(1) = 12.706.
    assert table.rows[1][-1] == "+22.50 [-72.80, +117.80]"
    assert table.note.startswith("Tasks: a base of 3 classes, then 1 of 1.")
    for said in ("examples count alike, not tasks", "the base included", "all tasks but the last"):
        assert said in table.note


def test_the_note_says_how_many_classes_each_task_brings():
    def note(sizes):
        accuracy = [[0.5] * len(sizes)] * 2
        square = [[[0.5] * len(sizes)] * len(sizes)] * 2
        shape = {"matrices": square, "accuracies": accuracy, "task_confusions": square}
        made = row("a", [0.5, 0.5], **shape, class_sizes=sizes)
        return results_table([made]).note.partition(".")[0]

    assert note([2, 2, 2]) == "Tasks: 3 of 2 classes"
    assert note([5, 1, 1]) == "Tasks: a base of 5 classes, then 2 of 1"
    assert note([5, 1, 2]) == "Tasks: 3, of 5, 1, 2 classes"
    assert note([5]) == "Tasks: 1 of 5 classes"


def test_a_single_task_has_no_forgetting_and_no_old_classes():
    one = {
        "class_sizes": [4], "matrices": [[[0.9]]] * 2, "accuracies": [[0.9]] * 2,
        "task_confusions": [[[40]]] * 2, "forgetting": [NAN] * 2, "backward_transfer": [NAN] * 2,
        "old_as_new": [NAN] * 2, "new_as_old": [NAN] * 2,
    }  # fmt: skip
    table = results_table([row("joint", [0.9, 0.9], **one)])
    assert table.rows[0][4:7] == ("–", "–", "–")
    with pytest.raises(ValueError, match="two or more tasks"):
        old_new_figure([row("joint", [0.9, 0.9], **one)])


def test_other_seeds_are_no_pairs_and_other_tasks_no_table():
    table = results_table([row("a", [0.2, 0.4]), row("b", [0.5], seeds=(7,))])
    assert table.rows[1][-1] == "–"
    other = row("b", [0.2, 0.4], class_sizes=(2, 2))
    for made in (results_table, accuracy_curve_figure, old_new_figure):
        with pytest.raises(ValueError, match=r"'a' has \[3, 1\] classes, 'b' \[2, 2\]"):
            made([row("a", [0.2, 0.4]), other])
    with pytest.raises(ValueError, match="one row per method"):
        results_table([row("a", [0.2, 0.4])] * 2)
    with pytest.raises(ValueError, match="baseline must be one of a; got 'c'"):
        results_table([row("a", [0.2, 0.4])], baseline="c")
    with pytest.raises(ValueError, match="rows must not be empty"):
        accuracy_curve_figure([])


def test_a_row_of_other_lengths_is_refused():
    with pytest.raises(ValueError, match="seeds of 'a' must be distinct"):
        row("a", [0.2, 0.4], seeds=(3, 3))
    with pytest.raises(ValueError, match="forgetting of 'a' must hold 2 values"):
        row("a", [0.2, 0.4], forgetting=[0.1])
    short = row("a", [0.2, 0.4], matrices=[[[0.9, NAN], [0.2, 1.0]], [[0.9]]])
    with pytest.raises(ValueError, match=r"matrices of 'a' must be \(2, 2\).*seed 1 has \(1, 1\)"):
        results_table([short])


def test_curves_are_means_with_the_interval_of_the_seeds():
    made = row("a", [0.2, 0.4, 0.5], seeds=(0, 1, 2))
    axes = accuracy_curve_figure([made]).axes[0]
    assert axes.lines[0].get_xdata().tolist() == [3, 4]
    intervals = [
        mean_interval([100 * v for v in step])
        for step in zip(*made.details["accuracies"], strict=True)
    ]
    assert axes.lines[0].get_ydata() == pytest.approx([each.mean for each in intervals])
    outline = axes.collections[0].get_paths()[0].vertices
    for x, each in zip((3, 4), intervals, strict=True):
        edges = outline[outline[:, 0] == x, 1]
        assert (edges.min(), edges.max()) == pytest.approx((each.low, each.high))


def test_one_seed_has_no_band_and_classes_seen_can_be_given():
    axes = accuracy_curve_figure([row("a", [0.2], seeds=(0,))], [30, 40]).axes[0]
    assert len(axes.collections) == 0
    assert axes.lines[0].get_xdata().tolist() == [30, 40]
    for wrong in ([3], [4, 3], [3, 3]):
        with pytest.raises(ValueError, match="2 rising numbers"):
            accuracy_curve_figure([row("a", [0.2], seeds=(0,))], wrong)


def drawn_inside(figure):
    """Whether all that is drawn, legend and labels included, lies on the canvas."""
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return min(drawn.x0, drawn.y0) >= 0 and drawn.x1 <= width and drawn.y1 <= height


def test_long_names_and_many_methods_stay_on_the_canvas():
    names = [f"balanced softmax with distillation, alpha 0.{k}" for k in range(9)]
    rows = [row(name, [0.2 + 0.05 * k] * 2) for k, name in enumerate(names)]
    assert drawn_inside(accuracy_curve_figure(rows))
    for length in range(10, 40, 3):  # from three columns of the legend to one
        shorter = [
            dataclasses.replace(r, name=f"{names[0][:length]} {k}") for k, r in enumerate(rows)
        ]
        assert drawn_inside(accuracy_curve_figure(shorter))
    assert drawn_inside(old_new_figure(rows))
    assert drawn_inside(task_matrix_figure(np.eye(5), ["a long name of a task"] * 5))
    styles = [
        (line.get_color(), line.get_linestyle())
        for line in accuracy_curve_figure(rows).axes[0].lines
    ]
    assert len(set(styles)) == 9


def test_the_matrix_is_drawn_in_per_cent_and_blank_above_the_diagonal():
    figure = task_matrix_figure([[0.9, NAN], [0.625, 1.0]], ["base", "step"], title="bs")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["90.0", "62.5", "100"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["base", "step"]
    assert axes.images[0].get_clim() == (0, 100)
    assert len(figure.axes) == 1
    large = task_matrix_figure(torch.eye(26))
    assert [len(large.axes[0].texts), large.axes[1].get_ylabel()] == [0, "%"]


@pytest.mark.parametrize("wrong", [[[0.5, 0.5]], [[50.0]], [[-0.1]]])
def test_a_matrix_that_is_not_of_accuracies_is_refused(wrong):
    with pytest.raises(ValueError, match=r"square with accuracies in \[0, 1\]"):
        task_matrix_figure(wrong)
    with pytest.raises(ValueError, match="task_names must hold 1 names"):
        task_matrix_figure([[0.5]], ["a", "b"])


def test_the_table_of_tasks_holds_shares_of_rows_with_old_to_new_framed():
    figure = task_confusion_figure(np.array([[7, 0, 3], [0, 6, 4], [0, 1, 9]]), [2, 1])
    axes = figure.axes[0]
    assert axes.images[0].get_array().tolist() == [[65, 35], [10, 90]]
    (frame,) = [patch for patch in axes.patches if not patch.get_fill()]
    assert (*frame.get_xy(), frame.get_width(), frame.get_height()) == (0.5, -0.5, 1, 1)
    alone = task_confusion_figure([[3, 1], [0, 4]], [2]).axes[0]
    assert len(alone.patches) == 0
    blank = task_confusion_figure([[3, 1], [0, 0]], [1, 1]).axes[0]
    assert [text.get_text() for text in blank.texts] == ["75.0", "25.0"]
    with pytest.raises(ValueError, match=r"confusion must have shape \(2, 2\)"):
        task_confusion_figure(np.eye(3), [1, 1])


def test_old_for_new_and_new_for_old_are_means_with_their_seeds():
    rows = [row("ce", [0.2, 0.4]), row("bs", [0.5, 0.9])]
    axes = old_new_figure(rows).axes[0]
    means = {
        line.get_label(): line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2
    }
    assert means["old taken for new"] == pytest.approx([70, 30])
    assert means["new taken for old"] == pytest.approx([0, 0])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ce", "bs"]
    faint = [line for line in axes.lines if line.get_alpha()]
    assert sorted(x for line in faint for x in line.get_xdata()) == pytest.approx(
        [0, 0, 0, 0, 10, 50, 60, 80]
    )


def test_rows_hold_what_the_runs_say(runs):
    rows = collect_rows(runs)["tasks"]
    assert [made.name for made in rows] == ["cross-entropy", "balanced-softmax"]
    for made, bias in zip(rows, (4.0, 0.5), strict=True):
        assert made.seeds == [0, 1, 2]
        assert made.shared["class_sizes"] == [2, 1, 1]
        assert made.values["seconds"] == [1.5] * 3
        for index, seed in enumerate(made.seeds):
            tables = confusions([2, 1, 1], bias, seed)
            tasks = TaskMatrix.from_confusions(tables, [2, 1, 1])
            assert np.array_equal(made.details["matrices"][index], tasks.matrix, equal_nan=True)
            assert made.details["accuracies"][index] == list(tasks.accuracies)
            for name in (
                "average_incremental_accuracy", "final_accuracy", "forgetting", "backward_transfer",
            ):  # fmt: skip
                assert made.values[name][index] == getattr(tasks, name)
            assert made.values["old_as_new"][index] == tasks.old_as_new[-1]
            assert made.values["new_as_old"][index] == tasks.new_as_old[-1]
            assert (
                made.details["task_confusions"][index]
                == task_confusion(tables[-1], [2, 1, 1]).tolist()
            )


def test_the_runs_own_predictor_is_shown(tmp_path):
    sizes = [2, 1]
    tables, means = confusions(sizes, 4.0, 0), confusions(sizes, 0.0, 1)
    path = write_run(
        tmp_path / "icarl", sizes, tables, seed=0, predictor="nearest-mean", nearest_mean=means
    )
    (made,) = collect_rows({"icarl": [path]})["tasks"]
    assert made.values["final_accuracy"] == [
        TaskMatrix.from_confusions(means, sizes).final_accuracy
    ]
    lost = write_run(tmp_path / "lost", sizes, tables, seed=0, predictor="nearest-mean")
    with pytest.raises(ValueError, match=r"lost: .*no result of its predictor 'nearest-mean'"):
        collect_rows({"icarl": [lost]})["tasks"]


def test_other_runs_are_left_out_and_other_tasks_refused(runs, tmp_path):
    plain = write_run(tmp_path / "plain", [2], confusions([2], 0.0, 0), seed=0)
    summary = json.loads((plain / "summary.json").read_text())
    del summary["incremental"]
    summary["metrics"] = dict.fromkeys(("error", "nll", "brier", "ece", "ece_pooled"), 0.5)
    (plain / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "unfinished").mkdir()
    others = {"plain": [plain], "none": [tmp_path / "unfinished"]}
    assert collect_rows(others)["tasks"] == []
    assert len(collect_rows(runs | others)["tasks"]) == 2
    larger = write_run(tmp_path / "larger", [3, 1], confusions([3, 1], 0.0, 0), seed=0)
    with pytest.raises(ValueError, match=r"same sizes; .*\[2, 1, 1\], .*larger \[3, 1\]"):
        collect_rows(runs | {"larger": [larger]})["tasks"]


def test_a_comparison_leaves_table_record_figures_and_page(runs, tmp_path):
    out = tmp_path / "out"
    published = {"cross-entropy": {"theirs": 60.0}}
    report = write_comparison(
        out, runs, title="A < B", intro="why", published=published, published_note="A <note>"
    )
    page = report.page
    assert page == out / "report.html"
    text = page.read_text(encoding="utf-8")
    for part in ("A &lt; B", '<th scope="col">AIA %</th>', "Published numbers", "A &lt;note&gt;."):
        assert part in text
    assert text.count("data:image/png;base64,") == 6
    markdown = (out / "comparison.md").read_text(encoding="utf-8")
    assert markdown.startswith("# A < B\n\nwhy\n\n| Method | Seeds |")
    rows = collect_rows(runs)["tasks"]
    ours = 100 * np.mean(rows[0].values["average_incremental_accuracy"])
    assert f"| cross-entropy | {ours:.2f} | 60.00 |" in markdown
    assert [len(tables) for tables in report.tables] == [1, 1]  # all of it at any width
    record = json.loads((out / "comparison.json").read_text())
    assert record["environment"]["packages"]["torch"]
    assert [entry["method"] for entry in record["rows"]] == ["cross-entropy", "balanced-softmax"]
    assert record["rows"][0]["matrices"][0][0][1] is None
    names = {path.name for path in (out / "figures").iterdir()}
    assert names == {
        "accuracy.png", "old-new.png", "tasks-1.png", "tasks-2.png", "taken-for-1.png",
        "taken-for-2.png",
    }  # fmt: skip
    for path in (out / "figures").iterdir():
        with Image.open(path) as image:
            assert min(image.size) > 200
        assert path.stat().st_size < 100_000
    assert page.stat().st_size < 400_000


def test_the_methods_drawn_task_by_task_can_be_chosen(runs, tmp_path):
    write_comparison(tmp_path, runs, title="t", detailed=["balanced-softmax"])
    assert (tmp_path / "figures" / "tasks-1.png").exists()
    assert not (tmp_path / "figures" / "tasks-2.png").exists()
    assert "balanced-softmax: accuracy on each task" in (tmp_path / "report.html").read_text()
    with pytest.raises(ValueError, match="detailed must be one of"):
        write_comparison(tmp_path, runs, title="t", detailed=["joint"])


def test_the_same_rows_give_the_same_files_bitwise(runs, tmp_path):
    for name in ("a", "b"):
        only = {"cross-entropy": runs["cross-entropy"]}
        write_comparison(tmp_path / name, only, title="t")
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_figures_by_name_are_drawn_from_the_record_of_a_comparison(runs, tmp_path):
    write_comparison(tmp_path, runs, title="t")
    ce, bs = collect_rows(runs)["tasks"]
    drawn = draw_figure("tasks", [tmp_path], variant="balanced-softmax").axes[0].images[0]
    expected = 100 * np.mean(bs.details["matrices"], axis=0)
    np.testing.assert_allclose(drawn.get_array().filled(NAN), expected)
    drawn = draw_figure("taken-for", [tmp_path / "comparison.json"], variant="cross-entropy")
    counts = np.sum(ce.details["task_confusions"], axis=0)
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(drawn.axes[0].images[0].get_array(), shares)
    lines = draw_figure("accuracy", [tmp_path]).axes[0].lines
    means = 100 * np.mean(bs.details["accuracies"], axis=0)
    assert lines[1].get_ydata() == pytest.approx(means)
    labels = draw_figure("old-new", [tmp_path]).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["cross-entropy", "balanced-softmax"]
