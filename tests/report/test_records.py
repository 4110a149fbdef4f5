"""The record of a comparison: read back as written, in every form that was ever stored."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lastlayer.report import Row, read_record, results_table
from lastlayer.report.rows import write_record

RESULTS = Path(__file__).parents[2] / "results"
STORED = sorted(path.parent.name for path in RESULTS.glob("*/comparison.json"))


def tables_in(markdown):
    """The tables of a Markdown file, each a list of rows by heading."""
    blocks = [block.splitlines() for block in markdown.split("\n\n") if block.startswith("| ")]
    cells = [[line.strip("| ").split(" | ") for line in block] for block in blocks]
    return [[dict(zip(head, row, strict=True)) for row in rows] for head, _, *rows in cells]


@pytest.mark.parametrize("name", STORED)
def test_the_stored_record_gives_the_stored_table_cell_for_cell(name):
    tables = read_record(RESULTS / name / "comparison.json")
    shown = [results_table(rows) for rows in tables.values() if rows]
    stored = tables_in((RESULTS / name / "comparison.md").read_text(encoding="utf-8"))
    assert 1 <= len(shown) <= len(stored)  # the published numbers may follow
    for table, theirs in zip(shown, stored, strict=False):
        ours = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        assert len(ours) == len(theirs)
        for row, their in zip(ours, theirs, strict=True):
            assert {key: row[key] for key in their} == their


def test_infinity_and_what_is_not_defined_come_back(tmp_path):
    heads = [Row("softmax", [3, 1], {"error": [0.1, 0.2], "nll": [math.inf, 0.5]})]
    groups = Row(
        "softmax",
        [3],
        {"balanced_accuracy": [0.5], "rare_accuracy": [math.nan]},
        "groups",
        {"groups": ["many", "medium", "few"], "note": "Three groups."},
        {
            "group_confusion": [[[1.0, math.nan]]],
            "class_counts": [[9, 0]],
            "class_accuracy": [[1.0]],
        },
    )
    path = tmp_path / "comparison.json"
    write_record(path, "t", {"heads": heads, "groups": [groups]})
    back = read_record(path)
    assert back["heads"] == heads
    assert back["tasks"] == []
    (found,) = back["groups"]
    assert (found.name, found.seeds, found.shared) == ("softmax", [3], groups.shared)
    assert math.isnan(found.values["rare_accuracy"][0])
    assert math.isnan(found.details["group_confusion"][0][0][1])
    assert results_table(back["groups"]).note.startswith("Three groups. Accuracy")


def test_groups_of_an_older_record_are_read_by_their_names(tmp_path):
    older = {
        "head": "softmax", "seeds": [0, 1], "groups": ["many", "medium", "few"], "note": "Three.",
        "balanced_accuracy": [0.6, 0.7],
        "group_accuracy": {"many": [0.9, 0.8], "medium": [0.5, 0.6], "few": [0.25, None]},
        "group_confusion": [[[1, 0, 0], [0, 1, 0], [0.5, 0.25, 0.25]]] * 2,
        "class_counts": [[9, 1]] * 2, "class_accuracy": [[1.0, None]] * 2,
    }  # fmt: skip
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps({"title": "t", "rows": [], "long_tail": [older]}))
    (row,) = read_record(path)["groups"]
    assert row.values["frequent_accuracy"] == [0.9, 0.8]
    assert row.values["medium_accuracy"] == [0.5, 0.6]
    assert row.values["rare_accuracy"][0] == 0.25
    assert math.isnan(row.values["rare_accuracy"][1])
    assert row.values["rare_as_frequent"] == [0.5, 0.5]


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": [{"head": "a"}]}', '{"rows": 3}'])
def test_another_file_is_named(tmp_path, text):
    path = tmp_path / "comparison.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path} is not the record of a comparison"):
        read_record(path)
