"""The table of ``tune`` shows what the runs of the search measured."""

import json


def test_the_table_of_a_search_shows_the_runs_held_out_errors_in_per_cent(
    lastlayer, tiny_recipe, tmp_path
):
    words = ("--heads", "softmax", "--steps", 5, "--jobs", 1, "--out", tmp_path / "search")
    printed = lastlayer("tune", "--recipe", tiny_recipe, *words, "--grid", "optimizer.lr=1e-5,1e-2")
    assert printed.status == 0, printed.err
    found = [json.loads(path.read_text()) for path in tmp_path.rglob("summary.json")]
    assert {summary["measured_on"] for summary in found} == {"validation"}
    expected = sorted(
        (f"{100 * run['metrics']['error']:.2f}", f"{run['metrics']['nll']:.4f}") for run in found
    )
    rows = [line.split() for line in printed.out.splitlines() if line.startswith("  softmax")]
    assert sorted(tuple(row[-2:]) for row in rows) == expected
    assert len(expected) == 2
