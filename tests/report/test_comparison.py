import io
import math

import numpy as np
import pytest
from scipy import stats

from lastlayer.report import Row, TextTable, comparison_figure, results_table


def row(head, error, seeds=None, **changes):
    size = len(error)
    values = {
        "error": error,
        "nll": [0.1] * size,
        "brier": [0.05] * size,
        "ece": [0.02] * size,
        "ece_pooled": [0.01] * size,
        "seconds": [3.0] * size,
    }
    return Row(head, list(range(size)) if seeds is None else seeds, values | changes)


BASE = row("softmax", [0.10, 0.12, 0.14])
BETTER = row("dropmax", [0.08, 0.11, 0.10], nll=[0.1, 0.2, math.inf])


def cells(table, head):
    found = next(cells for cells in table.rows if cells[0] == head)
    return dict(zip(table.columns, found, strict=True))


def test_cells_hold_mean_and_sd_in_the_units_of_the_heading():
    mine = cells(results_table([BASE, BETTER]), "softmax")
    assert mine["Error %"] == "12.00 ± 2.00"
    assert mine["NLL"] == "0.100 ± 0.000"
    assert mine["ECE top-1 %"] == "2.00 ± 0.00"
    assert mine["Seconds"] == "3.0 ± 0.0"
    assert mine["Seeds"] == "3"


def test_difference_is_paired_by_seed_with_scipys_interval():
    expected = stats.ttest_rel([8, 11, 10], [10, 12, 14]).confidence_interval(0.95)
    mine = cells(results_table([BASE, BETTER]), "dropmax")
    text = f"{-7 / 3:+.2f} [{expected.low:+.2f}, {expected.high:+.2f}]"
    assert mine["Δ error to softmax"] == text
    # The seeds in another order, with one the baseline lacks, change nothing.
    shuffled = row("dropmax", [0.10, 0.08, 0.5, 0.11], seeds=[2, 0, 9, 1])
    assert cells(results_table([BASE, shuffled]), "dropmax")["Δ error to softmax"] == text


def test_one_shared_seed_gives_no_interval_and_none_no_difference():
    table = results_table([BASE, row("one", [0.11]), row("none", [0.2], seeds=[7])])
    assert cells(table, "one")["Δ error to softmax"] == "+1.00"
    assert cells(table, "none")["Δ error to softmax"] == "–"
    assert cells(table, "one")["Error %"] == "11.00"


def test_infinite_nll_is_printed_as_inf():
    assert cells(results_table([BASE, BETTER]), "dropmax")["NLL"] == "inf"


def test_another_baseline_can_be_named():
    table = results_table([BASE, BETTER], baseline="dropmax")
    assert cells(table, "dropmax")["Δ error to dropmax"] == "baseline"
    assert cells(table, "softmax")["Δ error to dropmax"].startswith("+2.33")


def test_scaled_columns_appear_only_where_a_head_has_them():
    scaled = row("scaled", [0.1, 0.1], nll_scaled=[0.2, 0.4], ece_scaled=[0.01, 0.03])
    assert "NLL, scaled" not in results_table([BASE]).columns
    table = results_table([BASE, scaled])
    assert cells(table, "scaled")["NLL, scaled"] == "0.300 ± 0.141"
    assert cells(table, "scaled")["ECE top-1 %, scaled"] == "2.00 ± 1.41"
    assert cells(table, "softmax")["NLL, scaled"] == "–"


def test_measures_choose_the_columns():
    columns = results_table([BASE], measures=["nll", "error"], differences=["brier"]).columns
    assert columns == ("Head", "Seeds", "NLL", "Error %", "Δ Brier to softmax")


