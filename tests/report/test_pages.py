import json

import pytest
from PIL import Image

from lastlayer.report import collect_rows, write_comparison
from lastlayer.training import RunConfig, RunDirectory


@pytest.fixture
def runs(comparison):
    return {head: [comparison.folder / f"{head}-seed0"] for head in ("softmax", "dropmax")}


def test_a_comparison_leaves_table_record_figures_and_page(runs, tmp_path):
    picture = tmp_path / "extra.png"
    Image.new("RGB", (3, 3)).save(picture)
    out = tmp_path / "out"
    report = write_comparison(
        out,
        runs,
        title="A < B",
        intro="why",
        published={"softmax": {"Theirs": 2.0}},
        published_note="A <note>",
        extra_figures={"one & all": picture},
    )
    record = json.loads((out / "comparison.json").read_text())
    assert record["title"] == "A < B"
    rows = collect_rows(runs)["heads"]
    assert [row["error"] for row in record["rows"]] == [row.values["error"] for row in rows]
    assert record["environment"]["packages"]["torch"]
    markdown = (out / "comparison.md").read_text(encoding="utf-8")
    assert markdown.startswith("# A < B\n\nwhy\n\n| Head | Seeds |")
    assert f"| softmax | {100 * rows[0].values['error'][0]:.2f} | 2.00 |" in markdown
    assert [table.columns[0] for table, *_ in report.tables] == ["Head", "Head"]
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in ("A &lt; B", "one &amp; all", "Published numbers", "A &lt;note&gt;."):
        assert text in page
    assert page.count("data:image/png;base64,") == 4
    for figure in (out / "figures").iterdir():
        with Image.open(figure) as image:
            assert min(image.size) > 200


def test_the_same_runs_give_the_same_page_bitwise(runs, tmp_path):
    for name in ("a", "b"):
        write_comparison(tmp_path / name, runs, title="t")
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_without_a_finished_run_there_is_nothing_to_write(tmp_path):
    run = RunDirectory.create(tmp_path / "run", RunConfig())
    with pytest.raises(ValueError, match="no finished run"):
        write_comparison(tmp_path / "out", {"softmax": [run.path]}, title="t")
    assert not (tmp_path / "out").exists()


def test_without_records_there_is_no_curve(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(RunDirectory, "metrics", lambda self: [])
    write_comparison(tmp_path, runs, title="t")
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        "comparison.png",
        "reliability.png",
    }
