"""The table and figures of long-tailed comparisons, by hand-made rows and from runs."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from lastlayer.experiments import Recipe, plan, run
from lastlayer.report import (
    LongTailRow,
    class_accuracy_figure,
    long_tail_table,
    tail_confusion_figure,
)
from lastlayer.report.pages import write_comparison
from lastlayer.report.runs import long_tail_rows


def row(head, few, seeds=(0, 1), **changes):
    count = len(seeds)
    made = LongTailRow(
        head=head,
        seeds=list(seeds),
        groups=("many", "medium", "few"),
        note="Three groups.",
        balanced_accuracy=[(0.9 + 0.8 + value) / 3 for value in few],
        group_accuracy={"many": [0.9] * count, "medium": [0.8] * count, "few": list(few)},
        group_confusion=[[[1, 0, 0], [0, 1, 0], [0.3, 0.1, 0.6]]] * count,
        class_counts=[[5, 200, 50]] * count,
        class_accuracy=[[value, 0.9, 0.8] for value in few],
    )
    return dataclasses.replace(made, **changes)


def test_the_table_pairs_the_seeds_and_says_what_the_groups_are():
    table = long_tail_table([row("softmax", [0.2, 0.4]), row("balanced", [0.5, 0.6])])
    assert table.columns == (
        "Head", "Seeds", "Balanced accuracy %", "many %", "medium %", "few %",
        "few taken for many %", "Δ balanced to softmax", "Δ few to softmax",
    )  # fmt: skip
    assert table.rows[0][5:] == ("30.00 ± 14.14", "30.00 ± 0.00", "baseline", "baseline")
    # 30 and 20 points: mean 25, standard error 5, t(1) = 12.706.
    assert table.rows[1][-1] == "+25.00 [-38.53, +88.53]"
    assert table.note.startswith("Three groups.")


def test_an_empty_group_is_a_dash_not_zero():
    empty = {"many": [0.9, 0.9], "medium": [0.8, 0.8], "few": [math.nan] * 2}
    rows = [row(name, [0.2, 0.4], group_accuracy=empty) for name in ("a", "b")]
    table = long_tail_table(rows)
    assert table.rows[1][5] == "–"
    assert table.rows[1][-1] == "–"


def test_other_seeds_and_groups_are_no_pairs():
    table = long_tail_table([row("a", [0.2, 0.4]), row("b", [0.5], seeds=(7,))])
    assert table.rows[1][-1] == "–"
    with pytest.raises(ValueError, match="same groups"):
        long_tail_table([row("a", [0.2, 0.4]), row("b", [0.2, 0.4], groups=("head", "tail"))])
    with pytest.raises(ValueError, match="one row per head"):
        long_tail_table([])
    with pytest.raises(ValueError, match="baseline must be one of"):
        long_tail_table([row("a", [0.2, 0.4])], baseline="c")


def test_class_accuracy_is_drawn_from_the_most_frequent_class_on():
    figure = class_accuracy_figure([row("a", [0.2, 0.4])])
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [200, 50, 5]
    assert line.get_ydata().tolist() == pytest.approx([90, 80, 30])
    assert figure.axes[0].get_xscale() == "log"


def test_the_bars_of_the_rarest_group_add_up_to_all_its_examples():
    figure = tail_confusion_figure([row("a", [0.2, 0.4]), row("b", [0.5, 0.5])])
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["few, right", "another few", "medium", "many"]
    assert widths == pytest.approx([30, 50, 30, 10, 10, 10, 30, 30])


def test_a_long_tailed_comparison_has_table_and_figures(tmp_path):
    recipe = Recipe(
        title="t",
        variants=("softmax", "balanced-softmax"),
        config={
            "data": {"long_tail": {"imbalance": 50}, "validation_size": 50},
            "model": {"name": "mlp", "options": {"hidden": [8]}},
            "training": {"steps": 20, "batch_size": 40},
        },
    )
    jobs = plan(recipe, recipe.variants, [0], tmp_path)
    assert run(jobs, parallel=1) == []
    runs = {job.label: [job.path] for job in jobs}
    rows = long_tail_rows(runs)
    assert [r.head for r in rows] == ["softmax", "balanced-softmax"]
    assert rows[0].groups == ("many", "medium", "few")
    write_comparison(tmp_path, runs, title="t")
    markdown = (tmp_path / "comparison.md").read_text()
    assert "Balanced accuracy %" in markdown
    assert "few below 20" in markdown
    assert "<h2>Groups of classes</h2>" in (tmp_path / "report.html").read_text()
    record = json.loads((tmp_path / "comparison.json").read_text())
    assert [r["head"] for r in record["long_tail"]] == ["softmax", "balanced-softmax"]
    for name in ("class-accuracy", "tail-confusion"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 0