def test_differences_are_in_the_units_of_their_measure():
    better = row("better", [0.10, 0.12, 0.14], nll=[0.05, 0.07, 0.03])
    mine = cells(results_table([BASE, better]), "better")
    expected = stats.ttest_1samp([-0.05, -0.03, -0.07], 0).confidence_interval(0.95)
    assert mine["Δ NLL to softmax"] == f"-0.050 [{expected.low:+.3f}, {expected.high:+.3f}]"
    assert mine["Δ error to softmax"] == "+0.00 [+0.00, +0.00]"
    infinite = cells(results_table([BASE, BETTER]), "dropmax")["Δ NLL to softmax"]
    assert infinite.startswith("+inf")


def test_markdown_has_one_line_per_row_and_escapes_bars():
    lines = TextTable(("a", "b"), (("x|y", "1"),), "note").to_markdown().splitlines()
    assert lines == ["| a | b |", "| --- | ---: |", r"| x\|y | 1 |", "", "note"]


def test_rich_table_prints_every_cell_literally():
    from rich.console import Console

    output = io.StringIO()
    table = TextTable(("head", "x"), (("[red]not markup[/red]", "1.00"),), "note [b]")
    Console(file=output, width=80).print(table.to_rich())
    for text in ("head", "[red]not markup[/red]", "1.00", "note [b]"):
        assert text in output.getvalue()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: results_table([]), "one or more"),
        (lambda: results_table([BASE, BASE]), "one row per head"),
        (lambda: results_table([BASE], baseline="x"), "baseline must be one of softmax"),
        (lambda: results_table([BASE], measures=["accuracy"]), "measures must be one of"),
        (lambda: row("a", [0.1, 0.2], seeds=[1, 1]), "seeds of 'a' must be distinct"),
        (lambda: row("a", [], seeds=[]), "seeds of 'a'"),
        (lambda: row("a", [0.1], nll=[0.1, 0.2]), "nll of 'a' must hold 1 values"),
        (lambda: row("a", [0.1], nll_scaled=[1, 2]), "nll_scaled of 'a'"),
        (lambda: comparison_figure([]), "rows must not be empty"),
        (lambda: comparison_figure([BASE], []), "measures must not be empty"),
        (lambda: comparison_figure([BASE], ["x"]), "measures must be one of"),
    ],
)
def test_bad_rows_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_dots_are_the_seeds_and_the_diamond_is_their_mean():
    axes = comparison_figure([BASE, BETTER], ["error"]).axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    means = [line for line in axes.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(dots[1].get_xdata(), [8, 11, 10])
    np.testing.assert_allclose(means[0].get_xdata(), [12])
    np.testing.assert_allclose(means[1].get_xdata(), [29 / 3])
    low, high = stats.t.interval(0.95, 2, loc=12, scale=2 / math.sqrt(3))
    interval = next(line for line in axes.lines if len(line.get_xdata()) == 2)
    np.testing.assert_allclose(interval.get_xdata(), [low, high])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["softmax", "dropmax"]


def test_infinite_values_are_named_and_get_no_mean():
    figure = comparison_figure([row("all", [0.1], nll=[math.inf]), BETTER], ["nll"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["inf", "inf (1 of 3)"]
    assert not [line for line in figure.axes[0].lines if line.get_marker() == "D"]


def test_an_interval_far_wider_than_the_dots_is_cut_with_arrowheads():
    axes = comparison_figure([row("two", [0.10, 0.11])], ["error"]).axes[0]
    markers = {line.get_marker() for line in axes.lines}
    assert {"<", ">"} <= markers
    assert axes.get_xlim()[1] < 13


def test_one_seed_draws_a_mean_without_interval():
    axes = comparison_figure([row("one", [0.1])], ["error"]).axes[0]
    assert {line.get_marker() for line in axes.lines} == {"o", "D"}


def test_a_difference_to_a_measure_that_was_not_taken_is_a_dash():
    scaled = row("dropmax", [0.08, 0.11], nll_scaled=[0.2, 0.3])
    table = results_table([row("softmax", [0.1, 0.1]), scaled], differences=("nll_scaled",))
    assert cells(table, "dropmax")["Δ NLL, scaled to softmax"] == "–"
